package simulation

import (
	"cmp"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/discovery"
)

// lose makes the registry forget instances in service, in a way that says nothing
// about them: the source goes on to report them, on probation.
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
			r.kept = append(r.kept, i)
			r.w.logf("%s: lost %s", r.name, describeInstance(i))
		}
	})
}

// settleKept decides about an instance on probation: it is given up, or the
// registry lists it again.
func (r *registry) settleKept() {
	n := r.w.random.IntN(len(r.kept))
	i := r.kept[n]
	if r.w.random.IntN(2) == 0 {
		r.update(func() {
			r.w.logf("%s: given up %s", r.name, describeInstance(i))
			r.dropKept(i)
		})
		return
	}
	i.Probation = time.Time{}
	i.Status = discovery.Status(pick(r.w.random, 0, 0, 2, 3))
	r.add(i)
}

// dropKept ends the keeping of a process. w.mu must be held.
func (r *registry) dropKept(i discovery.Instance) {
	r.kept = slices.DeleteFunc(slices.Clone(r.kept), func(k discovery.Instance) bool { return sameProcess(k, i) })
}

// inService returns the processes of set that the registry wants to be used, in
// the same order each time.
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

// suspended takes note of whether the registry has lost a peer. w.mu must be held.
func (p *peer) suspended() {
	if since := p.real.Instance().Probation; !since.Equal(p.probation) {
		p.probation, p.refused, p.doubtful = since, false, p.doubtful && since.IsZero()
	}
}

// checkProbation: a peer on probation is used until no connection to it could be
// made, or a check of it failed, and never again.
func (s *service) checkProbation(p *peer) {
	w, real := s.w, p.real
	out := real.Has(balancer.ReasonConsul)
	failing := real.Has(balancer.ReasonActive|balancer.ReasonEjected) && !p.unproven
	w.counts["on probation"]++
	switch {
	case !out && (p.refused || failing):
		w.violate("%s: used on probation, though it failed: %q", p, real.Reasons())
	case !out:
		w.counts["used on probation"]++
	case !p.refused && !failing && !p.doubtful:
		w.violate("%s: not used on probation, though it did not fail: %q", p, real.Reasons())
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

// minProbation is long enough to see what becomes of peers on probation.
const minProbation = 40 * time.Second

// checkProbation: what Consul has lost is on probation for no longer than it may
// while Consul works, nor while Consul lists it in service.
func (c *consul) checkProbation(p *peer) {
	works, ok := c.solid()
	if !ok {
		return
	}
	end := p.probation.Add(c.probation)
	if works.After(p.probation) {
		end = works.Add(c.probation) // it stood while Consul failed
	}
	if since, ok := p.service.registry.serving[p.real.ID]; ok {
		end = since
		if end.Before(works) {
			end = works
		}
	}
	if late := time.Since(end); late > recovery {
		c.w.violate("%s: still on probation %v after it should not be", p, late)
	}
}
