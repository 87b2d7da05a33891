package http2

import (
	"cmp"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"sluice/proxy/socket"
)

// A Stream is a stream of a Conn, in either role. It may be used again for a later one.
type Stream struct {
	ID      uint32 // 0: not yet open. It does not change while the stream is in use.
	Delayed bool   // a part had to wait for the other side; for the goroutine that sends

	conn  *Conn
	role  StreamRole
	entry *socket.SweepEntry // the deadlines of the waits
	waits waits

	// conn.Mu guards the fields below.
	Received bool             // the end has arrived
	Sent     bool             // the end is in Output
	Stopped  bool             // nothing more is sent or received
	Canceled bool             // the other side has reset it
	Err      error            // why it has stopped; nil: all had arrived
	Body     socket.ByteQueue // that was not read

	granted int64 // bytes that the other side may send
	limit   int64 // of granted
	owed    int64 // bytes that were read and not granted again
	read    int64 // bytes that were read since limit was set

	Sender      Sender
	moved       bool  // since SendLocked last checked
	movedBefore int64 // conn.moved when the write timeout was last set
}

// A StreamRole is what a Stream does as a server or as a client only. Mu is held.
type StreamRole interface {
	// OnHead is called with another field block in Fields, while Received is false. ends: the
	// stream ends with it. err is nil or ErrListTooLong.
	OnHead(ends bool, err *Error) *Error
	// OnData checks DATA with n bytes. An error resets the stream.
	OnData(n int, ends bool) error
	// OnReset is called if the other side has reset the stream, which is not Stopped.
	OnReset(code ErrorCode) *Error
	// OnStop is called when the stream stops.
	OnStop()
	// Patience returns how long from now the other side may take nothing. moved: it has taken
	// something; if not, 0 leaves the time as it is.
	Patience(moved bool) time.Duration
}

// Init makes s ready for OpenLocked.
func (s *Stream) Init(c *Conn, role StreamRole, entry *socket.SweepEntry, hint uint32) {
	s.conn, s.role, s.entry = c, role, entry
	s.waits = waits{readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
	c.sweeper.Add(entry, &s.waits, hint)
}

// OpenLocked makes s the stream id.
func (s *Stream) OpenLocked(id uint32) {
	c := s.conn
	s.ID, s.Delayed = id, false
	s.Received, s.Sent, s.Stopped, s.Canceled, s.Err = false, false, false, false, nil
	s.granted, s.limit, s.owed, s.read = InitialWindow, InitialWindow, 0, 0
	c.Output.Open(&s.Sender, s, id)
	if c.Streams == nil {
		c.Streams = make(map[uint32]*Stream)
	}
	c.Streams[id], c.Last = s, id
	c.Open++
	c.Receiving++
}

// EndReceivedLocked notes that the end has arrived.
func (s *Stream) EndReceivedLocked() {
	s.Received = true
	s.conn.Receiving--
	s.countClosed()
}

// EndSentLocked notes that the end is in Output.
func (s *Stream) EndSentLocked() {
	s.Sent = true
	s.countClosed()
}

func (s *Stream) countClosed() {
	if s.Received && s.Sent {
		s.conn.Open--
	}
}

// StopLocked ends all waits for the stream: with err, unless all has arrived before an early end.
// Only the first call counts.
func (s *Stream) StopLocked(err error) {
	if s.Stopped {
		return
	}
	s.Stopped = true
	if !s.Received || err != socket.ErrClosedEarly {
		s.Err = err
	}
	c := s.conn
	c.Output.Halt(&s.Sender)
	if s.ID != 0 && !s.Received {
		c.Receiving--
	}
	if s.ID != 0 && !(s.Received && s.Sent) {
		c.Open--
	}
	s.role.OnStop()
	s.Wake()
	signal(s.waits.writable)
}

// ResetLocked stops the stream and tells the other side.
func (s *Stream) ResetLocked(code ErrorCode, err error) {
	c := s.conn
	c.role.OnReset(s)
	c.Output.Frames = AppendResetStream(c.Output.Frames, s.ID, code)
	s.StopLocked(err)
	c.FlushLocked()
}

// CloseLocked removes the stream from its connection.
func (s *Stream) CloseLocked() {
	c := s.conn
	c.Output.Drop(&s.Sender) // it belongs to the exchange
	s.dropBodyLocked()
	c.growth += max(0, s.limit-InitialWindow)
	s.limit = 0
	delete(c.Streams, s.ID)
}

// dropBodyLocked forgets what was not read.
func (s *Stream) dropBodyLocked() {
	n := s.Body.Drop()
	s.conn.Held -= int64(n)
	s.conn.GrantLocked(n)
}

// TakeLocked moves bytes of the body that have arrived to b. last: there are no more.
func (s *Stream) TakeLocked(b []byte) (n int, last bool) {
	n = s.Body.Take(b)
	s.conn.Held -= int64(n)
	s.GrantLocked(n)
	return n, s.Received && s.Body.Empty()
}

// GrantLocked lets the other side send n more bytes, which were read, and more if it uses the whole
// window again and again.
func (s *Stream) GrantLocked(n int) {
	if n == 0 {
		return
	}
	c := s.conn
	c.GrantLocked(n)
	s.owed += int64(n)
	s.read += int64(n)
	if s.Received || s.Stopped || s.owed < s.limit/2 {
		return
	}
	if more := min(s.limit, c.streamWindow-s.limit, c.growth); s.read >= 2*s.limit && more > 0 {
		c.growth -= more
		s.owed += more
		s.limit, s.read = s.limit+more, 0
	}
	c.Output.Frames = AppendWindowUpdate(c.Output.Frames, s.ID, int(s.owed))
	s.granted += s.owed
	s.owed = 0
	c.FlushLocked()
}

// QueueLocked queues frames, data and the frames of a trailer section, as [Output.Send] does, and
// returns before they are in Output. CloseLocked forgets the rest.
func (s *Stream) QueueLocked(head, data, trailer []byte, ends bool) {
	c := s.conn
	s.moved = true
	c.Output.Send(&s.Sender, head, data, trailer, ends)
	c.Output.Fill()
	c.FlushLocked()
}

// SendLocked is QueueLocked that waits until all are in Output. Mu is unlocked meanwhile. It fails
// with os.ErrDeadlineExceeded if the other side takes nothing for too long.
func (s *Stream) SendLocked(head, data, trailer []byte, ends bool) (err error) {
	if s.Stopped {
		return socket.ErrClosedEarly
	}
	c := s.conn
	s.QueueLocked(head, data, trailer, ends)
	// An interruption wakes one wait, which may have been that of an earlier send.
	for due := s.entry.Interrupted.Load(); s.Sender.IsSending() && !s.Stopped; {
		// One that waits for its turn only is not slow while bytes of others are taken.
		moved := s.moved || s.Sender.IsQueued() && c.moved != s.movedBefore
		if moved {
			s.moved, s.movedBefore = false, c.moved
		}
		pause := s.role.Patience(moved)
		if due && (pause <= 0 || s.entry.Interrupted.Load()) {
			err = os.ErrDeadlineExceeded
			break
		}
		if pause > 0 {
			s.entry.ArmWrite(c.sweeper.Exact() + int64(pause))
		}
		s.Delayed = true
		due = s.awaitRoom()
	}
	s.entry.WriteDeadline.Store(0)
	if !s.Sender.IsSending() {
		return nil
	}
	c.Output.Drop(&s.Sender) // it belongs to the exchange
	return cmp.Or(err, socket.ErrClosedEarly)
}

// awaitRoom unlocks Mu until the stream can send, and reports whether the write timeout is over.
func (s *Stream) awaitRoom() (due bool) {
	s.conn.Mu.Unlock()
	<-s.waits.writable
	due = s.waits.writeDue.Load() && s.entry.WriteExpired(s.conn.sweeper)
	s.conn.Mu.Lock()
	return due
}

// Moved implements [Owner].
func (s *Stream) Moved(n int, whole, ends bool) {
	c := s.conn
	s.moved = true
	c.useful += int64(n)
	c.moved += int64(n)
	if ends {
		s.EndSentLocked()
	}
	if whole {
		signal(s.waits.writable)
	}
}

// Errors of waits that may be continued.
var (
	ErrPatience = errors.New("HTTP/2: nothing has arrived yet")
	ErrChanged  = errors.New("HTTP/2: something else has changed")
)

// Wakes are reasons to end a Wait.
type Wakes struct {
	Patience  time.Duration   // above 0: it ends with ErrPatience after that time
	Changed   <-chan struct{} // it ends with ErrChanged when that is closed
	IsChanged func() bool     // not nil: and if this returns true, see Wake
}

// Wait waits until ready, called with Mu held, returns true. It fails with the error of the stream,
// or with os.ErrDeadlineExceeded by the read deadline. While it waits, b is given back. Mu must not
// be held.
func (s *Stream) Wait(b *socket.Buffers, ready func() bool, w Wakes) error {
	var impatient <-chan time.Time
	for {
		s.conn.Mu.Lock()
		there, stopped, err := ready(), s.Stopped, s.Err
		s.conn.Mu.Unlock()
		switch {
		case there:
			return nil
		case stopped:
			return cmp.Or(err, socket.ErrClosedEarly)
		case w.IsChanged != nil && w.IsChanged():
			return ErrChanged
		case s.waits.readDue.Load() && s.entry.Expired(s.conn.sweeper):
			return os.ErrDeadlineExceeded
		case w.Patience > 0 && impatient == nil:
			timer := time.NewTimer(w.Patience)
			defer timer.Stop()
			impatient = timer.C
		}
		b.GiveBack()
		if impatient == nil && w.Changed == nil {
			<-s.waits.readable
			continue
		}
		select {
		case <-s.waits.readable:
		case <-impatient:
			return ErrPatience
		case <-w.Changed:
			return ErrChanged
		}
	}
}

// Wake makes Wait look again.
func (s *Stream) Wake() { signal(s.waits.readable) }

// waits wake the waits of a stream. They implement the deadlines of a net.Conn, for the
// socket.SweepEntry of the stream.
type waits struct {
	net.Conn                         // nil
	readable, writable chan struct{} // wake the goroutine that waits
	readDue, writeDue  atomic.Bool   // a deadline may have passed
}

func (w *waits) SetReadDeadline(t time.Time) error {
	if w.readDue.Store(!t.IsZero()); !t.IsZero() {
		signal(w.readable)
	}
	return nil
}

func (w *waits) SetWriteDeadline(t time.Time) error {
	if w.writeDue.Store(!t.IsZero()); !t.IsZero() {
		signal(w.writable)
	}
	return nil
}

func (w *waits) SetDeadline(t time.Time) error {
	w.SetReadDeadline(t)
	return w.SetWriteDeadline(t)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
