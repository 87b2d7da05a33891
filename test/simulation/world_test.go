package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/healthcheck"
	"sluice/test/proof"
)

// streams of random numbers of one seed, which do not depend on each other.
const (
	streamScript = iota + 1
	streamChecks
	streamPool
	streamRegistry
	streamRequest
	streamProbe
	streamConsul
)

// world is one run.
type world struct {
	seed    uint64
	random  *rand.Rand // of the script only
	begin   time.Time
	manager *discovery.Manager
	monitor *healthcheck.Monitor
	// prompt reports whether workers never delay active checks.
	prompt   bool
	requests sync.WaitGroup
	proof    *proof.Proof // of all pools

	registries []*registry // one for each service, and for each that the catalog may have
	consuls    []*consul
	catalog    *catalog   // nil: no services are looked for
	services   []*service // in use; only the script changes it
	retired    []*service // taken out of use, until they have drained

	mu sync.Mutex // guards the fields below, and the models of services, peers and requests

	trace     []line
	violation string
	unjudged  bool     // only the proof judges, and a violation does not end the run
	proven    []string // what the proof has reported
	doubts    []doubt
	upstreams map[string]*upstream // by address
	byName    map[string]*service
	maxWait   time.Duration // the longest debounce so far
	numbers   struct{ requests, pools, instances int }
	counts    counts
	lots      lots // requests that begin with the first tier
}

// counts is how often what happened.
type counts map[string]int

// happenings are what has to happen in many runs, or what is checked about them
// is checked for nothing.
var happenings = []string{
	"request answered", "request failed", "request refused", "client gone", "retry", "request waited",
	"peer drained", "peer cut", "peer returned while draining", "peer ejected", "peer warming", "check failed",
	"operator drained", "drain stood", "panic", "error of the registry", "fallback", "service replaced",
	"tier overflows", "next tier tried", "panic in tiers", "subset", "replicas compared", "on probation", "used on probation", "failed on probation", "all lost", "lost by a restore",
	"service found", "lost sight of a service", "service not listed any more", "try in a group", "try in a fallback",
}

type line struct {
	at   time.Duration
	text string
}

func newWorld(seed uint64) *world {
	w := &world{
		seed: seed, random: stream(seed, streamScript, 0), begin: time.Now(),
		upstreams: make(map[string]*upstream), byName: make(map[string]*service), counts: make(counts),
	}
	w.prompt = w.random.IntN(4) > 0
	options := healthcheck.Options{MaxChecks: 512, Random: locked(stream(seed, streamChecks, 0)).Float64}
	if !w.prompt {
		options.MaxChecks = 1 + w.random.IntN(3)
	}
	w.monitor = healthcheck.NewMonitor(options)
	w.proof = proof.New(w.disprove)
	d := w.drawDebounce()
	o := discovery.ManagerOptions{Debounce: d, Sink: w.sink, Log: zerolog.Nop()}
	if w.random.IntN(2) == 0 {
		o.Fallback = w.fallback
	}
	w.manager = discovery.NewManager(o)
	return w
}

// stream returns the numbered generator of a kind.
func stream(seed, kind uint64, number int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, kind<<32|uint64(number)))
}

// lockedRand is a generator that is safe for concurrent use.
type lockedRand struct {
	mu     sync.Mutex
	random *rand.Rand
}

func locked(r *rand.Rand) *lockedRand { return &lockedRand{random: r} }

func (l *lockedRand) Float64() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.Float64()
}

func (l *lockedRand) Uint64() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.Uint64()
}

// sink is the end of discovery, as package gateway has it.
func (w *world) sink(set discovery.Set) {
	w.mu.Lock()
	s := w.byName[set.Service]
	w.logf("%s: set %s", set.Service, describe(set.Instances))
	if s != nil {
		if len(s.reports) == 0 && s.offered {
			w.counts["fallback"]++
			s.reportedLocked(s.registry.saved)
		}
		s.registry.saved, s.registry.savedAt = set.Instances, time.Now()
	}
	w.mu.Unlock()
	if s != nil {
		s.pool.Apply(set.Instances)
		w.mu.Lock()
		s.observe()
		w.mu.Unlock()
	}
}

// fallback returns the last set of a service that was known before, as the file
// of package snapshot does. It is in use if sink gets it before a report of the source.
func (w *world) fallback(name, source, _ string) (state discovery.WatchState, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.byName[name]
	if s == nil || s.registry.savedAt.IsZero() {
		return state, false
	}
	if n := len(s.reports); n > 0 && s.reports[n-1].at != time.Now() {
		w.violateLocked("%s: the saved set is read though the source has reported", name)
	}
	w.logf("%s: may fall back on %s", name, describe(s.registry.saved))
	s.offered = true
	return discovery.WatchState{Source: source, Known: true, Set: s.registry.saved, Restored: s.registry.savedAt}, true
}

func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

func (w *world) log(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logf(format, args...)
}

// logf is log with mu held. The trace ends with a violation.
func (w *world) logf(format string, args ...any) {
	if w.violation != "" {
		return
	}
	w.trace = append(w.trace, line{time.Since(w.begin), fmt.Sprintf(format, args...)})
}

// violateLocked records the first violation.
func (w *world) violateLocked(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.logf("VIOLATION: %s", text)
	if w.unjudged {
		return
	}
	if w.violation == "" {
		w.violation = fmt.Sprintf("at %v: %s", time.Since(w.begin), text)
	}
}

// violate is violateLocked without mu held.
func (w *world) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violateLocked(format, args...)
}

// disprove notes a violation that the proof has found.
func (w *world) disprove(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proven = append(w.proven, text)
	w.violateLocked("proof: %s", text)
}

func (w *world) violated() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.violation != ""
}

// chronicle returns the last lines of the trace, or all if last is 0.
func (w *world) chronicle(last int) string {
	lines := w.trace
	if last > 0 && len(lines) > last {
		lines = lines[len(lines)-last:]
	}
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%14v  %s\n", l.at, l.text)
	}
	return b.String()
}

// settle waits until nothing moves any more, and checks everything.
func (w *world) settle() {
	synctest.Wait()
	for w.catalog != nil && w.catalog.applyFound() {
		synctest.Wait()
	}
	w.check()
}

// pass lets time pass in steps, and checks the state after each.
func (w *world) pass(d time.Duration) {
	for most := max(500*time.Millisecond, d/40); d > 0 && !w.violated(); {
		piece := min(d, most)
		time.Sleep(piece)
		w.settle()
		d -= piece
	}
}

func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.manager.Run(ctx) })
	for _, name := range []string{"star", "moon", "sun"}[:1+w.random.IntN(3)] {
		r := newPopulatedRegistry(w, name)
		w.registries = append(w.registries, r)
		w.services = append(w.services, w.newService(r))
	}
	if w.random.IntN(12) == 0 {
		w.catalog = newCatalog(w)
	}
	w.settle()
	for steps := 60 + w.random.IntN(140); steps > 0 && !w.violated(); steps-- {
		w.pass(w.pause())
		w.act()
		w.settle()
	}
	if !w.violated() {
		w.endFaults()
	}
	if w.catalog != nil {
		w.catalog.stop()
		w.catalog = nil
	}
	for _, s := range w.services {
		w.retire(s)
	}
	w.services = nil
	w.requests.Wait() // each has a time limit
	if !w.violated() {
		w.pass(maxDrainTimeout + time.Millisecond)
		w.checkEnd()
	}
	w.monitor.Close()
	cancel()
	running.Wait()
	for _, c := range w.consuls {
		c.close()
	}
	time.Sleep(2 * time.Minute) // the proof waits that long for requests that should have ended
}

func (w *world) pause() time.Duration {
	switch n := w.random.IntN(100); {
	case n < 2:
		return w.upTo(10 * time.Second)
	case n < 10:
		return w.upTo(time.Second)
	case n < 30:
		return w.upTo(100 * time.Millisecond)
	case n < 35:
		return 0
	}
	return w.upTo(10 * time.Millisecond)
}

// upTo returns a time above 0, to the nanosecond, so that hardly anything
// happens at the same time by chance.
func (w *world) upTo(limit time.Duration) time.Duration {
	return 1 + time.Duration(w.random.Int64N(int64(limit)))
}

func (w *world) drawDebounce() discovery.Debounce {
	var d discovery.Debounce
	if w.random.IntN(5) > 0 {
		d.Quiet = w.upTo(200 * time.Millisecond)
		d.MaxWait = d.Quiet + w.upTo(2*time.Second)
	}
	w.mu.Lock()
	w.maxWait = max(w.maxWait, d.MaxWait)
	w.mu.Unlock()
	return d
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func describe(set []discovery.Instance) string {
	words := make([]string, len(set))
	for n, i := range set {
		words[n] = describeInstance(i)
	}
	return "[" + strings.Join(words, " ") + "]"
}

func describeInstance(i discovery.Instance) string {
	text := fmt.Sprintf("%s@%s/%s", i.ID, i.HostPort(), i.Node)
	if i.Status != discovery.StatusPassing {
		text += ":" + i.Status.String()
	}
	if i.Weight != 1 {
		text += fmt.Sprintf("*%d", i.Weight)
	}
	if len(i.Tags)+len(i.Meta) > 0 {
		text += fmt.Sprint(i.Tags, i.Meta["zone"])
	}
	if !i.Probation.IsZero() {
		text += " (on probation)"
	}
	return text
}

func describePeer(p *balancer.Peer) string {
	return p.ID.ID + "@" + p.ID.Address + "/" + p.Instance().Node
}
