package balancer

import (
	"fmt"
	"sync/atomic"
	"time"

	"sluice/discovery"
)

// closed is a bit of Peer.load, far above any number of requests in flight. It
// is set while the peer is not in the current snapshot's choice.
const closed = 1 << 40

// Peer is one instance in a pool. It outlives snapshots. Its methods are safe
// for concurrent use.
type Peer struct {
	// ID is the peer's identity; it never changes.
	ID discovery.Key
	// Transport is what Options.NewTransport returned for the peer.
	Transport Transport

	pool      *Pool
	condition atomic.Pointer[condition] // stored with pool.mu held

	// pool.mu guards the fields below.
	cutTimer   *time.Timer // runs while the peer is leaving
	departures int         // how often it left
	drained    bool        // EventDrained was sent for the present drain
	_          [128 - 64 - 16 - 8 - 8 - 24]byte

	// What picks read and every request writes, on a cache line of its own.

	// load is the number of requests in flight, plus the bit closed. Both are in
	// one word so that taking the peer and taking it out exclude each other
	// without a lock; see acquire.
	load    atomic.Int64
	latency estimate
	_       [128 - 8 - 16]byte

	outcomes [NumOutcomes]atomic.Uint64 // attempts that ended, by class
	_        [128 - NumOutcomes*8]byte
}

// condition is what writers know of a peer. It is immutable: a writer stores
// another one.
type condition struct {
	instance discovery.Instance
	reasons  Reason
	why      [numReasons]string // for each bit of reasons
	leaving  bool               // no longer in the set
	since    time.Time          // start of the present state
}

// Address returns "host:port".
func (p *Peer) Address() string { return p.ID.Address }

// Instance returns what the registry said last.
func (p *Peer) Instance() discovery.Instance { return p.condition.Load().instance }

// Weight returns the peer's share of the traffic relative to its pool's other
// peers, as the registry has it: at least 0.
func (p *Peer) Weight() int { return p.condition.Load().weight() }

// State returns what the peer's reasons amount to.
func (p *Peer) State() State { return p.condition.Load().state() }

// Since returns the start of the present state.
func (p *Peer) Since() time.Time { return p.condition.Load().since }

// Reasons returns why the peer is not used, one line for each reason, such as
// "consul: critical: http check: connection refused". It is nil for a peer
// that is.
func (p *Peer) Reasons() []string {
	c := p.condition.Load()
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
	if c.leaving {
		lines = append(lines, "removed from the set")
	}
	return lines
}

// Inflight returns the number of requests that were picked and are not done.
func (p *Peer) Inflight() int { return int(p.load.Load() &^ closed) }

// Requests returns the number of attempts that ended, in any way.
func (p *Peer) Requests() uint64 {
	var n uint64
	for i := range p.outcomes {
		n += p.outcomes[i].Load()
	}
	return n
}

// Failures returns the number of attempts that ended in a way that speaks
// against the peer.
func (p *Peer) Failures() uint64 {
	var n uint64
	for i := range p.outcomes {
		if OutcomeClass(i).Failure() {
			n += p.outcomes[i].Load()
		}
	}
	return n
}

// Outcomes returns the number of attempts that ended, by [OutcomeClass].
func (p *Peer) Outcomes() [NumOutcomes]uint64 {
	var n [NumOutcomes]uint64
	for i := range p.outcomes {
		n[i] = p.outcomes[i].Load()
	}
	return n
}

// Latency returns the moving average of the peer's latency, in which peaks
// weigh more, or 0 if there is none yet.
func (p *Peer) Latency() time.Duration { return p.latency.average() }

// String returns the peer's service, id and address.
func (p *Peer) String() string {
	return fmt.Sprintf("%s/%s (%s)", p.ID.Service, p.ID.ID, p.ID.Address)
}

// acquire counts a request in flight and reports true, unless the peer is
// closed to requests.
//
// A writer that takes the peer out sets the bit and sees in the same step how
// many requests are in flight. So either the request was counted before, and
// the writer waits for it, or it was not, and acquire sees the bit.
func (p *Peer) acquire() bool {
	if p.load.Add(1) < closed {
		return true
	}
	p.release()
	return false
}

// release undoes acquire. Of the requests in flight when the peer was closed,
// the last one to be done tells the pool.
func (p *Peer) release() {
	if p.load.Add(-1) == closed {
		p.pool.idle(p)
	}
}

// weight returns what the registry asks for, at least 0.
func (c *condition) weight() int { return max(c.instance.Weight, 0) }

// eligible reports whether nothing speaks against the peer.
func (c *condition) eligible() bool { return c.reasons == 0 && !c.leaving }

func (c *condition) state() State {
	switch {
	case c.leaving || c.reasons&ReasonDrain != 0:
		return StateDraining
	case c.reasons&(ReasonConsul|ReasonActive) != 0:
		return StateUnhealthy
	case c.reasons&ReasonEjected != 0:
		return StateEjected
	}
	return StateUp
}

// setInstance takes over what the registry says, with the reason that follows
// from it.
func (c *condition) setInstance(i discovery.Instance) {
	c.instance = i
	switch {
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
}

// setReason sets or clears the bits of r.
func (c *condition) setReason(r Reason, down bool, why string) {
	c.reasons &^= r
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
