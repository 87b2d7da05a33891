package proof

import (
	"cmp"
	"slices"

	"sluice/balancer"
	"sluice/discovery"
)

// facts are what the witness has been told of a peer, and what follows from it alone.
type facts struct {
	listed  bool // in the last set
	bad     bool // no request may begin, also in panic
	failing bool // by a verdict of sluice
	usable  bool // in panic
	why     string
	place   place
	group   int // index of the group
}

// census is the peers of a pool.
type census struct {
	facts   map[*record]facts
	healthy int // for sure
	usable  int // in panic, at most
	sure    bool
	vague   bool    // the capacity of a peer that was there before the witness is not known
	tiers   int     // of the options
	total   float64 // of the rooms, as a multiple of the requests
	room    map[place]*room
}

// room is the capacity of a tier.
type room struct{ all, left, inPanic float64 }

// epsilon is the tolerance of sums of shares.
const epsilon = 1e-9

func (w *witness) count(all []*record) *census {
	c := &census{facts: make(map[*record]facts, len(all)), sure: true, tiers: len(w.options.Tiers), room: make(map[place]*room)}
	for _, r := range all {
		i, listed := w.set[r.peer.ID]
		if !listed {
			c.facts[r] = facts{bad: true, why: "it is not in the set"}
			continue
		}
		f := w.consider(r, &i)
		// What the pool finds by itself, a failure on probation or a refused address, the witness
		// does not see. Such a peer may be in use.
		unsure := !f.bad && (!i.Probation.IsZero() || r.peer.Has(balancer.ReasonAddress))
		at := c.room[f.place]
		if at == nil {
			at = &room{}
			c.room[f.place] = at
		}
		weight := r.usualWeight()
		at.all += weight
		if !f.bad && !f.failing && !unsure {
			c.healthy++
			at.left += weight
		}
		if f.usable {
			c.usable++
			at.inPanic += weight
		}
		c.vague = c.vague || r.usual == 0 && !r.whole
		c.sure = c.sure && !unsure && !c.vague
		c.facts[r] = f
	}
	return c
}

// consider says what follows for one instance of the set.
func (w *witness) consider(r *record, i *discovery.Instance) facts {
	f := facts{listed: true, failing: r.against != 0, why: "verdict of sluice: " + r.against.String(), place: place{w.tierOf(i), i.Priority}, group: w.groupOf(i)}
	overridden := w.options.ActiveOverridesRegistry && i.Status == discovery.StatusCritical
	r.critical = i.Status == discovery.StatusCritical && i.Probation.IsZero()
	switch {
	case r.orders.Drain:
		f.bad, f.why = true, "an operator drains it"
	case !i.Probation.IsZero():
		if i.Failed != "" {
			f.bad, f.why = true, "it has failed on probation"
		}
	case overridden:
	case i.Status >= discovery.StatusCritical:
		f.bad, f.why = true, "its registry says "+i.Status.String()
	case i.Weight <= 0 && r.orders.Weight == 0:
		f.bad, f.why = true, "its weight is 0"
	}
	f.usable = !f.bad && !r.unchecked
	return f
}

// usualWeight returns the weight of a peer when it is well.
func (r *record) usualWeight() float64 {
	return float64(min(cmp.Or(r.orders.Weight, r.usual, 1), 65535))
}

func (w *witness) tierOf(i *discovery.Instance) int {
	for n := range w.options.Tiers {
		if meets(&w.options.Tiers[n], i) {
			return n
		}
	}
	return len(w.options.Tiers)
}

func (w *witness) groupOf(i *discovery.Instance) int {
	for n := range w.options.Groups {
		if meets(&w.options.Groups[n].Selector, i) {
			return n
		}
	}
	return len(w.options.Groups)
}

// shares returns the share of each tier: what it has room for, as far as those before have none. A
// tier has room for the part of the requests that its healthy weight, times over, is of its whole
// weight.
func (c *census) shares(over float64) map[place]float64 {
	places := make([]place, 0, len(c.room))
	for p, at := range c.room {
		places = append(places, p)
		c.total += min(1, over*at.left/at.all)
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(a.tier-b.tier, cmp.Compare(a.priority, b.priority)) })
	shares, rest := make(map[place]float64, len(places)), 1.
	for _, p := range places {
		at := c.room[p]
		share := min(rest, min(1, over*at.left/at.all)/max(min(1, c.total), epsilon))
		shares[p] = share
		rest -= share
	}
	return shares
}

// mayPanic reports whether failing peers may get requests: too few are healthy, and several tiers
// have no room for all requests.
func (c *census) mayPanic(threshold float64) bool {
	if float64(c.healthy) >= threshold*float64(c.usable) {
		return false
	}
	return c.tiers == 0 && len(c.room) <= 1 || c.total < 1+epsilon || c.vague
}
