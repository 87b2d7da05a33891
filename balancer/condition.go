package balancer

import (
	"cmp"
	"math/bits"
	"time"

	"sluice/discovery"
)

// condition is the state of a peer that writers change. It is immutable: a writer
// stores a changed copy.
type condition struct {
	instance  discovery.Instance
	orders    Orders
	usual     int // last weight above 0 from the registry
	group     int // index of Snapshot.Groups
	override  int // weight of a critical instance under ActiveOverridesRegistry; else 0
	reasons   Reason
	why       [numReasons]string // for each bit of reasons
	unchecked bool               // must pass an active check first, and has not
	awaited   bool               // unchecked, and no check has had a result
	other     bool               // another service has its address, as active checks say
	refused   string             // error of Options.MayConnect; "" if none is known
	failed    string             // how the peer failed on probation; "" if it has not
	leaving   bool               // not in the set
	since     time.Time          // start of the present state
	recovered int                // times its checks have passed again
	warmFrom  time.Time          // start of slow start; zero for a peer that is warm or not eligible
	factor    adjustment
}

// eligible reports whether the peer may get requests.
func (c *condition) eligible() bool { return c.reasons == 0 && !c.leaving }

// failing reports whether the registry's checks or active checks fail.
func (c *condition) failing() bool {
	return c.failsChecks() ||
		c.reasons&ReasonRegistry != 0 && c.instance.Status == discovery.StatusCritical
}

func (c *condition) failsChecks() bool { return c.reasons&ReasonActive != 0 && !c.unchecked }

// usableInPanic reports whether only our own verdicts exclude the peer, and it has been
// in use.
func (c *condition) usableInPanic() bool {
	const ours = ReasonActive | ReasonEjected
	return c.reasons&^ours == 0 && !c.leaving && !c.unchecked && !c.other
}

// onProbation reports whether the registry has lost the peer.
func (c *condition) onProbation() bool { return !c.instance.Probation.IsZero() }

func (c *condition) state() State {
	switch {
	case c.leaving || c.reasons&ReasonDrain != 0:
		return StateDraining
	case c.reasons&(ReasonRegistry|ReasonActive|ReasonAddress) != 0:
		return StateUnhealthy
	case c.reasons&ReasonEjected != 0:
		return StateEjected
	case !c.warmFrom.IsZero() || c.factor.value() < 1:
		return StateWarming
	}
	return StateUp
}

// setInstance stores the registry's data and sets the reasons that follow from it and from the
// operator's orders.
func (c *condition) setInstance(i discovery.Instance, o *Options) {
	if !i.Probation.Equal(c.instance.Probation) {
		c.failed = ""
	}
	c.failed = cmp.Or(c.failed, i.Failed)
	c.instance, c.override = i, 0
	c.group = groupOf(&i, o.Groups)
	if i.Weight > 0 {
		c.usual = i.Weight
	}
	if c.awaited && !o.MustPassFirst {
		c.setReason(ReasonActive, false, "")
	}
	weightless := i.Weight <= 0 && c.orders.Weight == 0
	switch {
	case c.onProbation():
		c.setReason(ReasonRegistry, c.failed != "", c.probationLine())
		if c.reasons&(ReasonActive|ReasonEjected) != 0 && !c.unchecked {
			c.fail("it was failing before")
		}
	case o.ActiveOverridesRegistry && i.Status == discovery.StatusCritical:
		c.override = max(c.usual, 1)
		c.setReason(ReasonRegistry, false, "")
	case i.Status >= discovery.StatusCritical, weightless && i.Status != discovery.StatusPassing:
		why := i.Status.String()
		if i.Detail != "" {
			why += ": " + i.Detail
		}
		c.setReason(ReasonRegistry, true, why)
	case weightless:
		c.setReason(ReasonRegistry, true, "weight 0")
	default:
		c.setReason(ReasonRegistry, false, "")
	}
	c.setReason(ReasonDrain, c.orders.Drain, c.orders.Why)
	c.checkAddress(o)
}

// mayFail reports whether the peer is on probation, and has not failed there.
func (c *condition) mayFail() bool { return c.onProbation() && c.failed == "" }

// fail takes a peer on probation out of use, for good.
func (c *condition) fail(why string) {
	if c.mayFail() {
		c.failed = why
		c.setReason(ReasonRegistry, true, c.probationLine())
	}
}

// reasonLines is Peer.Reasons.
func (c *condition) reasonLines() []string {
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
	if c.onProbation() && c.reasons&ReasonRegistry == 0 {
		lines = append(lines, "consul: "+c.probationLine())
	}
	if c.refused != "" && c.reasons&ReasonAddress == 0 {
		lines = append(lines, "address: "+c.refused)
	}
	if c.factor.why != "" {
		lines = append(lines, "weight: "+c.factor.why)
	}
	if c.leaving {
		lines = append(lines, "removed from the set")
	}
	return lines
}

// probationLine describes the probation of the peer.
func (c *condition) probationLine() string {
	line := "lost since " + c.instance.Probation.UTC().Format(time.RFC3339)
	if c.failed != "" {
		return line + ", and failed since: " + c.failed
	}
	return line + ", used until it fails"
}

func (c *condition) setReason(r Reason, down bool, why string) {
	c.reasons &^= r
	if r&ReasonActive != 0 {
		c.unchecked, c.awaited = c.unchecked && down, false
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

// awaitCheck takes the peer out of use until an active check has passed.
func (c *condition) awaitCheck() {
	c.setReason(ReasonActive, true, "not checked yet")
	c.unchecked, c.awaited = true, true
}

// whyActive returns why active checks fail.
func (c *condition) whyActive() string { return c.why[bits.TrailingZeros32(uint32(ReasonActive))] }

// changeLocked stores a changed copy of a peer's condition and returns both.
func (p *Pool) changeLocked(peer *Peer, f func(*condition)) (was, is *condition) {
	was = peer.condition.Load()
	c := *was
	f(&c)
	p.warming.change(was, &c, p.options.SlowStart.Window)
	if c.state() != was.state() {
		c.since = time.Now()
	}
	switch failed := was.failing(); {
	case c.failing() && !failed:
		p.notices.failing = append(p.notices.failing, peer)
	case failed && !c.failing():
		peer.resetLatency()
		if !was.leaving {
			c.recovered++
		}
	}
	peer.drained = peer.drained && c.reasons&ReasonDrain != 0
	peer.condition.Store(&c)
	if c.refused != "" && c.refused != was.refused {
		p.notices.queue(peer, EventRefused, c.refused)
	}
	return was, &c
}
