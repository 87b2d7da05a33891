package balancer

import (
	"time"

	"sluice/discovery"
)

// condition is what writers know of a peer. It is immutable: a writer stores
// another one.
type condition struct {
	instance discovery.Instance
	usual    int // weight that the registry gave last, if it gave one
	standIn  int // for the weight of a critical instance that is used all the same; else 0
	reasons  Reason
	why      [numReasons]string // for each bit of reasons
	unproven bool               // no active check has passed yet, though one must
	refused  string             // why no connection may be opened to it, as far as is known; "": it may
	failed   string             // how the peer failed on probation; empty: it has not, or is not on probation
	leaving  bool               // not in the set, or no longer
	since    time.Time          // start of the present state
	warmFrom time.Time          // start of slow start; zero for a peer that is warm or not eligible
}

// weight returns the share of the traffic, within what counts.
func (c *condition) weight() int {
	return min(max(c.instance.Weight, c.standIn, 0), maxWeight)
}

// usualWeight returns the weight that the peer has when it is well, 1 if that
// is not known.
func (c *condition) usualWeight() int { return min(max(c.usual, 1), maxWeight) }

// eligible reports whether nothing speaks against the peer.
func (c *condition) eligible() bool { return c.reasons == 0 && !c.leaving }

// failing reports whether checks, Consul's or our own, have found that the peer
// does not work.
func (c *condition) failing() bool {
	return c.reasons&ReasonActive != 0 && !c.unproven ||
		c.reasons&ReasonConsul != 0 && c.instance.Status == discovery.StatusCritical
}

// usableInPanic reports whether the peer is used when too few are eligible: one
// that the registry and the operator want used and that has been in use.
func (c *condition) usableInPanic() bool {
	const ours = ReasonActive | ReasonEjected
	return c.reasons&^ours == 0 && !c.leaving && !c.unproven
}

// onProbation reports whether the registry has lost the peer, so that nobody
// vouches for it.
func (c *condition) onProbation() bool { return !c.instance.Probation.IsZero() }

func (c *condition) state() State {
	switch {
	case c.leaving || c.reasons&ReasonDrain != 0:
		return StateDraining
	case c.reasons&(ReasonConsul|ReasonActive|ReasonAddress) != 0:
		return StateUnhealthy
	case c.reasons&ReasonEjected != 0:
		return StateEjected
	case !c.warmFrom.IsZero():
		return StateWarming
	}
	return StateUp
}

// setInstance takes over what the registry says, with the reasons that follow
// from it.
func (c *condition) setInstance(i discovery.Instance, o *Options) {
	before := c.weight()
	if !i.Probation.Equal(c.instance.Probation) {
		c.failed = ""
	}
	c.instance, c.standIn = i, 0
	if i.Weight > 0 {
		c.usual = i.Weight
	}
	switch {
	case c.onProbation():
		c.setReason(ReasonConsul, c.failed != "", c.loss())
		if c.reasons&(ReasonActive|ReasonEjected) != 0 && !c.unproven {
			c.fail("it was failing before")
		}
	case o.ActiveOverridesConsul && i.Status == discovery.StatusCritical:
		c.standIn = max(before, 1)
		c.setReason(ReasonConsul, false, "")
	case i.Status >= discovery.StatusCritical, i.Weight <= 0 && i.Status != discovery.StatusPassing:
		why := i.Status.String()
		if i.Detail != "" {
			why += ": " + i.Detail
		}
		c.setReason(ReasonConsul, true, why)
	case i.Weight <= 0:
		c.setReason(ReasonConsul, true, "weight 0")
	default:
		c.setReason(ReasonConsul, false, "")
	}
	c.checkAddress(o)
}

// fail ends the use of a peer on probation. The first failure counts.
func (c *condition) fail(why string) {
	if c.onProbation() && c.failed == "" {
		c.failed = why
		c.setReason(ReasonConsul, true, c.loss())
	}
}

// against is Peer.Reasons.
func (c *condition) against() []string {
	var lines []string
	for i, name := range reasonNames {
		switch {
		case c.reasons&(1<<i) == 0:
		case c.why[i] == "":
			lines = append(lines, name)
		default:
			lines = append(lines, name+": "+c.why[i])
		}
	}
	if c.onProbation() && c.reasons&ReasonConsul == 0 {
		lines = append(lines, "consul: "+c.loss())
	}
	if c.refused != "" && c.reasons&ReasonAddress == 0 {
		lines = append(lines, "address: "+c.refused)
	}
	if c.leaving {
		lines = append(lines, "removed from the set")
	}
	return lines
}

// loss says since when a peer on probation is not in the registry, and what has
// become of it.
func (c *condition) loss() string {
	line := "lost since " + c.instance.Probation.UTC().Format(time.RFC3339)
	if c.failed != "" {
		return line + ", and failed since: " + c.failed
	}
	return line + ", used until it fails"
}

// setReason sets or clears the bits of r.
func (c *condition) setReason(r Reason, down bool, why string) {
	c.reasons &^= r
	if r&ReasonActive != 0 {
		c.unproven = c.unproven && down
	}
	if down {
		c.reasons |= r
	} else {
		why = ""
	}
	for i := range c.why {
		if r&(1<<i) != 0 {
			c.why[i] = why
		}
	}
}

// awaitCheck takes the peer out until an active check has passed.
func (c *condition) awaitCheck() {
	c.setReason(ReasonActive, true, "not checked yet")
	c.unproven = true
}

// change stores a changed copy of a peer's condition and returns both. The
// pool's mutex must be held.
func (p *Pool) change(peer *Peer, f func(*condition)) (was, is *condition) {
	was = peer.condition.Load()
	c := *was
	f(&c)
	p.warm(was, &c)
	if c.state() != was.state() {
		c.since = time.Now()
	}
	switch failed := was.failing(); {
	case c.failing() && !failed:
		p.failing = append(p.failing, peer)
	case failed && !c.failing():
		peer.forgetLatency()
	}
	peer.condition.Store(&c)
	if c.refused != "" && c.refused != was.refused {
		p.note(peer, EventRefused, c.refused)
	}
	return was, &c
}
