package simulation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
)

const (
	maxReportDelay = 300 * time.Millisecond
	maxReportRetry = 500 * time.Millisecond
)

// registry has the instances of one service. Only the script changes them.
type registry struct {
	w      *world
	name   string
	random *rand.Rand // under w.mu
	consul *consul    // nil: source queries the registry
	keeps  bool       // instances that are lost

	catalog *catalog // that finds the service; nil: it is configured

	// w.mu guards the fields below.

	entries     []discovery.Instance  // as registered, several of a process included
	written     map[[2]string]written // by node and id; of Consul
	writes      int
	onProbation []discovery.Instance // lost by the registry, but reported by source
	former      []discovery.Instance // that have left
	index       uint64
	down        bool                        // queries fail
	delay       time.Duration               // of answers
	changed     chan struct{}               // closed, and replaced, at each change
	present     map[discovery.Key]time.Time // since when it has had what it has
	serving     map[discovery.Key]time.Time // since when of it is in service
	saved       []discovery.Instance        // what a pool had last
	savedAt     time.Time                   // zero: nothing yet
}

// newRegistry returns a registry for a service. c may be nil.
func newRegistry(w *world, name string, c *consul) *registry {
	r := &registry{
		w: w, name: name, consul: c, random: stream(w.seed, streamRegistry, len(w.registries)), changed: make(chan struct{}),
	}
	if c != nil {
		c.registries = append(c.registries, r)
	}
	return r
}

// newPopulatedRegistry returns a registry with instances, in some runs with a Consul.
func newPopulatedRegistry(w *world, name string) *registry {
	var c *consul
	if w.random.IntN(12) == 0 {
		c = newConsul(w)
	}
	r := newRegistry(w, name, c)
	r.keeps = c == nil && w.random.IntN(3) == 0
	n := max(w.random.IntN(8)-1, 0)
	if w.random.IntN(16) == 0 {
		n += 8
	}
	for range n {
		r.register()
	}
	return r
}

// source returns a source that queries the registry.
func (r *registry) source(s *service) discovery.Source {
	if r.consul != nil {
		return r.consul.source(r.name)
	}
	return &source{r, s}
}

// update is a change of the instances, or of the state of the registry.
func (r *registry) update(change func()) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	change()
	r.note()
	r.index++
	close(r.changed)
	r.changed = make(chan struct{})
	if r.consul != nil {
		r.consul.publish(r)
	}
}

func (r *registry) note() {
	now := make(map[discovery.Key]time.Time)
	for key := range processes(r.reportedSet()) {
		since, ok := r.present[key]
		if !ok {
			since = time.Now()
		}
		now[key] = since
	}
	r.present = now
	serving := make(map[discovery.Key]time.Time)
	for key, i := range processes(r.entries) {
		if i.Serving() {
			serving[key] = time.Now()
			if since, ok := r.serving[key]; ok {
				serving[key] = since
			}
		}
	}
	r.serving = serving
	if r.catalog != nil {
		r.catalog.changedLocked(r)
	}
}

// reportedSet returns the report of a working source: the registered instances, and those on
// probation.
func (r *registry) reportedSet() []discovery.Instance { return slices.Concat(r.entries, r.onProbation) }

func (r *registry) change() {
	random := r.w.random
	if r.keeps && random.IntN(6) == 0 {
		if len(r.onProbation) > 0 && random.IntN(2) == 0 {
			r.settleProbation()
		} else {
			r.lose()
		}
		return
	}
	switch n := random.IntN(100); {
	case n < 32 || len(r.entries) == 0:
		r.register()
	case n < 38:
		r.reregister()
	case n < 42:
		r.move()
	case n < 48:
		r.double()
	case n < 54:
		r.flap()
	case n < 65:
		r.deregister(random.IntN(len(r.entries)))
	case n < 67:
		r.clear()
	case n < 71:
		r.edit(random.IntN(len(r.entries)), func(i *discovery.Instance) { drawLabels(random, i) })
	case n < 87:
		n := random.IntN(len(r.entries))
		status := discovery.Status(pick(random, 0, 0, 0, 1, 2, 3))
		r.edit(n, func(i *discovery.Instance) {
			i.Status, i.Detail = status, ""
			if i.Weight = 1; r.consul != nil && status >= discovery.StatusCritical {
				i.Weight = 0
			}
		})
	default:
		n, weight := random.IntN(len(r.entries)), random.IntN(6)
		if r.consul != nil && (weight == 0 || r.entries[n].Status >= discovery.StatusCritical) {
			return // weights of Consul are at least 1, and 0 where it is critical
		}
		r.edit(n, func(i *discovery.Instance) { i.Weight = weight })
	}
}

func (r *registry) edit(n int, change func(*discovery.Instance)) {
	r.update(func() {
		change(&r.entries[n])
		r.w.logf("%s: registry has %s", r.name, describeInstance(r.entries[n]))
	})
}

func (r *registry) add(i discovery.Instance) {
	r.update(func() {
		r.dropFromProbationLocked(i)
		r.entries = append(r.entries, i)
		r.w.logf("%s: registered %s", r.name, describeInstance(i))
	})
}

// address returns a new address with a listener.
func (r *registry) address() string {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.numbers.instances++
	n := r.w.numbers.instances
	address := fmt.Sprintf("10.0.%d.%d", n/250, 1+n%250)
	r.w.upstreams[address+":80"] = newUpstream(r.w, address+":80")
	return address
}

func (r *registry) register() {
	address := r.address()
	r.w.mu.Lock()
	id := fmt.Sprintf("%s-%d", r.name, r.w.numbers.instances)
	r.w.mu.Unlock()
	i := discovery.Instance{
		Service: r.name, ID: id, Node: fmt.Sprintf("node-%d", r.w.random.IntN(3)),
		Address: address, Port: 80, Weight: 1, Datacenter: "dc1",
	}
	if r.consul == nil {
		i.Datacenter = pick(r.w.random, "dc1", "dc1", "dc2", "dc3")
	}
	drawLabels(r.w.random, &i)
	if r.w.random.IntN(10) == 0 {
		i.Status = discovery.StatusCritical // until its first check has passed
		if r.consul != nil {
			i.Weight = 0
		}
	}
	r.add(i)
}

// reregister registers a removed instance again, perhaps while it drains.
func (r *registry) reregister() {
	if len(r.former) == 0 {
		return
	}
	n := r.w.random.IntN(len(r.former))
	i := r.former[n]
	r.former = slices.Delete(r.former, n, n+1)
	if slices.ContainsFunc(r.entries, func(o discovery.Instance) bool { return sameRegistration(i, o) }) {
		return
	}
	r.add(i)
}

// flap removes an instance, and adds it again soon.
func (r *registry) flap() {
	n := r.w.random.IntN(len(r.entries))
	i := r.entries[n]
	r.deregister(n)
	r.w.pass(r.w.upTo(50 * time.Millisecond))
	r.add(i)
}

// move changes the address of an instance, like the replacement of a container.
func (r *registry) move() {
	n, address := r.w.random.IntN(len(r.entries)), r.address()
	r.update(func() {
		r.entries[n].Address = address
		r.w.logf("%s: moved %s", r.name, describeInstance(r.entries[n]))
	})
}

// double registers a process with a second agent.
func (r *registry) double() {
	i := r.entries[r.w.random.IntN(len(r.entries))]
	i.Node = fmt.Sprintf("node-%d", r.w.random.IntN(6))
	if !slices.ContainsFunc(r.entries, func(o discovery.Instance) bool { return sameRegistration(i, o) }) {
		r.add(i)
	}
}

func sameRegistration(a, b discovery.Instance) bool { return a.Node == b.Node && a.ID == b.ID }

func (r *registry) deregister(n int) {
	r.update(func() {
		r.w.logf("%s: deregistered %s", r.name, describeInstance(r.entries[n]))
		r.former = append(r.former, r.entries[n])
		r.entries = slices.Delete(r.entries, n, n+1)
	})
}

func (r *registry) clear() {
	r.update(func() {
		r.w.logf("%s: deregistered all", r.name)
		r.former = append(r.former, r.entries...)
		r.entries, r.onProbation = nil, nil
	})
}

// restore makes Consul have a snapshot with one of the instances only. Before sluice asks again, a
// write makes the index higher than before.
func (r *registry) restore(kept discovery.Instance) {
	fake := r.consul.fake
	fake.Restore(fake.Snapshot().Only(r.name, func(e *api.ServiceEntry) bool { return e.Service.ID == kept.ID && e.Service.Address == kept.Address }))
	r.update(func() {
		r.w.logf("%s: restored without all but %s", r.name, kept.ID)
		r.former = append(r.former, r.entries...)
		r.entries = slices.DeleteFunc(slices.Clone(r.entries), func(i discovery.Instance) bool { return i.ID != kept.ID || i.Address != kept.Address })
		r.onProbation = nil
	})
}

func (r *registry) disturb() {
	if r.consul != nil {
		r.consul.disturb()
		return
	}
	random := r.w.random
	r.update(func() {
		if r.down = !r.down && random.IntN(2) == 0; !r.down {
			r.delay = 0
			if random.IntN(2) == 0 {
				r.delay = time.Duration(random.Int64N(int64(maxReportDelay)))
			}
		}
		if random.IntN(8) == 0 {
			r.index = 0
		}
		r.w.logf("%s: registry down: %v, delay: %v", r.name, r.down, r.delay)
	})
}

func (r *registry) heal() {
	if r.consul != nil {
		r.consul.heal()
	}
	r.update(func() {
		r.down, r.delay = false, 0
	})
}

type source struct {
	*registry
	service *service
}

func (s *source) String() string { return "simulated registry" }

func (s *source) Run(ctx context.Context, _ discovery.WatchState, report func(discovery.Report)) error {
	for {
		s.w.mu.Lock()
		changed, delay := s.changed, s.delay
		s.w.mu.Unlock()
		if !sleep(ctx, delay) {
			return ctx.Err()
		}
		s.w.mu.Lock()
		down, index := s.down, s.index
		set := s.reportedSet()
		s.random.Shuffle(len(set), func(a, b int) { set[a], set[b] = set[b], set[a] })
		if !down {
			s.service.reportedLocked(set)
		}
		s.w.mu.Unlock()
		if down {
			s.w.count("error of the registry")
			report(discovery.Report{Err: errors.New("no answer")})
			if !sleep(ctx, maxReportRetry) {
				return ctx.Err()
			}
			continue
		}
		report(discovery.Report{Set: set, Known: true, Index: index})
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lied reports whether the registry has returned an empty, but valid list since a time.
func (r *registry) lied(since time.Time) bool { return r.consul != nil && r.consul.liedSince(since) }

// sleep waits for d, and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// processes merges the registrations of one process through several agents into one instance,
// with the best status and the first node.
func processes(set []discovery.Instance) map[discovery.Key]discovery.Instance {
	type process struct{ id, address string }
	nodes := make(map[process]string)
	best := make(map[process]discovery.Instance)
	for _, i := range set {
		p := process{i.ID, i.HostPort()}
		if node, ok := nodes[p]; !ok || i.Node < node {
			nodes[p] = i.Node
		}
		if b, ok := best[p]; !ok || cmp.Or(cmp.Compare(i.Status, b.Status), cmp.Compare(i.Node, b.Node)) < 0 {
			best[p] = i
		}
	}
	merged := make(map[discovery.Key]discovery.Instance, len(best))
	for p, i := range best {
		i.Node = nodes[p]
		merged[i.Key()] = i
	}
	return merged
}
