package simulation

import (
	"cmp"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/discovery"
)

// lose makes the registry lose passing instances: the source reports them on probation.
func (r *registry) lose() {
	serving := inService(r.entries)
	if len(serving) == 0 {
		return
	}
	if n := r.w.random.IntN(len(serving)); r.w.random.IntN(3) > 0 {
		serving = serving[n : n+1]
	}
	if r.w.random.IntN(3) == 0 { // a check may have failed by then, or not yet
		r.w.mu.Lock()
		r.w.upstreams[serving[0].HostPort()].become(upstreamRefuses)
		r.w.mu.Unlock()
		r.w.pass(r.w.upTo(2 * time.Second))
	}
	r.update(func() {
		for _, i := range serving {
			r.entries = slices.DeleteFunc(slices.Clone(r.entries), func(e discovery.Instance) bool { return sameProcess(e, i) })
			i.Probation = time.Now()
			r.onProbation = append(r.onProbation, i)
			r.w.logf("%s: lost %s", r.name, describeInstance(i))
		}
	})
}

// settleProbation ends the probation of an instance: it is removed, or the registry lists it again.
func (r *registry) settleProbation() {
	n := r.w.random.IntN(len(r.onProbation))
	i := r.onProbation[n]
	if r.w.random.IntN(2) == 0 {
		r.update(func() {
			r.w.logf("%s: given up %s", r.name, describeInstance(i))
			r.dropFromProbationLocked(i)
		})
		return
	}
	i.Probation = time.Time{}
	i.Status = discovery.Status(pick(r.w.random, 0, 0, 2, 3))
	r.add(i)
}

func (r *registry) dropFromProbationLocked(i discovery.Instance) {
	r.onProbation = slices.DeleteFunc(slices.Clone(r.onProbation), func(k discovery.Instance) bool { return sameProcess(k, i) })
}

// inService returns the usable processes of set, sorted.
func inService(set []discovery.Instance) []discovery.Instance {
	var serving []discovery.Instance
	for _, i := range processes(set) {
		if i.Serving() {
			serving = append(serving, i)
		}
	}
	slices.SortFunc(serving, func(a, b discovery.Instance) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.HostPort(), b.HostPort()))
	})
	return serving
}

func sameProcess(a, b discovery.Instance) bool { return a.ID == b.ID && a.HostPort() == b.HostPort() }

// suspendedLocked records whether the registry has lost a peer. A connection that is refused at
// the same time may come before or after that.
func (p *peer) suspendedLocked() {
	if since := p.actual.Instance().Probation; !since.Equal(p.probation) {
		p.probation, p.refused, p.doubtful = since, false, p.doubtful && since.IsZero() || p.refusedAt.Equal(time.Now())
	}
}

// checkProbation: a peer on probation is used until a connection to it or a check of it
// fails, and not after that.
func (s *service) checkProbation(p *peer) {
	w, actual := s.w, p.actual
	out := actual.Has(balancer.ReasonRegistry)
	failing := actual.Has(balancer.ReasonActive|balancer.ReasonEjected) && !p.unproven
	w.counts["on probation"]++
	switch {
	case !out && (p.refused || failing):
		w.violateLocked("%s: used on probation, though it failed: %q", p, actual.Reasons())
	case !out:
		w.counts["used on probation"]++
	case !p.refused && !failing && !p.doubtful:
		w.violateLocked("%s: not used on probation, though it did not fail: %q", p, actual.Reasons())
	default:
		w.counts["failed on probation"]++
	}
	if failing {
		p.doubtful = true
	}
	if c := s.registry.consul; c != nil {
		c.checkProbation(p)
	}
}

// minProbation is long enough for the changes of peers on probation.
const minProbation = 40 * time.Second

// checkProbation: a lost instance is on probation at most for its limit while Consul works,
// and not while Consul lists it as passing.
func (c *consul) checkProbation(p *peer) {
	works, ok := c.solid()
	if !ok {
		return
	}
	end := p.probation.Add(c.probation)
	// The time stands while Consul fails, and starts again with a source.
	for _, again := range []time.Time{works, p.service.sourced} {
		if late := again.Add(c.probation); again.After(p.probation) && late.After(end) {
			end = late
		}
	}
	if since, ok := p.service.registry.serving[p.actual.ID]; ok {
		end = since
		if end.Before(works) {
			end = works
		}
	}
	if end.Before(p.service.sourced) {
		end = p.service.sourced // a source begins with the last known set
	}
	if late := time.Since(end); late > recovery {
		c.w.violateLocked("%s: still on probation %v after it should not be", p, late)
	}
}
