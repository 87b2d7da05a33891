package proxy

import (
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/observe/panics"
)

// sweepInterval is the precision of the timeouts of the data plane.
const sweepInterval = 50 * time.Millisecond

// longestStep is the maximum step of the coarse clock at a sweep. After a pause of
// the process or the machine, bytes of clients and peers may be unread. Without the
// maximum, all waits would time out then.
const longestStep = 5 * sweepInterval

// idleInterval is the time between checks of idle connections to peers, which are not
// urgent and may be many.
const idleInterval = 10 * sweepInterval

// aLongTimeAgo is a deadline that ends every wait on a connection.
var aLongTimeAgo = time.Unix(1, 0)

// A sweeper ends waits that have timed out. A connection sets its deadline with an
// atomic store; one goroutine checks the deadlines that may have passed, every
// sweepInterval. Runtime timers are more precise than necessary, and cost each
// request several updates of a shared heap.
type sweeper struct {
	clock  atomic.Int64 // coarse time: nanoseconds in which the process ran
	wheels [16]wheel
	chores chore
}

// A sweepEntry is a connection with deadlines that a sweeper enforces. The goroutines
// of the connection set them. Reading and writing have separate deadlines, because
// both directions may transfer a body at the same time.
type sweepEntry struct {
	deadline      atomic.Int64 // of reading: coarse time, 0 for none
	writeDeadline atomic.Int64
	interrupted   atomic.Bool
	probes        bool // arm schedules a sweep after firstProbe
	conn          net.Conn
	owner         sweepOwner
	wheelLink
}

// sweepOwner is the connection of a sweepEntry.
type sweepOwner interface {
	// onSweep is called before the deadlines are checked. It returns the coarse time
	// of its next call, or never. It takes no mutex of a connection: all timeouts
	// would wait for it.
	onSweep(now int64) int64
}

// chore is the work that is not in the wheels, with a goroutine of its own: it takes the
// mutexes of connections.
type chore struct {
	mu sync.Mutex
	// mu guards the field below.
	transports map[connector]struct{}
}

func newSweeper() *sweeper {
	s := new(sweeper)
	s.clock.Store(1)
	s.chores.transports = make(map[connector]struct{})
	return s
}

// now returns the coarse time, which is never 0.
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

// sweep ends the waits that have timed out. elapsed is the time since the last call.
func (s *sweeper) sweep(elapsed time.Duration) {
	now := s.clock.Add(int64(min(elapsed, longestStep)))
	for i := range s.wheels {
		s.wheels[i].sweep(now)
	}
}

// closeIdle closes idle connections to peers until stop is closed.
func (s *sweeper) closeIdle(stop <-chan struct{}) {
	ticker := time.NewTicker(idleInterval)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			for _, t := range s.allTransports() {
				contained(panics.Sweep, func() { t.closeIdle(s.now()) })
			}
		}
	}
}

// sweep ends the waits of e that have timed out, and returns the time of its next
// call.
func (e *sweepEntry) sweep(now int64) (next int64) {
	defer panics.Contain(panics.Sweep, e.interrupt)
	next = never
	if e.owner != nil {
		next = e.owner.onSweep(now)
	}
	// The connection may get another deadline before this one wakes it. Then expired
	// returns false, and the wait continues.
	if passed(&e.deadline, now) {
		e.conn.SetReadDeadline(aLongTimeAgo)
	}
	if passed(&e.writeDeadline, now) {
		e.conn.SetWriteDeadline(aLongTimeAgo)
	}
	for _, deadline := range [...]int64{e.deadline.Load(), e.writeDeadline.Load()} {
		if deadline != 0 {
			next = min(next, deadline)
		}
	}
	return next
}

func passed(deadline *atomic.Int64, now int64) bool {
	d := deadline.Load()
	return d != 0 && d <= now
}

// add adds e, which has no deadline yet. hint distributes entries over the wheels.
func (s *sweeper) add(e *sweepEntry, conn net.Conn, hint uint32) {
	e.conn, e.wheel = conn, &s.wheels[hint%uint32(len(s.wheels))]
	e.due.Store(never)
}

// remove removes e permanently. The connection may be closed before or after.
func (e *sweepEntry) remove() { e.wheel.remove(e) }

// arm sets the read deadline to timeout from now; 0: none.
func (e *sweepEntry) arm(s *sweeper, timeout time.Duration) {
	if timeout <= 0 {
		e.deadline.Store(0)
		return
	}
	now := s.now()
	e.deadline.Store(now + int64(timeout))
	if e.probes {
		timeout = min(timeout, firstProbe)
	}
	e.sweepBy(now + int64(timeout))
}

// armRead sets the read deadline to a coarse time.
func (e *sweepEntry) armRead(deadline int64) {
	e.deadline.Store(deadline)
	e.sweepBy(deadline)
}

// armWrite sets the write deadline.
func (e *sweepEntry) armWrite(deadline int64) {
	e.writeDeadline.Store(deadline)
	e.sweepBy(deadline)
}

// disarm removes the read deadline.
func (e *sweepEntry) disarm() { e.deadline.Store(0) }

// interrupt ends all present and future waits for the connection, as if their
// deadlines had passed, even if deadlines are set later.
func (e *sweepEntry) interrupt() {
	e.interrupted.Store(true)
	e.conn.SetDeadline(aLongTimeAgo)
}

// resume reverts interrupt.
func (e *sweepEntry) resume() {
	e.interrupted.Store(false)
	e.conn.SetDeadline(time.Time{})
}

// expired reports whether the read deadline has passed or the connection was
// interrupted. Otherwise the wake was spurious, and expired makes the connection
// readable again.
func (e *sweepEntry) expired(s *sweeper) bool {
	return passed(&e.deadline, s.now()) || e.interrupted.Load() || !e.resumeRead()
}

// resumeRead makes the connection readable again after a wake. It returns false if the
// connection was interrupted.
func (e *sweepEntry) resumeRead() bool {
	e.conn.SetReadDeadline(time.Time{})
	return !e.interrupted.Load() // a concurrent interrupt may have set that deadline
}

// writeExpired is expired for writing.
func (e *sweepEntry) writeExpired(s *sweeper) bool {
	return passed(&e.writeDeadline, s.now()) || e.interrupted.Load() || !e.resumeWrite()
}

// resumeWrite makes the connection writable again after a wake. It returns false if
// the connection was interrupted.
func (e *sweepEntry) resumeWrite() bool {
	e.conn.SetWriteDeadline(time.Time{})
	return !e.interrupted.Load() // a concurrent interrupt may have set that deadline
}

func (s *sweeper) addTransport(t connector) {
	s.chores.mu.Lock()
	defer s.chores.mu.Unlock()
	s.chores.transports[t] = struct{}{}
}

func (s *sweeper) removeTransport(t connector) {
	s.chores.mu.Lock()
	defer s.chores.mu.Unlock()
	delete(s.chores.transports, t)
}

func (s *sweeper) allTransports() []connector {
	s.chores.mu.Lock()
	defer s.chores.mu.Unlock()
	return slices.Collect(maps.Keys(s.chores.transports))
}
