package simulation

import (
	"cmp"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/discovery"
)

// lose makes the registry forget instances in service, in a way that says nothing
// about them: the source goes on to report them, as unlisted.
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
			i.Unlisted = time.Now()
			r.kept = append(r.kept, i)
			r.w.logf("%s: lost %s", r.name, describeInstance(i))
		}
	})
}

// settleKept decides about an instance that was lost: it is given up, or the
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
	i.Unlisted = time.Time{}
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

// checkKept: a peer that the registry has lost is used only if the last that active
// checks said of it is that it works; and it is in the set only for as long as
// that is said to last.
func (s *service) checkKept(p *peer) {
	i := p.real.Instance()
	if i.Unlisted.IsZero() {
		return
	}
	w := s.w
	w.counts["kept"]++
	if free := !p.real.Has(^balancer.Reason(0)); free {
		w.counts["kept peer used"]++
		if p.latest != verdictPassed {
			w.violate("%s: used, though nobody vouches for it", p)
		}
	}
	if c := s.registry.consul; c != nil {
		c.checkKept(p, i)
	}
}

// minKeepAnswering is long enough to see what becomes of peers that are kept.
const minKeepAnswering = 40 * time.Second

// checkKept: what Consul has lost is unlisted only after emptyHold, and not for
// longer than keepAnswering while Consul works, nor while Consul lists it in
// service.
func (c *consul) checkKept(p *peer, i discovery.Instance) {
	now := time.Now()
	if c.keepAnswering == 0 || now.Sub(i.Unlisted) < emptyHold {
		c.w.violate("%s: unlisted since %v ago", p, now.Sub(i.Unlisted))
	}
	works, ok := c.solid()
	if !ok {
		return
	}
	end := i.Unlisted.Add(emptyHold + c.keepAnswering)
	if since, ok := p.service.registry.serving[p.real.ID]; ok && since.Before(end) {
		end = since
	}
	if end.Before(works) {
		end = works
	}
	if now.Sub(end) > recovery {
		c.w.violate("%s: still unlisted %v after it should not be", p, now.Sub(end))
	}
}
