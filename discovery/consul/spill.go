package consul

import (
	"cmp"
	"time"

	"sluice/discovery"
)

// combineWait is how long after the start the first set waits for the answers of all data
// centres, and for their order.
const combineWait = time.Second

// combineLocked reports the instances of all parts, each with the position of its part as priority.
// A part that fails keeps its last instances; one without an answer keeps those from before the
// run, perhaps a saved set. It returns after what time to call it again; 0: never.
func (c *choice) combineLocked(now time.Time) (wait time.Duration) {
	var first *branch // that has answered
	var answered time.Time
	var failed error
	asked := true
	for _, b := range c.branches {
		failed = cmp.Or(failed, b.err)
		if b.last.Answered.After(answered) {
			answered = b.last.Answered
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
		set := b.last.Set
		if b.serving < 0 {
			set = c.partOf(b.part).Set
		}
		all.add(set, b.position, b.part)
	}
	return c.passLocked(now, discovery.Report{Set: all.set, Endpoint: first.last.Endpoint, Index: first.last.Index, Answered: answered, Err: failed})
}

// union is a set of instances without duplicates: of several, the first in service counts, else the
// first usable one, else the first.
type union struct {
	set   []discovery.Instance
	index map[process]int // in set
}

// add adds the set of a part with a position among the parts.
func (u *union) add(set []discovery.Instance, position int, p part) {
	if u.index == nil {
		u.index = make(map[process]int)
	}
	for _, i := range set {
		if i.Priority = position; p.target != nil {
			i.Target = p.name
		}
		key := processOf(i)
		n, twice := u.index[key]
		switch {
		case !twice:
			u.index[key] = len(u.set)
			u.set = append(u.set, i)
		case i.Serving() && !u.set[n].Serving() || i.Usable() && !u.set[n].Usable():
			u.set[n] = i
		}
	}
}
