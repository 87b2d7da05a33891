package consul

import (
	"cmp"
	"time"

	"sluice/discovery"
)

// combineWait is how long after the start the first set waits for the answers of all data
// centres, and for their order.
const combineWait = time.Second

// combineLocked reports the instances of all parts, each with the place of its part as priority. A part that fails keeps
// its last instances; one that has not answered yet has its instances from before the run, which may be a saved set. It
// returns after what time it must be called again; 0: never.
func (c *choice) combineLocked(now time.Time) (wait time.Duration) {
	var first *branch // that has answered
	var answered time.Time
	var failed error
	asked := true
	for _, b := range c.branches {
		failed = cmp.Or(failed, b.err)
		if b.answered.After(answered) {
			answered = b.answered
		}
		switch {
		case b.serving < 0:
			asked = asked && b.asked
		case first == nil:
			first = b
		}
	}
	if left := c.begin.Add(combineWait).Sub(now); !asked && left > 0 {
		return left
	}
	if first == nil {
		if failed != nil {
			c.report(discovery.Report{Err: failed, Memory: c.memoriesLocked()})
		}
		return 0
	}
	var all union
	for _, b := range c.branches {
		set := b.set
		if b.serving < 0 {
			set = c.partOf(b.part).Set
		}
		all.add(set, b.place, b.part)
	}
	c.passLocked(discovery.Report{Set: all.set, Endpoint: first.endpoint, Index: first.index, Answered: answered, Err: failed})
	return 0
}

// union is a set of instances. One that is added several times is in the first of the parts in which it is in service,
// or else usable, or else there.
type union struct {
	set   []discovery.Instance
	place map[process]int // in set
}

// add adds the set of a part, which has a place among the parts.
func (u *union) add(set []discovery.Instance, place int, p part) {
	if u.place == nil {
		u.place = make(map[process]int)
	}
	for _, i := range set {
		if i.Priority = place; p.target != nil {
			i.Target = p.name
		}
		key := processOf(i)
		n, twice := u.place[key]
		switch {
		case !twice:
			u.place[key] = len(u.set)
			u.set = append(u.set, i)
		case i.Serving() && !u.set[n].Serving() || i.Usable() && !u.set[n].Usable():
			u.set[n] = i
		}
	}
}
