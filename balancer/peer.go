package balancer

import (
	"fmt"
	"sync/atomic"
	"time"

	"sluice/discovery"
)

// quiesced is a bit of Peer.load, far above any number of requests in flight.
// It is set while the peer is to get no requests.
const quiesced = 1 << 40

// maxWeight is the largest weight that counts, and the largest in Consul.
const maxWeight = 65535

// Peer is one instance in a pool. It outlives snapshots. Its methods are safe
// for concurrent use.
type Peer struct {
	// ID is the peer's identity; it never changes.
	ID discovery.Key
	// Transport is what Options.NewTransport returned for the peer.
	Transport Transport

	pool      *Pool
	condition atomic.Pointer[condition] // stored with pool.mu held

	streakStart atomic.Int64 // attempts that started before, by nanotime, are not in streak

	// pool.mu guards the fields below.
	cutTimer   *time.Timer // runs while the peer is leaving
	departures int32       // how often it left
	drained    bool        // EventDrained was sent for an operator's drain
	eligible   bool        // in the present snapshot
	stickyID   atomic.Uint64
	// With these fields the first 128 bytes are full.

	// What picks read and every request writes, on a cache line of its own.

	// load is the number of requests in flight, and the bit quiesced. Both are
	// in one word so that starting a request and quiescing the peer exclude each
	// other without a lock; see acquire.
	load      atomic.Int64
	latency   estimate
	measured  atomic.Int64                    // attempts that started before, by nanotime, are not in latency
	streak    atomic.Uint64                   // failures in a row; see Streak.pack
	latencies atomic.Pointer[latencyCounters] // nil if they are not measured
	_         [128 - 8 - 24 - 8 - 8 - 8]byte

	outcomes [NumOutcomes]atomic.Uint64 // attempts that ended, by class
	_        [128 - NumOutcomes*8]byte
}

// Address returns "host:port".
func (p *Peer) Address() string { return p.ID.Address }

// Instance returns what the registry said last.
func (p *Peer) Instance() discovery.Instance { return p.condition.Load().instance }

// Weight returns the peer's share of the traffic in relation to the pool's
// other peers, as the registry has it: 0 to 65535. Where the registry gives
// none because it calls the peer critical, and Options.ActiveOverridesConsul is
// set, it is what it was before, or 1.
func (p *Peer) Weight() int { return p.condition.Load().weight() }

// State returns what the peer's reasons amount to.
func (p *Peer) State() State { return p.condition.Load().state() }

// Since returns the start of the present state.
func (p *Peer) Since() time.Time { return p.condition.Load().since }

// Used reports whether requests may go to the peer at present: it is eligible,
// or needed all the same in panic, and in the subset. With tiers they may all
// go elsewhere.
func (p *Peer) Used() bool { return !p.isQuiesced() }

// Reasons returns what speaks against using the peer, one line for each reason,
// such as "consul: critical: http check: connection refused". It is nil for a
// peer that is used as a matter of course: not in panic only, nor on probation.
func (p *Peer) Reasons() []string { return p.condition.Load().against() }

// Has reports whether any of the reasons in r speaks against the peer.
func (p *Peer) Has(r Reason) bool { return p.condition.Load().reasons&r != 0 }

// Inflight returns the number of requests that were picked and are not done.
func (p *Peer) Inflight() int { return int(p.load.Load() &^ quiesced) }

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
// quiesced or has limit, less than quiesced, of them.
func (p *Peer) acquire(limit int) bool {
	if p.load.Add(1) <= int64(limit) {
		return true
	}
	p.release()
	return false
}

// release undoes acquire. If it ends the last request in flight of a quiesced
// peer, it tells the pool.
func (p *Peer) release() {
	if p.load.Add(-1) == quiesced {
		p.pool.idle(p)
	}
}

// quiesce makes acquire fail from now on. Requests that were counted before
// are in flight; once there are none, there will be none.
func (p *Peer) quiesce() {
	p.load.Or(quiesced)
	if p.Transport != nil {
		p.Transport.Drain()
	}
}

// resume undoes quiesce.
func (p *Peer) resume() {
	if p.load.Load()&quiesced != 0 {
		p.load.And(^quiesced)
	}
}

// isQuiesced reports whether the peer is to get no requests.
func (p *Peer) isQuiesced() bool { return p.load.Load()&quiesced != 0 }

// idle reports whether the peer is quiesced and has no request in flight.
func (p *Peer) idle() bool { return p.load.Load() == quiesced }
