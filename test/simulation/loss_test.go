package simulation

import (
	"fmt"
	"slices"
	"time"

	"sluice/discovery"
)

// loss is a service whose instances Consul has lost all at once. They stay in use until they fail.
type loss struct {
	*service
	lost        []discovery.Instance // in service before
	failing     discovery.Instance   // of lost, stops answering
	onProbation []discovery.Instance // of lost, on probation at the end
}

// loseAll makes each Consul lose its instances, if the probation is long enough.
func (w *world) loseAll() {
	var losses []*loss
	for _, s := range w.services {
		var lost []discovery.Instance
		for _, actual := range s.pool.Snapshot().All {
			if i := actual.Instance(); i.Serving() {
				lost = append(lost, i)
			}
		}
		if c := s.registry.consul; c == nil || c.probation < minProbation || s.registry.catalog != nil || len(lost) < 2 {
			continue
		}
		if c := s.registry.consul; c.plain && len(lost) > 2 && w.random.IntN(2) == 0 {
			w.count("lost by a restore")
			s.registry.restore(lost[0])
			lost = lost[1:]
		} else {
			w.count("all lost")
			s.registry.clear()
		}
		losses = append(losses, &loss{service: s, lost: lost, failing: lost[w.random.IntN(len(lost))]})
	}
	if len(losses) == 0 {
		return
	}
	for _, step := range []struct {
		after time.Duration
		do    func(*loss)
	}{
		{3 * time.Second, (*loss).failOne},
		{5 * time.Second, (*loss).registerOne},
		{3 * time.Second, (*loss).registerMore},
		{4 * time.Second, (*loss).end},
	} {
		w.pass(step.after)
		for _, l := range losses {
			if !w.violated() {
				step.do(l)
			}
		}
	}
}

// failOne runs shortly after the loss: one of the instances stops answering.
func (l *loss) failOne() {
	l.expect(l.lost)
	if l.w.random.IntN(2) == 0 {
		l.w.manager.Watch(l.name, l.registry.source(l.service))
	}
	l.w.mu.Lock()
	l.w.upstreams[l.failing.HostPort()].become(upstreamRefuses)
	l.w.mu.Unlock()
	for range 20 {
		l.w.request(l.service, false)
	}
}

func (l *loss) registerOne() {
	l.expect(l.lost)
	l.register("new", l.registry.address())
}

// registerMore registers more instances, after which one or all of those on probation are removed.
func (l *loss) registerMore() {
	l.expect(l.lost)
	switch l.w.random.IntN(4) {
	case 0: // as many as before
		for n := range len(l.lost) - 1 {
			l.register(fmt.Sprintf("new-%d", n), l.registry.address())
		}
	case 1: // another at the address of one
		l.register("other", l.failing.Address)
		l.onProbation = l.others()
	case 2: // one of them
		l.register(l.failing.ID, l.failing.Address)
		l.onProbation = l.others()
	case 3:
		l.onProbation = l.lost
	}
}

// end runs after the pool has the new set.
func (l *loss) end() { l.expect(l.onProbation) }

// others returns lost without the failing instance, or nothing if the two new instances are
// as many as before.
func (l *loss) others() []discovery.Instance {
	if len(l.lost) == 2 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(l.lost), func(i discovery.Instance) bool { return i.Key() == l.failing.Key() })
}

// register registers a passing instance on the node of the failing one.
func (l *loss) register(id, address string) {
	i := l.failing
	i.ID, i.Address = id, address
	i.Service, i.Status, i.Weight, i.Probation = l.name, discovery.StatusPassing, 1, time.Time{}
	l.registry.add(i)
}

// expect fails unless exactly these instances are on probation.
func (l *loss) expect(instances []discovery.Instance) {
	want := make(map[discovery.Key]bool)
	for _, i := range instances {
		want[i.Key()] = true
	}
	for _, actual := range l.pool.Snapshot().All {
		if got := !actual.Instance().Probation.IsZero(); got != want[actual.ID] {
			l.w.violate("%s: %s is on probation: %v", l.name, describePeer(actual), got)
		}
		delete(want, actual.ID)
	}
	for id := range want {
		l.w.violate("%s: %s is not there", l.name, id.ID)
	}
}
