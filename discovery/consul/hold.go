package consul

import (
	"time"

	"sluice/discovery"
)

// held is an instance that stays although Consul does not list it in service:
// for emptyHold in any case, and for keepAnswering beyond that as an unlisted one.
type held struct {
	instance discovery.Instance
	since    time.Time // when it was lost
	until    time.Time // when the first time ends
	unlisted bool      // it has ended
	listed   time.Time // since when Consul lists it again, out of service; zero: it does not
}

// keeping is what a guard keeps beyond an answer.
type keeping struct {
	held     int // for emptyHold
	unlisted int // beyond that, as long as they answer
	expired  int // given up now
}

func (k keeping) all() int { return k.held + k.unlisted }

// keep holds an instance that was lost at since.
func (g *guard) keep(since time.Time, i discovery.Instance) {
	if g.held == nil {
		g.held = make(map[process]held)
	}
	g.held[processOf(i)] = held{instance: i, since: since, until: since.Add(g.emptyHold)}
}

// release ends the hold of what set lists again, and of what is given up now. It
// returns how many of the latter there are.
//
// What is unlisted stands in for what set lacks: it goes once as many instances
// are in service as before the loss, or another one is at its address. One that
// is listed again begins as critical, and has emptyHold to pass its first check.
func (g *guard) release(now time.Time, set []discovery.Instance, listed map[process]discovery.Instance) (expired int) {
	complete := serving(set) >= g.before
	taken := make(map[string]bool, len(set))
	for _, i := range set {
		if trusted(i) {
			taken[i.HostPort()] = true
		}
	}
	for p, h := range g.held {
		i, ok := listed[p]
		if ok && trusted(i) {
			delete(g.held, p)
			continue
		}
		switch {
		case !ok:
			h.listed = time.Time{}
		case h.listed.IsZero():
			h.listed = now
		}
		h.unlisted = !now.Before(h.until)
		if h.unlisted && (complete || taken[p.address] || !now.Before(g.end(h))) {
			delete(g.held, p)
			expired++
			continue
		}
		g.held[p] = h
	}
	return expired
}

// trusted reports whether Consul's word on an instance ends a hold. That it is
// critical is not enough: that is how a registration begins.
func trusted(i discovery.Instance) bool {
	return i.Serving() || i.Status == discovery.StatusMaintenance
}

// end returns when an unlisted instance is given up, if nothing else happens.
func (g *guard) end(h held) time.Time {
	end := h.until.Add(g.keepAnswering)
	if last := h.listed.Add(g.emptyHold); !h.listed.IsZero() && last.Before(end) {
		return last
	}
	return end
}

// expiry returns when the first hold ends, or the first unlisted instance is to
// be given up.
func (g *guard) expiry() (time.Time, bool) {
	var first time.Time
	for _, h := range g.held {
		next := h.until
		if h.unlisted {
			next = g.end(h)
		}
		if first.IsZero() || next.Before(first) {
			first = next
		}
	}
	return first, len(g.held) > 0
}
