package simulation

import (
	"fmt"
	"slices"
	"time"

	"sluice/discovery"
)

// loss is a service all of whose instances Consul has lost at once, and which goes
// on with them until they fail.
type loss struct {
	*service
	lost []discovery.Instance // in service before
	sick discovery.Instance   // the one of lost that stops to answer
	kept []discovery.Instance // those of lost that are to be on probation in the end
}

// loseAll has every Consul lose its instances, if there is time to see what
// becomes of them. Nothing is wrong before.
func (w *world) loseAll() {
	var losses []*loss
	for _, s := range w.services {
		var lost []discovery.Instance
		for _, real := range s.pool.Snapshot().All {
			if i := real.Instance(); i.Serving() {
				lost = append(lost, i)
			}
		}
		if c := s.registry.consul; c == nil || c.probation < minProbation || s.registry.catalog != nil || len(lost) < 2 {
			continue
		}
		w.count("all lost")
		s.registry.clear()
		losses = append(losses, &loss{service: s, lost: lost, sick: lost[w.random.IntN(len(lost))]})
	}
	if len(losses) == 0 {
		return
	}
	for _, step := range []struct {
		after time.Duration
		do    func(*loss)
	}{
		{3 * time.Second, (*loss).sicken},
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

// sicken is shortly after the loss: one of them stops to answer. Another source goes
// on with what there is.
func (l *loss) sicken() {
	l.expect(l.lost)
	if l.w.random.IntN(2) == 0 {
		l.w.manager.Watch(l.name, l.registry.source(l.service))
	}
	l.w.mu.Lock()
	l.w.upstreams[l.sick.HostPort()].become(upstreamRefuses)
	l.w.mu.Unlock()
	for range 20 {
		l.w.request(l.service, false)
	}
}

// registerOne brings a new instance.
func (l *loss) registerOne() {
	l.expect(l.lost)
	l.register("new", l.registry.address())
}

// registerMore brings more of them, beside which one of those on probation goes,
// or all.
func (l *loss) registerMore() {
	l.expect(l.lost)
	switch l.w.random.IntN(4) {
	case 0: // as many as before
		for n := range len(l.lost) - 1 {
			l.register(fmt.Sprintf("new-%d", n), l.registry.address())
		}
	case 1: // another at the address of one
		l.register("other", l.sick.Address)
		l.kept = l.others()
	case 2: // one of them
		l.register(l.sick.ID, l.sick.Address)
		l.kept = l.others()
	case 3:
		l.kept = l.lost
	}
}

// end is when the pool knows.
func (l *loss) end() { l.expect(l.kept) }

// others are all of lost but the sick one, or none if two in service are as many
// as before.
func (l *loss) others() []discovery.Instance {
	if len(l.lost) == 2 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(l.lost), func(i discovery.Instance) bool { return i.Key() == l.sick.Key() })
}

// register adds an instance in service, on the node of the sick one.
func (l *loss) register(id, address string) {
	i := l.sick
	i.ID, i.Address = id, address
	i.Service, i.Status, i.Weight, i.Probation = l.name, discovery.StatusPassing, 1, time.Time{}
	l.registry.add(i)
}

// expect wants those of kept to be on probation, and no others.
func (l *loss) expect(kept []discovery.Instance) {
	want := make(map[discovery.Key]bool)
	for _, i := range kept {
		want[i.Key()] = true
	}
	for _, real := range l.pool.Snapshot().All {
		if got := !real.Instance().Probation.IsZero(); got != want[real.ID] {
			l.fail("%s is on probation: %v", describePeer(real), got)
		}
		delete(want, real.ID)
	}
	for id := range want {
		l.fail("%s is not there", id.ID)
	}
}

func (l *loss) fail(format string, args ...any) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	l.w.violate(l.name+": "+format, args...)
}
