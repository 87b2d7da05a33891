package http2

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/fields"
	"sluice/proxy/socket"
)

// Bounds of the bytes of the other side's frames beside heads and bodies, absolutely and in
// relation to these. A byte is forgotten in each OverheadTime.
const (
	OverheadBytes = 1 << 20
	OverheadRatio = 8
	OverheadTime  = time.Millisecond
)

// A Conn is one end of an HTTP/2 connection, in either role: it processes the frames of the other
// side, keeps the windows of both, and sends the frames of all streams. One goroutine reads the
// socket and calls ProcessLocked; another one, as long as there are bytes, sends. A Role does what
// differs. Mu must be held where a name ends with Locked.
type Conn struct {
	Work sync.WaitGroup // the goroutine that sends, and the goroutines that the role adds

	role    Role
	sweeper *socket.Sweeper
	place   panics.Place
	onFlush func()        // flush as a value: creating it allocates
	writer  socket.Writer // of the goroutine that sends

	// The fields of the reading goroutine.
	Fields fields.Fields // of the last field block
	// The last part of a frame or a field block has arrived since the user set it to false.
	Progressed bool
	decoder    *fields.HPACKDecoder
	block      fieldBlock
	overhead   LeakyBucket // bytes of frames, less the allowed ratio of heads and bodies

	Mu Mutex
	// Mu guards the fields below, and the fields of the streams.
	Streams     map[uint32]*Stream // that are in use; nil until there is one
	Last        uint32             // the highest id of a stream
	Final       bool               // streams above Last are ignored
	Open        int32              // streams that are open for the other side
	Receiving   int32              // streams on which the end has not arrived
	Settled     bool               // the first SETTINGS has arrived
	StreamLimit uint32             // how many streams the other side accepts
	// The largest field list that the other side accepts, as [fields.ListBytes] counts.
	ListLimit uint32
	Err       error // nothing more can be sent
	Output    Output
	Flushing  bool   // the goroutine that sends runs
	Written   uint32 // the other side can know streams up to this id only
	// What is being written has the heads of the streams above Written, up to this id.
	Taken uint32

	streamWindow int64 // to which the window of a stream grows
	growth       int64 // by how much the windows of streams may still grow, in all
	slack        int64 // how much may be owed
	received     int64 // bytes of bodies that the other side may still send
	owed         int64 // bytes of bodies that were read, not yet granted again
	Held         int64 // bytes of bodies that were not read
	moved        int64 // bytes of bodies in Output so far
	useful       int64 // the ones that are not yet in overhead
}

// A Role is what a Conn does as a server or as a client only. Mu is held when a method is called,
// except for Side and OnPanic. An Error ends the connection.
type Role interface {
	// Side returns where to send, with TLS or nil.
	Side() (socket.Side, *socket.TLSConn)
	// OnPanic is called after a panic of the goroutine that sends.
	OnPanic()

	// OnOpen is called with the head of a new stream in Fields. ends: its body is empty. err is nil
	// or ErrListTooLong.
	OnOpen(stream uint32, ends bool, err *Error) *Error
	// OnLate is called for HEADERS or DATA of a stream which has ended; s is nil: it is not in use.
	OnLate(stream uint32, s *Stream) *Error
	OnSettings()
	OnPong(data []byte)
	OnGoAway(last uint32)
	// OnReset is called before s is reset, and OnFault if that was the other side's fault.
	OnReset(s *Stream)
	OnFault() *Error
	// MayHold reports whether there is memory for so many bytes of bodies that were not read.
	MayHold(bytes int64) bool
	// OnWritten is called after each write, and OnFlushed when there is nothing to write.
	OnWritten(err error)
	OnFlushed()
}

// ConnOptions are the settings of a new Conn.
type ConnOptions struct {
	Role    Role
	Client  bool // the role sends the preface
	Sweeper *socket.Sweeper
	Place   panics.Place // of a panic of the goroutine that sends

	ListBytes     int // of a field list
	BlockBytes    int // of a field block in several frames
	Continuations int // of a field block
	Settings      []Setting

	// Window is how many bytes of bodies the other side may have under way on the connection. It is
	// the sum of what its streams may have and of Slack, so that what is not read of some streams
	// does not stop another one.
	Window       int32
	StreamWindow int32 // to which the window of a stream grows if its body is long
	Growth       int32 // by how much all streams together grow
	Slack        int32 // how much was read when the window of the connection is granted again
}

// Init makes c a new connection, whose first frames are in Output.
func (c *Conn) Init(o ConnOptions) {
	c.role, c.sweeper, c.place, c.onFlush = o.Role, o.Sweeper, o.Place, c.flush
	c.decoder = fields.NewHPACKDecoder(o.ListBytes)
	c.block = fieldBlock{maxBytes: o.BlockBytes, maxFrames: o.Continuations}
	c.streamWindow, c.growth, c.slack, c.received = int64(o.StreamWindow), int64(o.Growth), int64(o.Slack), int64(o.Window)
	c.StreamLimit, c.ListLimit = math.MaxUint32, math.MaxUint32
	c.Output = NewOutput()
	if o.Client {
		c.Output.Frames = append(c.Output.Frames, Preface...)
	}
	c.Output.Frames = AppendSettings(c.Output.Frames, o.Settings...)
	c.Output.Frames = AppendWindowUpdate(c.Output.Frames, 0, int(o.Window-InitialWindow))
}

// DiscardLocked gives back memory that a connection without streams does not need.
func (c *Conn) DiscardLocked() {
	c.Streams, c.Fields = nil, fields.Fields{}
	c.Output.Discard()
}

// GrantLocked lets the other side send n more bytes on the connection, which were read.
func (c *Conn) GrantLocked(n int) {
	if c.owed += int64(n); c.owed < c.slack {
		return
	}
	c.Output.Frames = AppendWindowUpdate(c.Output.Frames, 0, int(c.owed))
	c.received += c.owed
	c.owed = 0
	c.FlushLocked()
}

// FlushLocked starts to send Output.
func (c *Conn) FlushLocked() {
	if c.Flushing || len(c.Output.Frames) == 0 || c.Err != nil {
		return
	}
	c.Flushing = true
	c.Work.Add(1)
	go c.onFlush()
}

// flush sends Output until it is empty. It yields first, so that the streams that can run add their
// frames: one write for many messages.
func (c *Conn) flush() {
	defer c.Work.Done()
	defer panics.Contain(c.place, c.role.OnPanic)
	GrowStack(nil)
	runtime.Gosched()
	for b := c.takeOutput(nil, 0, nil); b != nil; {
		to, secure := c.role.Side()
		n, err := c.writer.WriteSealed(to, secure, b)
		b = c.takeOutput(b, n, err)
	}
}

// takeOutput returns the frames to send next; nil: there are none, and flush ends. sent is nil or
// what was sent before, of which n bytes were written, with that error.
func (c *Conn) takeOutput(sent []byte, n int, err error) []byte {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	if sent != nil {
		if c.Output.Recycle(sent); n > 0 {
			c.Written = c.Taken
		}
		c.Taken = c.Written
		c.role.OnWritten(err)
		c.Output.Fill()
	}
	if len(c.Output.Frames) > 0 && c.Err == nil {
		b := c.Output.Take()
		c.Taken = c.Last
		c.Output.Fill()
		return b
	}
	c.Flushing = false
	c.role.OnFlushed()
	return nil
}

// GrowStack makes the stack of a new goroutine as large as most requests need it, 4 KiB. It would
// grow to that anyway, but deep in calls, and then all their frames are copied and adjusted. Here
// a large frame makes it grow while there is little to copy. use is nil: then the memory of the
// frame is not even cleared.
//
//go:noinline
func GrowStack(use func(byte)) {
	if use != nil {
		var frame [2 << 10]byte
		for i := range frame {
			use(frame[i])
		}
	}
}

// A Mutex is a mutex that notes whether a panic has left what it guards half changed.
type Mutex struct {
	sync.Mutex
	torn atomic.Bool
}

// Unlock unlocks m. It notes a panic if it was deferred.
func (m *Mutex) Unlock() {
	if value := recover(); value != nil {
		m.torn.Store(true)
		m.Mutex.Unlock()
		panic(value)
	}
	m.Mutex.Unlock()
}

// Torn reports whether there was such a panic.
func (m *Mutex) Torn() bool { return m.torn.Load() }
