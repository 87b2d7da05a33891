package consul

import (
	"cmp"
	"time"

	"sluice/discovery"
)

// combineWait is how long after the start the first set waits for the answers of all data
// centres, and for their order.
const combineWait = time.Second

// combineLocked reports the instances of all data centres, each with the place of its data
// centre as priority. A data centre that fails keeps its last instances; one that has not
// answered yet has its instances from before the run, which may be a saved set. It returns after what time
// it must be called again; 0: never.
func (c *choice) combineLocked(now time.Time) (wait time.Duration) {
	var first *branch // that has answered
	var failed error
	asked := true
	for _, b := range c.branches {
		failed = cmp.Or(failed, b.err)
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
	var set []discovery.Instance
	add := func(b *branch, i discovery.Instance) {
		i.Priority = b.place
		set = append(set, i)
	}
	for _, b := range c.branches {
		for _, i := range b.set {
			add(b, i)
		}
		if b.serving < 0 {
			for _, i := range c.partOf(b.datacenter).Set {
				add(b, i)
			}
		}
	}
	c.passLocked(discovery.Report{Set: set, Endpoint: first.endpoint, Index: first.index, Err: failed})
	return 0
}
