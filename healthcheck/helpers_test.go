package healthcheck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.uber.org/goleak"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/healthcheck/statuses"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// instance returns instance number n of a test service.
func instance(n int) discovery.Instance {
	return discovery.Instance{
		Service: "star", ID: fmt.Sprintf("star-%05d", n), Node: "node-1",
		Address: "127.0.0.1", Port: 10000 + n, Weight: 1,
	}
}

func instances(n int) []discovery.Instance {
	set := make([]discovery.Instance, n)
	for i := range set {
		set[i] = instance(i)
	}
	return set
}

// script is a probe that a test controls.
type script struct {
	mu        sync.Mutex
	fails     map[string]bool // by address
	fault     string          // of a failed check
	takes     time.Duration   // of each check
	checks    map[string]int  // begun checks
	times     map[string][]time.Time
	running   int
	most      int // simultaneous checks
	forgotten map[string]int
	closed    bool
}

func newScript() *script {
	return &script{
		fails: make(map[string]bool), fault: "status 500", checks: make(map[string]int),
		times: make(map[string][]time.Time), forgotten: make(map[string]int),
	}
}

func (s *script) Check(ctx context.Context, t Target) error {
	address := t.Address
	s.mu.Lock()
	s.checks[address]++
	s.times[address] = append(s.times[address], time.Now())
	s.running++
	s.most = max(s.most, s.running)
	takes, fails := s.takes, s.fails[address]
	s.mu.Unlock()
	if takes > 0 {
		timer := time.NewTimer(takes)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	switch {
	case ctx.Err() != nil:
		return errors.New("timed out")
	case fails:
		return errors.New(s.fault)
	}
	return nil
}

func (s *script) Forget(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgotten[address]++
}

func (s *script) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

func (s *script) String() string { return "script" }

func (s *script) set(i discovery.Instance, fails bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails[i.HostPort()] = fails
}

// of returns the number of begun checks of instance n.
func (s *script) of(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checks[instance(n).HostPort()]
}

// generator is a source of random numbers for concurrent use.
type generator struct {
	mu     sync.Mutex // guards the field below
	random *rand.Rand
}

func (g *generator) Float64() float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.random.Float64()
}

func (g *generator) Uint64() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.random.Uint64()
}

// seeded returns a generator with the same numbers in each run of a test.
func seeded(t testing.TB) *generator {
	seed := xxhash.Sum64String(t.Name())
	t.Logf("seed %d", seed)
	return &generator{random: rand.New(rand.NewPCG(seed, 0))}
}

// fixture is a pool with a checker.
type fixture struct {
	*balancer.Pool
	t       testing.TB
	monitor *Monitor
	checker *Checker
	log     []string // events
	mu      sync.Mutex
	options balancer.Options
}

// bubble runs a test with a fixture of n peers in a bubble.
func bubble(t *testing.T, s Settings, n int, run func(t *testing.T, f *fixture)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, s, Options{})
		defer f.close()
		if n > 0 {
			f.Apply(instances(n))
			synctest.Wait()
		}
		run(t, f)
	})
}

// checked is bubble with active checks by a script, and without peers.
func checked(t *testing.T, run func(t *testing.T, f *fixture, probe *script)) {
	checkedAs(t, Options{}, func(*Active, *script) {}, run)
}

// checkedAs is checked with other options, and settings or a script that change has changed.
func checkedAs(t *testing.T, o Options, change func(a *Active, probe *script), run func(t *testing.T, f *fixture, probe *script)) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		s := activeSettings(probe)
		change(s.Active, probe)
		f := newFixture(t, s, o)
		defer f.close()
		run(t, f, probe)
	})
}

// pass lets time pass in a bubble, and what is due happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// newFixture returns a pool with a checker and the settings s. The test must close it, in the
// same bubble.
func newFixture(t testing.TB, s Settings, o Options) *fixture {
	t.Helper()
	s = s.clone()
	f := &fixture{t: t}
	f.options = balancertest.Complete(balancer.Options{Policy: balancer.PolicyRoundRobin, Notify: f.note})
	random := seeded(t)
	f.options.Random, o.Random = random.Uint64, random.Float64
	o.MaxChecks = cmp.Or(o.MaxChecks, 512)
	f.monitor = NewMonitor(o)
	f.checker = f.monitor.NewChecker()
	f.Pool = balancer.NewPool("star", f.checker.Adapt(f.options, s))
	f.checker.Start(f.Pool, s)
	return f
}

// clone returns a copy of settings, which a test may change.
func (s Settings) clone() Settings {
	if s.Active != nil {
		active := *s.Active
		s.Active = &active
	}
	return s
}

func (f *fixture) note(e balancer.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Kind == balancer.EventState {
		f.log = append(f.log, e.Peer.ID.ID+": "+e.Detail)
	}
}

// events returns the changes of state since the last call.
func (f *fixture) events() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := f.log
	f.log = nil
	return log
}

func (f *fixture) close() {
	f.checker.Stop()
	f.monitor.Close()
	f.Pool.Close()
}

func (f *fixture) reconfigure(s Settings) {
	f.t.Helper()
	s = s.clone()
	f.checker.Reconfigure(f.checker.Adapt(f.options, s), s)
}

// peer returns the peer of instance number n.
func (f *fixture) peer(n int) *balancer.Peer {
	f.t.Helper()
	all := f.Snapshot().All
	i := slices.IndexFunc(all, func(p *balancer.Peer) bool { return p.ID == instance(n).Key() })
	verify.Require(f.t, i >= 0, "no peer %d", n)
	return all[i]
}

// eligible returns the number of eligible peers.
func (f *fixture) eligible() int { return len(f.Snapshot().Eligible) }

// request sends a request with the outcome to peer n. It returns false if the peer is not
// picked.
func (f *fixture) request(n int, o balancer.Outcome) bool {
	f.t.Helper()
	token, ok := f.pick(n)
	if ok {
		token.Done(o)
	}
	return ok
}

// pick begins a request to peer n.
func (f *fixture) pick(n int) (balancer.Token, bool) {
	f.t.Helper()
	for range 10000 {
		token, err := f.Pick(nil)
		if err != nil {
			return token, false
		}
		if token.Peer.ID == instance(n).Key() {
			return token, true
		}
		token.Done(balancer.Outcome{Class: balancer.OutcomeClientGone})
		if !slices.Contains(f.Snapshot().Eligible, f.peer(n)) {
			return token, false
		}
	}
	f.t.Fatalf("peer %d is never picked", n)
	return balancer.Token{}, false
}

// newHTTP returns a probe with defaults for the options that a test does not set.
func newHTTP(o HTTPOptions) *HTTP {
	o.Method, o.Path = cmp.Or(o.Method, "GET"), cmp.Or(o.Path, "/")
	if o.Status == (statuses.Set{}) {
		o.Status, _ = statuses.Parse("2xx")
	}
	return NewHTTP(o)
}
