package balancer

import (
	"fmt"
	"sync/atomic"
	"time"

	"sluice/discovery"
)

// quiesced is a bit of a load, above any number of requests in flight. It is set
// while the peer may get no requests.
const quiesced = 1 << 40

// Above the bit quiesced, a load counts how many of the requests in flight are copies.
const (
	copyShift    = 41
	oneCopy      = 1 << copyShift
	inflightMask = oneCopy - 1
)

// A load is the number of requests in flight of a peer, the bit quiesced, and how many of the
// requests are copies: one word, so that acquire and quiesce exclude each other without a lock.
type load struct{ atomic.Int64 }

// Peer is an instance in a pool. It outlives snapshots. Its methods are safe for
// concurrent use.
type Peer struct {
	// ID never changes.
	ID discovery.Key
	// Transport is what Options.NewTransport returned for the peer.
	Transport Transport

	pool      *Pool
	condition atomic.Pointer[condition] // stored with pool.mu held

	streakStart atomic.Int64 // streak ignores attempts that started earlier, by nanotime

	// pool.mu guards the fields below.
	cutTimer   *time.Timer  // cuts the peer that has left; nil: nothing limits its drain
	departures uint16       // times it left
	drained    bool         // EventDrained was sent for an operator's drain
	used       bool         // in the current snapshot
	tier       atomic.Int32 // which limiter of the pool its attempts have
	stickyID   atomic.Uint64
	// The first 128 bytes end here. Picks read and every request writes the next.

	load     load
	latency  estimate
	measured atomic.Int64          // latency ignores attempts that started earlier, by nanotime
	streak   atomic.Uint64         // consecutive failures; see Streak.pack
	tally    atomic.Pointer[tally] // nil if nothing is counted
	// lastFailure is when streak last grew, by nanotime.
	lastFailure atomic.Int64
	// unconnected is when the first of the connect failures in a row ended, by nanotime; 0: the
	// last attempt has connected.
	unconnected atomic.Int64
	alone       atomic.Uint32 // the endpoint of the last failure, if no other peer was asked for it; see alike
	lastClass   atomic.Uint32 // class and status of the last failure
	row         atomic.Uint32 // failures after the connection, in a row, while alike looks
	number      uint8         // from 1 to 127, in the results of alike
	record      Record        // of Pool.witness; set before a snapshot with terms.witnessed has the peer
	_           [128 - 8 - 24 - 8 - 8 - 8 - 8 - 8 - 8 - 8 - 16]byte

	outcomes [NumOutcomes]atomic.Uint64 // finished attempts by class
	_        [128 - NumOutcomes*8]byte
}

// Address returns "host:port" or "unix:/path".
func (p *Peer) Address() string { return p.ID.Address }

// Authority returns the Host of requests to the peer that have none.
func (p *Peer) Authority() string { return discovery.Authority(p.ID.Address) }

// Instance returns the registry's latest data.
func (p *Peer) Instance() discovery.Instance { return p.condition.Load().instance }

// Member returns who the peer is in a service mesh, as of Instance.
func (p *Peer) Member() discovery.Member { return p.condition.Load().instance.Member() }

// Weight returns the peer's weight, 0 to 65535. For a critical instance without a
// weight and Options.ActiveOverridesRegistry it is the last one known, or 1.
func (p *Peer) Weight() int { return p.condition.Load().weight() }

func (p *Peer) State() State { return p.condition.Load().state() }

// Since returns the start of the current state.
func (p *Peer) Since() time.Time { return p.condition.Load().since }

// Used reports whether the peer may get requests: it is eligible, or needed in panic,
// and in the subset. Its tier's share may still be 0.
func (p *Peer) Used() bool { return !p.load.isQuiesced() }

// Reasons returns the reasons against the peer, one line each, such as "consul:
// critical: http check: connection refused". It is nil for a healthy peer; a peer used
// only in panic or on probation, or with less than its weight, has reasons.
func (p *Peer) Reasons() []string { return p.condition.Load().reasonLines() }

// Has reports whether the peer has any of the reasons in r.
func (p *Peer) Has(r Reason) bool { return p.condition.Load().reasons&r != 0 }

// Inflight returns the number of requests in flight.
func (p *Peer) Inflight() int { return int(p.load.inflight() &^ quiesced) }

// Requests returns the number of finished attempts.
func (p *Peer) Requests() (n uint64) {
	for _, finished := range p.Outcomes() {
		n += finished
	}
	return n
}

// Failures returns the number of failed attempts; see [OutcomeClass.Failure].
func (p *Peer) Failures() (n uint64) {
	for class, finished := range p.Outcomes() {
		if OutcomeClass(class).Failure() {
			n += finished
		}
	}
	return n
}

// Outcomes returns the number of finished attempts by [OutcomeClass].
func (p *Peer) Outcomes() (n [NumOutcomes]uint64) {
	for i := range p.outcomes {
		n[i] = p.outcomes[i].Load()
	}
	return n
}

// Latency returns the moving average of the peer's latency, as if each request had been a typical
// one of the pool; 0 without samples.
func (p *Peer) Latency() time.Duration { return p.latency.average() }

func (p *Peer) String() string {
	return fmt.Sprintf("%s/%s (%s)", p.ID.Service, p.ID.ID, p.ID.Address)
}

// acquire counts a request in flight; false if the peer is quiesced or at its limit.
// Copies in flight do not count against the limit.
func (p *Peer) acquire(limit int) bool {
	if n := p.load.Add(1); n <= int64(limit) || withoutCopies(n) <= int64(limit) {
		return true
	}
	p.release()
	return false
}

// acquireQuiesced is acquire for a peer that is quiesced, unless it leaves or an operator drains
// it.
func (p *Peer) acquireQuiesced(limit int) bool {
	n := p.load.Add(1) // first: who then takes the peer away waits for the attempt
	if withoutCopies(n&^quiesced) <= int64(limit) && p.condition.Load().usableInPanic() {
		return true
	}
	p.release()
	return false
}

// withoutCopies returns a load without the copies.
func withoutCopies(load int64) int64 { return load&inflightMask - load>>copyShift }

// release undoes acquire. After the last request of a quiesced peer it calls
// Pool.onIdle.
func (p *Peer) release() {
	if p.load.Add(-1) == quiesced {
		p.pool.onIdle(p)
	}
}

// quiesce makes acquire fail from now on.
func (p *Peer) quiesce() {
	p.load.Or(quiesced)
	if p.Transport != nil {
		p.Transport.Drain()
	}
}

func (l *load) resume() {
	if l.isQuiesced() {
		l.And(^quiesced)
	}
}

func (l *load) isQuiesced() bool { return l.Load()&quiesced != 0 }

func (l *load) idle() bool { return l.Load() == quiesced }

// inflight returns the number of requests in flight, with the bit quiesced.
func (l *load) inflight() int64 { return l.Load() & inflightMask }
