package socket

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/observe/panics"
)

// SweepInterval is the precision of the timeouts of the data plane: they are never early, and
// late by at most one interval. Where a client, or a peer, has more due at once than one sweep
// ends, the others are later.
const SweepInterval = 50 * time.Millisecond

// longestStep is the maximum step of the coarse clock at a sweep. After a pause of
// the process or the machine, bytes of clients and peers may be unread. Without the
// maximum, all waits would time out then.
const longestStep = 5 * SweepInterval

// maxProbes is the number of entries with probes whose OnSweep is called in a sweep. The others
// come to it in the next ones, so that many waits for answers, each of which looks after its
// client, do not delay the deadlines of others.
const maxProbes = 2048

// maxEndsOfClient is the number of waits of one client that end in a sweep, and maxEndsOfPeer that
// of waits for one peer: more, so that one client does not use them up. The others end in the next
// ones.
// To end one takes about a microsecond, but the goroutines that go on then run before the next
// sweep, and before the requests of others.
const (
	maxEndsOfClient = 512
	maxEndsOfPeer   = 4 * maxEndsOfClient
)

// FirstProbe is how long a wait of an entry with probes lasts before it is swept.
const FirstProbe = 100 * time.Millisecond

// ALongTimeAgo is a deadline that ends every wait on a connection.
var ALongTimeAgo = time.Unix(1, 0)

// A Sweeper ends waits that have timed out. A connection sets its deadline with an
// atomic store; one goroutine checks the deadlines that may have passed, every
// SweepInterval. Runtime timers are more precise than necessary, and cost each
// request several updates of a shared heap.
type Sweeper struct {
	start  time.Time
	clock  atomic.Int64 // coarse time: nanoseconds in which the process ran until the last sweep
	behind atomic.Int64 // by how much clock was less than the time since start then
	wheels [16]wheel
	mu     sync.Mutex  // held during a sweep; guards the fields below
	probes int         // OnSweep calls that are left in a sweep
	ends   map[any]int // in a sweep, of each party
}

// A SweepEntry is a connection with deadlines that a sweeper enforces. The goroutines
// of the connection set them. Reading and writing have separate deadlines, because
// both directions may transfer a body at the same time.
type SweepEntry struct {
	Deadline      atomic.Int64 // of reading: coarse time, 0 for none
	WriteDeadline atomic.Int64
	Interrupted   atomic.Bool
	Probes        bool // arm schedules a sweep after FirstProbe
	Conn          net.Conn
	Owner         sweepOwner // nil: none is known
	wheelLink
}

// sweepOwner is the connection of a SweepEntry.
type sweepOwner interface {
	// Parties returns who waits, and for whom: the client's [places.Block] and a value that stands
	// for the peer; nil: none. Only waits that end ask for them. It is safe for concurrent use.
	Parties() (client, peer any)
	// OnSweep is called before the deadlines are checked. It returns the coarse time
	// of its next call, or never. It takes no mutex of a connection: all timeouts
	// would wait for it.
	OnSweep(now int64) int64
}

func NewSweeper() *Sweeper {
	s := &Sweeper{start: time.Now(), ends: make(map[any]int)}
	s.clock.Store(1)
	s.behind.Store(-1)
	return s
}

// Now returns the coarse time, which is never 0. It is the time of the last sweep, so it tells
// whether a deadline has passed.
func (s *Sweeper) Now() int64 { return s.clock.Load() }

// Exact returns the coarse time without the part of a sweep interval by which Now is behind. A
// deadline that is a timeout after Exact is not early.
func (s *Sweeper) Exact() int64 {
	clock := s.clock.Load()
	now := int64(time.Since(s.start)) - s.behind.Load()
	return min(max(now, clock), clock+int64(longestStep))
}

// Advance adds d to the coarse time, so that tests need not wait. The next sweep acts on it.
func (s *Sweeper) Advance(d time.Duration) {
	s.behind.Add(-int64(d))
	s.clock.Add(int64(d))
}

// Entries returns how many entries are to be swept.
func (s *Sweeper) Entries() (n int) {
	for i := range s.wheels {
		n += s.wheels[i].entries()
	}
	return n
}

// Run sweeps until stop is closed.
func (s *Sweeper) Run(stop <-chan struct{}) {
	ticker := time.NewTicker(SweepInterval)
	defer ticker.Stop()
	last := time.Since(s.start)
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			now := time.Since(s.start)
			s.sweepAt(now, now-last)
			last = now
		}
	}
}

// Sweep ends the waits that have timed out. elapsed is the time since the last call.
func (s *Sweeper) Sweep(elapsed time.Duration) { s.sweepAt(time.Since(s.start), elapsed) }

// sweepAt is Sweep at a time since start.
func (s *Sweeper) sweepAt(at, elapsed time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	step := int64(min(elapsed, longestStep))
	s.behind.Store(int64(at) - s.clock.Load() - step)
	now := s.clock.Add(step)
	s.probes = maxProbes
	clear(s.ends)
	for i := range s.wheels { // another one is the first each time, so that each has its probes
		s.wheels[(int(now/int64(SweepInterval))+i)%len(s.wheels)].sweep(s, now)
	}
}

// sweep ends the waits of e that have timed out, and returns the time of its next
// call.
func (e *SweepEntry) sweep(s *Sweeper, now int64) (next int64) {
	defer panics.Contain(panics.Sweep, e.Interrupt)
	next = Never
	switch {
	case !s.mayEnd(e, now):
		return now
	case e.Owner == nil:
	case e.Probes && s.probes == 0:
		next = now + int64(SweepInterval)
	default:
		if e.Probes {
			s.probes--
		}
		next = e.Owner.OnSweep(now)
	}
	// The connection may get another deadline before this one wakes it. Then expired
	// returns false, and the wait continues.
	if Passed(&e.Deadline, now) {
		e.Conn.SetReadDeadline(ALongTimeAgo)
	}
	if Passed(&e.WriteDeadline, now) {
		e.Conn.SetWriteDeadline(ALongTimeAgo)
	}
	for _, deadline := range [...]int64{e.Deadline.Load(), e.WriteDeadline.Load()} {
		if deadline != 0 {
			next = min(next, deadline)
		}
	}
	return next
}

// mayEnd counts the end of a wait of e whose deadline has passed, and returns false if its client
// or its peer has had its share. A connection that has not noticed its end is not counted again.
func (s *Sweeper) mayEnd(e *SweepEntry, now int64) bool {
	var passed int64
	for _, deadline := range [...]int64{e.Deadline.Load(), e.WriteDeadline.Load()} {
		if deadline <= now {
			passed = max(passed, deadline)
		}
	}
	if passed == 0 || passed == e.ended {
		return true
	}
	if e.Owner != nil {
		client, peer := e.Owner.Parties()
		if client != nil && s.ends[client] == maxEndsOfClient || peer != nil && s.ends[peer] == maxEndsOfPeer {
			return false
		}
		s.ends[client]++
		s.ends[peer]++
	}
	e.ended = passed
	return true
}

func Passed(deadline *atomic.Int64, now int64) bool {
	d := deadline.Load()
	return d != 0 && d <= now
}

// Add adds e, which has no deadline yet. hint distributes entries over the wheels.
func (s *Sweeper) Add(e *SweepEntry, conn net.Conn, hint uint32) {
	e.Conn, e.wheel = conn, &s.wheels[hint%uint32(len(s.wheels))]
	e.due.Store(Never)
}

// Remove removes e permanently. The connection may be closed before or after.
func (e *SweepEntry) Remove() { e.wheel.remove(e) }

// Arm sets the read deadline to timeout from now; 0: none.
func (e *SweepEntry) Arm(s *Sweeper, timeout time.Duration) {
	if timeout <= 0 {
		e.Deadline.Store(0)
		return
	}
	now := s.Exact()
	e.Deadline.Store(now + int64(timeout))
	if e.Probes {
		timeout = min(timeout, FirstProbe)
	}
	e.sweepBy(now + int64(timeout))
}

// ArmRead sets the read deadline to a coarse time.
func (e *SweepEntry) ArmRead(deadline int64) {
	e.Deadline.Store(deadline)
	e.sweepBy(deadline)
}

// ArmWrite sets the write deadline.
func (e *SweepEntry) ArmWrite(deadline int64) {
	e.WriteDeadline.Store(deadline)
	e.sweepBy(deadline)
}

// Disarm removes the read deadline.
func (e *SweepEntry) Disarm() { e.Deadline.Store(0) }

// Interrupt ends all present and future waits for the connection, as if their
// deadlines had passed, even if deadlines are set later.
func (e *SweepEntry) Interrupt() {
	e.Interrupted.Store(true)
	e.Conn.SetDeadline(ALongTimeAgo)
}

// Resume reverts interrupt.
func (e *SweepEntry) Resume() {
	e.Interrupted.Store(false)
	e.Conn.SetDeadline(time.Time{})
}

// Expired reports whether the read deadline has passed or the connection was
// interrupted. Otherwise the wake was spurious, and expired makes the connection
// readable again.
func (e *SweepEntry) Expired(s *Sweeper) bool {
	return Passed(&e.Deadline, s.Now()) || e.Interrupted.Load() || !e.ResumeRead()
}

// ResumeRead makes the connection readable again after a wake. It returns false if the
// connection was interrupted.
func (e *SweepEntry) ResumeRead() bool {
	e.Conn.SetReadDeadline(time.Time{})
	return !e.Interrupted.Load() // a concurrent interrupt may have set that deadline
}

// read is the Read of raw, the connection of e, that goes on after a spurious wake.
func (e *SweepEntry) read(s *Sweeper, raw syscall.RawConn, readable func(fd uintptr) bool) error {
	for {
		if err := raw.Read(readable); !errors.Is(err, os.ErrDeadlineExceeded) || e.Expired(s) {
			return err
		}
	}
}

// write is the Write of raw, the connection of e, that goes on after each wake: writable finds out
// whether its time is over.
func (e *SweepEntry) write(raw syscall.RawConn, writable func(fd uintptr) bool) error {
	for {
		if err := raw.Write(writable); !errors.Is(err, os.ErrDeadlineExceeded) || !e.ResumeWrite() {
			return err
		}
	}
}

// WriteExpired is expired for writing.
func (e *SweepEntry) WriteExpired(s *Sweeper) bool {
	return Passed(&e.WriteDeadline, s.Now()) || e.Interrupted.Load() || !e.ResumeWrite()
}

// ResumeWrite makes the connection writable again after a wake. It returns false if
// the connection was interrupted.
func (e *SweepEntry) ResumeWrite() bool {
	e.Conn.SetWriteDeadline(time.Time{})
	return !e.Interrupted.Load() // a concurrent interrupt may have set that deadline
}
