package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/test/verify"
)

// A modelEnd is the other end of an HTTP/2 connection of sluice: its client or its peer. Until
// calm, it changes windows up and down, sends PING and unknown frames, pads, and divides heads, at
// random. It keeps to the windows that it gets, and checks each frame: that it is within the
// windows that it grants, and that a body is the one of its stream, byte for byte.
type modelEnd struct {
	t      testing.TB
	conn   net.Conn
	framer *xhttp2.Framer
	slow   bool // in reading
	// onHead is called by the reading goroutine, with mu held, for the first head of a stream.
	onHead func(s *modelStream)

	writing sync.Mutex
	// writing guards what is sent, and the fields below.
	encoder *hpack.Encoder
	block   bytes.Buffer

	mu sync.Mutex
	// mu guards the fields below, and those of the streams.
	random     *rand.Rand
	changed    *sync.Cond
	streams    map[uint32]*modelStream
	over       bool  // the connection has ended
	calm       bool  // everything is granted at once
	window     int64 // bytes of bodies that may be sent
	initial    int64 // window of a new stream, for sending
	granted    int64 // bytes of bodies that may arrive
	owed       int64
	limits     []int64        // SETTINGS_INITIAL_WINDOW_SIZE: the acknowledged one, and those sent since
	settled    int            // frames of SETTINGS that were acknowledged
	lastServed uint32         // of GOAWAY that was sent; 0: none
	queue      []func() error // frames to send, in order
}

type modelStream struct {
	end *modelEnd
	id  uint32
	key int // of the body that arrives; -1: any

	window  int64 // for sending
	updates int64 // granted beyond the initial window
	owed    int64
	arrived int64 // bytes, with padding

	opened   bool
	length   int // of the body that has arrived
	path     string
	statuses []string
	header   map[string]string
	trailer  map[string]string
	ended    bool // by END_STREAM
	reset    bool // by sluice
	canceled bool // by this end
	code     xhttp2.ErrCode
}

// modelBody returns the n bytes of the body with this key.
func modelBody(key, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((i + key) % 251)
	}
	return b
}

func newModelEnd(t testing.TB, conn net.Conn, random *rand.Rand) *modelEnd {
	e := &modelEnd{
		t: t, conn: conn, framer: xhttp2.NewFramer(&choppedWriter{conn, random.IntN(2) == 0, rand.New(rand.NewPCG(random.Uint64(), 4))}, conn), random: random, streams: make(map[uint32]*modelStream),
		window: http2.InitialWindow, initial: http2.InitialWindow, granted: http2.InitialWindow, limits: []int64{http2.InitialWindow},
	}
	e.changed = sync.NewCond(&e.mu)
	e.encoder = hpack.NewEncoder(&e.block)
	e.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	e.slow = random.IntN(3) == 0
	return e
}

// A choppedWriter divides some of the frames that are written, if chops is set.
type choppedWriter struct {
	io.Writer
	chops  bool
	random *rand.Rand
}

func (w *choppedWriter) Write(b []byte) (n int, err error) {
	if w.chops && len(b) > 1 && w.random.IntN(4) == 0 {
		if n, err = w.Writer.Write(b[:1+w.random.IntN(len(b)-1)]); err != nil {
			return n, err
		}
		runtime.Gosched()
	}
	rest, err := w.Writer.Write(b[n:])
	return n + rest, err
}

// modelServerSide returns conn without its TLS, if the client uses that.
func modelServerSide(conn net.Conn) (net.Conn, error) {
	const handshake = 22 // the type of the first record
	r := bufio.NewReader(conn)
	first, err := r.Peek(1)
	conn = peekedConn{conn, r}
	if err == nil && first[0] == handshake {
		conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{socket.ALPNHTTP2}})
	}
	return conn, err
}

// A peekedConn reads the bytes of r first.
type peekedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c peekedConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// one reports the result of one of n throws.
func (e *modelEnd) one(n int) bool { return e.random.IntN(n) == 0 }

func (e *modelEnd) of(id uint32) *modelStream {
	s := e.streams[id]
	if s == nil {
		s = &modelStream{end: e, id: id, key: -1, window: e.initial}
		e.streams[id] = s
	}
	return s
}

// read reads frames until the connection ends.
func (e *modelEnd) read() {
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.over = true
		e.changed.Broadcast()
	}()
	for {
		for i := 0; e.slow && i < 50; i++ {
			runtime.Gosched()
		}
		frame, err := e.framer.ReadFrame()
		if err != nil {
			var network *net.OpError
			verify.That(e.t, errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network), "a frame of sluice: %v", err)
			return
		}
		e.mu.Lock()
		e.process(frame)
		if !e.calm && e.one(4) {
			e.disturb()
		}
		e.changed.Broadcast()
		e.mu.Unlock()
		e.flush()
	}
}

// push queues a frame. mu is held.
func (e *modelEnd) push(frame func() error) { e.queue = append(e.queue, frame) }

// flush sends the queued frames.
func (e *modelEnd) flush() {
	e.writing.Lock()
	defer e.writing.Unlock()
	for {
		e.mu.Lock()
		frames := e.queue
		e.queue = nil
		e.mu.Unlock()
		if len(frames) == 0 {
			return
		}
		for _, frame := range frames {
			frame()
		}
	}
}

// write sends the frames of s that f writes, unless s has been reset.
func (e *modelEnd) write(s *modelStream, f func() error) error {
	e.writing.Lock()
	defer e.writing.Unlock()
	e.mu.Lock()
	gone := s.reset || s.canceled || e.over || e.lastServed > 0 && s.id > e.lastServed
	e.mu.Unlock()
	if gone {
		return io.ErrClosedPipe
	}
	return f()
}

// process processes a frame of sluice. mu is held.
func (e *modelEnd) process(frame xhttp2.Frame) {
	id := frame.Header().StreamID
	switch f := frame.(type) {
	case *xhttp2.DataFrame:
		s, length := e.of(id), int64(f.Length)
		verify.That(e.t, !s.ended, "DATA after the end of stream %d", id)
		if e.granted -= length; e.granted < 0 {
			e.t.Errorf("DATA of %d exceeds the window of the connection by %d", length, -e.granted)
		}
		if s.arrived += length; length > 0 && s.arrived > slices.Max(e.limits)+s.updates {
			e.t.Errorf("DATA of %d exceeds the window of stream %d: %d of %d and %v", length, id, s.arrived, s.updates, e.limits)
		}
		for i, b := range f.Data() {
			if s.key >= 0 && b != byte((s.length+i+s.key)%251) {
				e.t.Errorf("stream %d has another byte at %d", id, s.length+i)
				break
			}
		}
		s.length += len(f.Data())
		s.ended = f.StreamEnded()
		e.owed, s.owed = e.owed+length, s.owed+length
		if e.calm || e.one(2) {
			e.grant(nil, e.owed)
			e.grant(s, s.owed)
		}
	case *xhttp2.MetaHeadersFrame:
		s := e.of(id)
		verify.That(e.t, !s.ended, "HEADERS after the end of stream %d", id)
		fields := make(map[string]string)
		for _, field := range f.Fields {
			fields[field.Name] = field.Value
		}
		verify.That(e.t, len(fields) != 0, "an empty field block on stream %d", id)
		s.ended = f.StreamEnded()
		switch status := fields[":status"]; {
		case s.header != nil:
			s.trailer = fields
		case strings.HasPrefix(status, "1"):
			s.statuses = append(s.statuses, status)
		default:
			s.statuses, s.header, s.opened = append(s.statuses, status), fields, true
			e.onHead(s)
		}
	case *xhttp2.RSTStreamFrame:
		s := e.of(id)
		s.reset, s.code = true, f.ErrCode
	case *xhttp2.WindowUpdateFrame:
		if id == 0 {
			e.window += int64(f.Increment)
		} else {
			e.of(id).window += int64(f.Increment)
		}
	case *xhttp2.SettingsFrame:
		if f.IsAck() {
			if e.settled++; e.settled > 1 { // the first one is of no settings
				e.limits = e.limits[1:]
			}
			break
		}
		if v, ok := f.Value(xhttp2.SettingInitialWindowSize); ok {
			for _, s := range e.streams {
				s.window += int64(v) - e.initial
			}
			e.initial = int64(v)
		}
		e.push(e.framer.WriteSettingsAck)
	case *xhttp2.PingFrame:
		if !f.IsAck() {
			data := f.Data
			e.push(func() error { return e.framer.WritePing(true, data) })
		}
	case *xhttp2.GoAwayFrame:
		verify.Equal(e.t, f.ErrCode, xhttp2.ErrCodeNo, "GOAWAY with")
	}
}

// grant enlarges the window of s, or that of the connection if s is nil. mu is held.
func (e *modelEnd) grant(s *modelStream, n int64) {
	id := uint32(0)
	switch {
	case s == nil:
		e.granted, e.owed = e.granted+n, max(e.owed-n, 0)
	case !s.opened || s.ended || s.reset || s.canceled:
		n = 0
	default:
		id, s.updates, s.owed = s.id, s.updates+n, max(s.owed-n, 0)
	}
	if n > 0 {
		e.push(func() error { return e.framer.WriteWindowUpdate(id, uint32(n)) })
	}
}

// limit sets the window of streams. mu is held.
func (e *modelEnd) limit(n int64) {
	e.limits = append(e.limits, n)
	e.push(func() error {
		return e.framer.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: uint32(n)})
	})
}

// disturb sends a frame that has nothing to do with the others. mu is held.
func (e *modelEnd) disturb() {
	switch e.random.IntN(8) {
	case 0, 1:
		sizes := []int64{0, 0, 1, 100, 20_000, http2.InitialWindow, 200_000}
		e.limit(sizes[e.random.IntN(len(sizes))])
	case 2:
		e.grant(nil, 1+e.random.Int64N(50_000))
	case 3, 4:
		for _, s := range e.streams {
			e.grant(s, 1+e.random.Int64N(50_000))
			break
		}
	case 5:
		e.push(func() error { return e.framer.WritePing(false, [8]byte{9}) })
	case 6:
		e.push(func() error { return e.framer.WriteRawFrame(0x77, 0xff, 0, []byte("unknown")) })
	case 7:
		id := uint32(1)
		for _, s := range e.streams {
			id = s.id
		}
		e.push(func() error { return e.framer.WriteRawFrame(xhttp2.FramePriority, 0, id, []byte{0, 0, 0, 0, 7}) })
	}
}

// calmDown grants all that is needed from now on.
func (e *modelEnd) calmDown() {
	e.mu.Lock()
	e.calm = true
	e.limit(1 << 20)
	e.grant(nil, 1<<24)
	for _, s := range e.streams {
		e.grant(s, s.owed)
	}
	e.mu.Unlock()
	e.flush()
}

// headers sends a field block of pairs of names and values, in random parts.
func (e *modelEnd) headers(s *modelStream, ends bool, fields ...string) error {
	e.mu.Lock()
	parts := 1
	if e.one(4) {
		parts = 1 + e.random.IntN(5)
	}
	padding := uint8(0)
	if e.one(4) {
		padding = uint8(e.random.IntN(200))
	}
	e.mu.Unlock()
	return e.write(s, func() error {
		e.block.Reset()
		for i := 0; i < len(fields); i += 2 {
			e.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		block := e.block.Bytes()
		parts = max(parts, (len(block)+9_999)/10_000)
		for i := range parts {
			part, last := block[i*len(block)/parts:(i+1)*len(block)/parts], i == parts-1
			var err error
			if i == 0 {
				err = e.framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: s.id, BlockFragment: part, EndStream: ends, EndHeaders: last, PadLength: padding})
			} else {
				err = e.framer.WriteContinuation(s.id, last, part)
			}
			if err != nil {
				return err
			}
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		s.opened = true
		return nil
	})
}

// send sends body in random frames, as far as the windows allow, and then the trailer section, if
// there is one. ends: that ends the stream. It returns early if sluice or this end resets it.
func (e *modelEnd) send(s *modelStream, body []byte, ends bool, trailer ...string) error {
	for first := true; first || len(body) > 0; first = false {
		e.mu.Lock()
		for len(body) > 0 && min(e.window, s.window) <= 0 && !s.reset && !s.canceled && !e.over {
			e.changed.Wait()
		}
		if s.reset || s.canceled || e.over {
			e.mu.Unlock()
			return io.ErrClosedPipe
		}
		n, padding := 0, 0
		if len(body) > 0 && !e.one(20) {
			allowed := min(e.window, s.window, http2.MaxFrameBytes)
			n = int(min(int64(len(body)), 1+e.random.Int64N(allowed)))
			if room := int(allowed) - n - 1; room > 0 && e.one(4) {
				padding = e.random.IntN(min(room, 100)) + 1
			}
		}
		cost := n
		if padding > 0 {
			cost += padding + 1
		}
		e.window, s.window = e.window-int64(cost), s.window-int64(cost)
		last := ends && n == len(body) && len(trailer) == 0 && (n == 0 || !e.one(4))
		part := body[:n]
		body = body[n:]
		more := ends && len(trailer) == 0 && len(body) == 0 && !last
		e.mu.Unlock()
		err := e.write(s, func() error {
			if padding > 0 {
				return e.framer.WriteDataPadded(s.id, last, part, make([]byte, padding))
			}
			return e.framer.WriteData(s.id, last, part)
		})
		if err == nil && more {
			err = e.write(s, func() error { return e.framer.WriteData(s.id, true, nil) })
		}
		if err == io.ErrClosedPipe { // it was not sent
			e.mu.Lock()
			e.window += int64(cost)
			e.mu.Unlock()
		}
		if err != nil {
			return err
		}
	}
	if len(trailer) > 0 {
		return e.headers(s, true, trailer...)
	}
	return nil
}

// resetStream ends s with code.
func (e *modelEnd) resetStream(s *modelStream, code xhttp2.ErrCode) {
	e.write(s, func() error {
		e.mu.Lock()
		s.canceled = true
		e.changed.Broadcast()
		e.mu.Unlock()
		return e.framer.WriteRSTStream(s.id, code)
	})
}

// sendGoAway sends GOAWAY, once. Streams that arrive later are not served.
func (e *modelEnd) sendGoAway() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lastServed > 0 {
		return
	}
	for id := range e.streams {
		e.lastServed = max(e.lastServed, id)
	}
	last := e.lastServed
	e.push(func() error { return e.framer.WriteGoAway(last, xhttp2.ErrCodeNo, nil) })
}

// await waits until sluice has ended s, or the connection has ended. It reports whether all of s
// has arrived.
func (e *modelEnd) await(s *modelStream) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for !s.ended && !s.reset && !s.canceled && !e.over {
		e.changed.Wait()
	}
	return s.ended
}

func (s *modelStream) String() string {
	return fmt.Sprintf("%s: statuses %v, %v, %d bytes, trailer %v, ended %t, reset %t (%v)", s.path, s.statuses, s.header, s.length, s.trailer, s.ended, s.reset, s.code)
}
