package proxy

import (
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// sweepInterval is how late a timeout of the data plane may act.
const sweepInterval = 50 * time.Millisecond

// longestStep is the most by which the coarse clock goes on at a sweep. A process
// that has stood still for longer, with its machine or for want of a processor,
// does not take that for the silence of its clients and peers, whose bytes may
// have arrived meanwhile: else everything would time out at once.
const longestStep = 5 * sweepInterval

// idleSweeps is after how many sweeps idle connections to peers are looked at:
// there may be ten thousand peers, and nobody waits for it.
const idleSweeps = 10

// aLongTimeAgo is a deadline that wakes whoever is parked on a connection.
var aLongTimeAgo = time.Unix(1, 0)

// A sweeper ends waits that have taken too long. A connection states its
// deadline with one atomic store; one goroutine looks through all of them
// every sweepInterval. Timers in the runtime would cost each request several
// updates of a shared heap, for a precision that nobody needs.
type sweeper struct {
	clock  atomic.Int64 // coarse time: nanoseconds since the start in which the process ran
	sweeps int          // so far, for the sweeper's goroutine
	shards [16]sweepShard
	chores chore
}

type sweepShard struct {
	mu sync.Mutex
	// mu guards the ring of entries.
	root sweepEntry
	_    [40]byte // shards do not share a cache line
}

// A sweepEntry is a connection under the eyes of a sweeper. Its deadlines are
// set by the goroutines that work on the connection, its links by the sweeper.
// What is waited for from the other side and what it is waited for to take have
// a deadline each, since a body may go both ways at a time.
type sweepEntry struct {
	deadline      atomic.Int64 // of reading: coarse time, 0 for none
	writeDeadline atomic.Int64
	interrupted   atomic.Bool
	conn          net.Conn
	onSweep       func(now int64) // if not nil, called at every sweep
	prev          *sweepEntry
	next          *sweepEntry
	shard         *sweepShard
}

// chore is work for the sweeper's goroutine beside its entries.
type chore struct {
	mu sync.Mutex
	// mu guards the field below.
	transports map[*Transport]struct{}
}

func newSweeper() *sweeper {
	s := new(sweeper)
	s.clock.Store(1)
	s.chores.transports = make(map[*Transport]struct{})
	for i := range s.shards {
		root := &s.shards[i].root
		root.prev, root.next = root, root
	}
	return s
}

// now is the coarse time, never 0.
func (s *sweeper) now() int64 { return s.clock.Load() }

// run sweeps until stop is closed.
func (s *sweeper) run(stop <-chan struct{}) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			now := time.Now()
			s.sweep(now.Sub(last))
			last = now
		}
	}
}

// sweep is called when elapsed has passed since it was called before.
func (s *sweeper) sweep(elapsed time.Duration) {
	now := s.clock.Add(int64(min(elapsed, longestStep)))
	for i := range s.shards {
		s.shards[i].sweep(now)
	}
	if s.sweeps++; s.sweeps%idleSweeps != 0 {
		return
	}
	s.chores.mu.Lock()
	defer s.chores.mu.Unlock()
	for t := range s.chores.transports {
		t.closeIdle(now)
	}
}

func (s *sweepShard) sweep(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.root.next; e != &s.root; e = e.next {
		if e.onSweep != nil {
			e.onSweep(now)
		}
		// Whoever works on the connection may set another deadline before this
		// one wakes it. It finds out by asking expired, and goes on.
		if passed(&e.deadline, now) {
			e.conn.SetReadDeadline(aLongTimeAgo)
		}
		if passed(&e.writeDeadline, now) {
			e.conn.SetWriteDeadline(aLongTimeAgo)
		}
	}
}

func passed(deadline *atomic.Int64, now int64) bool {
	d := deadline.Load()
	return d != 0 && d <= now
}

// add puts e under the sweeper's eyes. hint spreads entries over the shards.
func (s *sweeper) add(e *sweepEntry, conn net.Conn, hint uint32) {
	shard := &s.shards[hint%uint32(len(s.shards))]
	e.conn, e.shard = conn, shard
	shard.mu.Lock()
	defer shard.mu.Unlock()
	e.prev, e.next = shard.root.prev, &shard.root
	e.prev.next, e.next.prev = e, e
}

// remove takes e out. The connection may be closed before or after.
func (e *sweepEntry) remove() {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
}

// arm sets the deadline of reading to timeout from now; a timeout of 0 means
// none.
func (e *sweepEntry) arm(s *sweeper, timeout time.Duration) {
	if timeout <= 0 {
		e.deadline.Store(0)
		return
	}
	e.deadline.Store(s.now() + int64(timeout))
}

// disarm takes the deadline of reading back.
func (e *sweepEntry) disarm() { e.deadline.Store(0) }

// interrupt ends every wait for the connection, whoever waits now or later, as
// if its deadline had passed. Deadlines that are set afterwards change nothing.
func (e *sweepEntry) interrupt() {
	e.interrupted.Store(true)
	e.conn.SetDeadline(aLongTimeAgo)
}

// resume ends what interrupt began.
func (e *sweepEntry) resume() {
	e.interrupted.Store(false)
	e.conn.SetDeadline(time.Time{})
}

// expired reports whether the deadline of reading has passed, or the connection
// was interrupted. Where neither is so, a wait that ended for a deadline was
// woken in error, and the connection is made fit for use again.
func (e *sweepEntry) expired(s *sweeper) bool {
	if passed(&e.deadline, s.now()) || e.interrupted.Load() {
		return true
	}
	e.conn.SetReadDeadline(time.Time{})
	return e.interrupted.Load() // that may just have been taken back with it
}

// writeExpired is expired for writing.
func (e *sweepEntry) writeExpired(s *sweeper) bool {
	return passed(&e.writeDeadline, s.now()) || e.interrupted.Load() || !e.writeOn()
}

// writeOn makes the connection fit for writing after a wait that was ended. It
// reports false where it was interrupted.
func (e *sweepEntry) writeOn() bool {
	e.conn.SetWriteDeadline(time.Time{})
	return !e.interrupted.Load() // that may just have been taken back with it
}

func (s *sweeper) addTransport(t *Transport) {
	s.chores.mu.Lock()
	defer s.chores.mu.Unlock()
	s.chores.transports[t] = struct{}{}
}

func (s *sweeper) removeTransport(t *Transport) {
	s.chores.mu.Lock()
	defer s.chores.mu.Unlock()
	delete(s.chores.transports, t)
}

func (s *sweeper) allTransports() []*Transport {
	s.chores.mu.Lock()
	defer s.chores.mu.Unlock()
	return slices.Collect(maps.Keys(s.chores.transports))
}
