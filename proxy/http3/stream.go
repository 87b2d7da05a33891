package http3

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/observe/panics"
	"sluice/proxy/fields"
	"sluice/proxy/socket"
)

// A Stream is the stream of a request (RFC 9114, section 4.1). It is reusable: Open begins the next
// request. One goroutine may read and one may write at a time.
//
// A read that waits has no buffer. Reads and writes end with the deadlines of Entry, with
// os.ErrDeadlineExceeded, and with [socket.ErrClosedEarly] if the client has reset the stream or
// the connection has ended. A read can also end with an [Error] or a [StreamError].
type Stream struct {
	// Delayed says that a write has waited for the client.
	Delayed bool
	// Trailer is the trailer section as lines of HTTP/1.1, once Take has returned the end.
	Trailer []byte
	// Received says that the end of the request was read.
	Received bool
	// OnlyData says that the request is a tunnel: it has no trailer section (RFC 9114, section
	// 4.4).
	OnlyData bool
	// Sent says that the end of the response was written.
	Sent atomic.Bool

	entry   *socket.SweepEntry
	sweeper *socket.Sweeper
	quic    *quic.Stream
	waits   waits

	finished bool   // the stream has no more bytes
	left     uint64 // of the DATA frame that is being read
	trailed  bool   // the trailer section was read
	canceled bool   // a read has found that the client has reset the stream
	maxBytes int    // of the trailer section
	patience func(moved bool) time.Duration
}

// waits are the reads and writes of a Stream as the connection of its entry: a sweeper may end them
// at any time, also those of the next request, which look whether their time is over.
type waits struct {
	of   atomic.Pointer[quic.Stream] // nil: none
	conn *Conn
}

// Init prepares a stream of a connection, whose waits are those of entry. maxTrailerBytes bounds
// trailer sections. patience returns how long a write may wait from now on; 0: no longer. moved:
// the client has taken bytes since the last call.
func (s *Stream) Init(c *Conn, entry *socket.SweepEntry, sweeper *socket.Sweeper, hint uint32, maxTrailerBytes int, patience func(moved bool) time.Duration) {
	s.entry, s.sweeper, s.maxBytes, s.patience = entry, sweeper, maxTrailerBytes, patience
	s.waits.conn = c
	sweeper.Add(entry, &s.waits, hint)
}

// Open begins a request.
func (s *Stream) Open(i Incoming) {
	s.quic, s.Delayed, s.Trailer, s.Received, s.OnlyData = i.stream, false, nil, false, false
	s.finished, s.left, s.trailed, s.canceled = false, 0, false, false
	s.Sent.Store(false)
	s.waits.of.Store(i.stream)
	s.entry.Resume()
}

// A Section is a decoded field section, with the memory for it.
type Section struct {
	Fields fields.Fields
	block  [16 << 10]byte
}

var sections = sync.Pool{New: func() any { return new(Section) }}

// Release gives the memory back.
func (s *Section) Release() { sections.Put(s) }

// ReadHead reads the field section of the request, of up to maxBytes and a list of up to listBytes;
// above them the error is [fields.ErrListTooLong]. The caller must call Release. ends: the request
// has no body, as far as the client has said so yet.
func (s *Stream) ReadHead(maxBytes, listBytes int) (head *Section, ends bool, err error) {
	t, length, err := s.readHeader()
	switch {
	case err == io.EOF:
		return nil, false, errIncomplete
	case err != nil:
		return nil, false, err
	case t != frameHeaders:
		return nil, false, errFrameUnexpected
	}
	head, err = s.readSection(length, maxBytes, listBytes)
	if err != nil {
		return nil, false, err
	}
	s.Received = s.finished
	return head, s.finished, nil
}

// soon is how long EndsSoon, WholeSoon and HeadSoon wait: some clients send the end of a request
// after the head or the body, in a frame of its own.
const soon = 5 * time.Millisecond

// peekSoon calls peek with a read deadline.
func (s *Stream) peekSoon(peek func()) {
	s.quic.SetReadDeadline(time.Now().Add(soon))
	peek()
	if !s.entry.ResumeRead() {
		s.quic.SetReadDeadline(socket.ALongTimeAgo)
	}
}

// EndsSoon reports whether the request ends here, without more frames. So a request without a body
// is known to have none. data: bytes of a body come first.
func (s *Stream) EndsSoon() (ends, data bool) {
	if s.Received {
		return true, false
	}
	s.peekSoon(func() {
		var b [maxFrameHeaderBytes]byte
		_, err := s.quic.Peek(b[:1])
		if ends = err == io.EOF; err == nil {
			_, length := s.peekHeader(b[:], frameData)
			data = length > 0
		}
	})
	if ends {
		s.finish()
		s.Received = true
	}
	return ends, data
}

// WholeSoon returns the length of the body if all of it and its end arrive soon, in one frame; else
// -1. It takes nothing of it.
func (s *Stream) WholeSoon() (length int64) {
	memory := sections.Get().(*Section)
	defer memory.Release()
	length = -1
	s.peekSoon(func() {
		b := memory.block[:]
		header, payload := s.peekHeader(b, frameData)
		if header == 0 || payload >= uint64(len(b)-header) {
			return
		}
		whole := header + int(payload)
		if n, err := s.quic.Peek(b[:whole+1]); err == io.EOF && n == whole {
			length = int64(payload)
		}
	})
	return length
}

// HeadSoon reports whether all of a head of usual length arrives soon. It takes nothing of it.
func (s *Stream) HeadSoon() (whole bool) {
	memory := sections.Get().(*Section)
	defer memory.Release()
	s.peekSoon(func() {
		b := memory.block[:]
		if header, payload := s.peekHeader(b, frameHeaders); header > 0 && payload <= uint64(len(b)-header) {
			n, _ := s.quic.Peek(b[:header+int(payload)])
			whole = n == header+int(payload)
		}
	})
	return whole
}

// peekHeader peeks the header of a frame of type t into b, and returns the lengths of the header
// and of the payload; 0: it is another frame, or does not arrive before the read deadline.
func (s *Stream) peekHeader(b []byte, t frameType) (header int, payload uint64) {
	if _, err := s.quic.Peek(b[:2]); err != nil || frameType(b[0]) != t {
		return 0, 0
	}
	header = 1 + lengthOfInteger(b[1])
	if _, err := s.quic.Peek(b[:header]); err != nil {
		return 0, 0
	}
	return header, integer(b[1:header])
}

// readSection reads the payload of HEADERS.
func (s *Stream) readSection(length uint64, maxBytes, listBytes int) (*Section, error) {
	if length > uint64(maxBytes) {
		return nil, fields.ErrListTooLong
	}
	var arrived []byte // if the client sends it in parts
	for {
		if length > 0 {
			if err := s.await(); err != nil {
				return nil, err
			}
		}
		section := sections.Get().(*Section)
		n, err := s.read(section.block[:min(len(section.block), int(length)-len(arrived))])
		block := section.block[:n]
		if err == nil && len(arrived)+n < int(length) {
			arrived = append(arrived, block...)
			section.Release()
			continue
		}
		if len(arrived) > 0 {
			block = append(arrived, block...)
		}
		if err == nil {
			err = section.Fields.DecodeQPACK(block, listBytes)
		}
		if err == fields.ErrCompression {
			err = errDecompression
		}
		if err != nil {
			section.Release()
			return nil, err
		}
		return section, nil
	}
}

// Await waits until a part of the body, or the end of the request, can be taken.
func (s *Stream) Await() error {
	for s.left == 0 && !s.Received {
		t, length, err := s.readHeader()
		switch {
		case err == io.EOF:
			s.Received = true
		case err != nil:
			return err
		case s.trailed, s.OnlyData && t != frameData:
			return errFrameUnexpected
		case t == frameData:
			s.left = length
		default:
			if err := s.readTrailer(length); err != nil {
				return err
			}
		}
	}
	if s.left == 0 {
		return nil
	}
	return s.await()
}

// readTrailer reads the trailer section.
func (s *Stream) readTrailer(length uint64) error {
	section, err := s.readSection(length, s.maxBytes, s.maxBytes)
	if err == nil {
		s.Trailer, err = section.Fields.AppendTrailer(nil)
		section.Release()
	}
	if err == fields.ErrMalformed || err == fields.ErrListTooLong {
		return &StreamError{MessageError, "malformed trailer section"}
	}
	s.trailed = true
	return err
}

// Take moves bytes of the body to b, after Await. last: the request has ended.
func (s *Stream) Take(b []byte) (n int, last bool, err error) {
	if s.left > 0 {
		n, err = s.read(b[:min(uint64(len(b)), s.left)])
		if s.left -= uint64(n); s.left == 0 && s.finished {
			s.Received = true
		}
	}
	return n, s.Received, err
}

// Left returns how many bytes of the body Take may return before the next frame.
func (s *Stream) Left() uint64 { return s.left }

// readHeader reads the header of the next frame, without those that are to be skipped; io.EOF:
// there is none.
func (s *Stream) readHeader() (t frameType, length uint64, err error) {
	for {
		if t, length, err = s.readAnyHeader(); err != nil || t == frameData || t == frameHeaders {
			return t, length, err
		}
		if t.isForControl() {
			return 0, 0, errFrameUnexpected
		}
		if err := s.skip(length); err != nil {
			return 0, 0, err
		}
	}
}

// readAnyHeader reads the header of a frame; io.EOF: there is none.
func (s *Stream) readAnyHeader() (t frameType, length uint64, err error) {
	if s.finished {
		return 0, 0, io.EOF
	}
	var b [maxFrameHeaderBytes]byte
	known, ofType := 2, 0 // the shortest header; the bytes of the type, once they are known
	for {
		n, err := s.peek(b[:known])
		switch {
		case err == io.EOF && n == 0:
			s.finish()
			return 0, 0, io.EOF
		case err == io.EOF:
			return 0, 0, errTruncated
		case err != nil:
			return 0, 0, err
		}
		ofType = lengthOfInteger(b[0])
		if known <= ofType {
			known = ofType + 1
			continue
		}
		if whole := ofType + lengthOfInteger(b[ofType]); known < whole {
			known = whole
			continue
		}
		break
	}
	for n := 0; n < known; {
		read, err := s.read(b[n:known])
		if err != nil {
			return 0, 0, err
		}
		n += read
	}
	t, length = frameType(integer(b[:ofType])), integer(b[ofType:known])
	if s.finished && length > 0 {
		return 0, 0, errTruncated
	}
	return t, length, nil
}

// skip reads the payload of a frame without a meaning.
func (s *Stream) skip(length uint64) error {
	var b [512]byte
	for length > 0 {
		n, err := s.read(b[:min(uint64(len(b)), length)])
		if err != nil {
			return err
		}
		length -= uint64(n)
	}
	return nil
}

// await waits for a byte of a frame.
func (s *Stream) await() error {
	if s.finished {
		return errTruncated
	}
	var b [1]byte
	_, err := s.peek(b[:])
	if err == io.EOF {
		s.finish()
		return errTruncated
	}
	return err
}

// finish takes the end of the stream, which a peek has found.
func (s *Stream) finish() {
	var b [1]byte
	s.quic.Read(b[:])
	s.finished = true
}

// peek fills b without taking the bytes. io.EOF: the stream ends before.
func (s *Stream) peek(b []byte) (n int, err error) {
	for {
		if n, err = s.quic.Peek(b); err == nil || err == io.EOF || !s.again(&err) {
			return n, err
		}
	}
}

// read reads what there is of a frame.
func (s *Stream) read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	if s.finished {
		return 0, errTruncated
	}
	for {
		n, err = s.quic.Read(b)
		switch {
		case err == nil:
			return n, nil
		case err == io.EOF:
			if s.finished = true; n == 0 {
				return 0, errTruncated
			}
			return n, nil
		case n > 0:
			return n, nil // the next read has the error again
		case !s.again(&err):
			return 0, err
		}
	}
}

// again reports whether a read that has failed goes on: its time was not over. Else it sets err to
// what the caller gets.
func (s *Stream) again(err *error) bool {
	if !errors.Is(*err, os.ErrDeadlineExceeded) {
		s.canceled = s.canceled || isReset(*err)
		*err = socket.ErrClosedEarly
		return false
	}
	if s.entry.Expired(s.sweeper) {
		*err = os.ErrDeadlineExceeded
		return false
	}
	return true
}

// maxWriteBytes is how much is written in one piece: only after it a slow client is seen to move.
const maxWriteBytes = 16 << 10

// Write writes b, and the end of the response if ends. After an interruption it writes what the
// client takes at once.
func (s *Stream) Write(b []byte, ends bool) error {
	defer s.entry.WriteDeadline.Store(0)
	begun := s.sweeper.Now()
	left := s.patience(true)
	for len(b) > 0 {
		s.entry.ArmWrite(s.sweeper.Exact() + int64(left))
		n, err := s.write(b[:min(len(b), maxWriteBytes)])
		b = b[n:]
		switch {
		case err == nil:
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return socket.ErrClosedEarly
		}
		if left = s.patience(n > 0); left <= 0 || !s.entry.ResumeWrite() {
			s.Delayed = true
			return os.ErrDeadlineExceeded
		}
	}
	s.Delayed = s.Delayed || s.sweeper.Now()-begun > int64(socket.SweepInterval)
	if ends {
		s.Sent.Store(true)
		s.quic.Close()
	}
	return nil
}

// write writes b. It waits for the client unless the stream was interrupted.
func (s *Stream) write(b []byte) (n int, err error) {
	if n, err = s.quic.Write(b); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !s.entry.Interrupted.Load() {
		return n, err
	}
	switch err := s.quic.TryWriteAll(b); err {
	case nil:
		return len(b), nil
	case quic.ErrWouldBlock:
		return 0, os.ErrDeadlineExceeded
	default:
		return 0, err
	}
}

// Reset ends both directions with an error, as far as they have not ended.
func (s *Stream) Reset(code ErrorCode) {
	s.quic.CancelWrite(quic.StreamErrorCode(code))
	s.quic.CancelRead(quic.StreamErrorCode(code))
}

// Close ends the request: what the client may still send is not needed. Then the client may open
// another stream. The stream is not used before the next Open.
func (s *Stream) Close() {
	s.waits.of.Store(nil)
	if !s.finished {
		s.quic.CancelRead(quic.StreamErrorCode(NoError))
	}
	s.waits.conn.release(s.quic)
	s.quic = nil
}

// IsGone reports whether the client has given up the request, or its connection has ended. It is
// safe for concurrent use.
func (s *Stream) IsGone() bool {
	q := s.waits.of.Load()
	return q != nil && !s.Sent.Load() && q.Context().Err() != nil
}

// OnStopped calls f in a goroutine of its own once the client takes no more of the response, also
// if nothing is written to it. The caller must call stop before Close; f is not called after it.
func (s *Stream) OnStopped(f func()) (stop func()) {
	called := make(chan struct{})
	cancel := context.AfterFunc(s.quic.Context(), func() {
		defer close(called)
		defer panics.Contain(panics.Tunnel, nil)
		if !s.Sent.Load() {
			f()
		}
	})
	return func() {
		if !cancel() {
			<-called
		}
	}
}

// Canceled reports whether the client has reset one of the directions, as far as that was seen.
func (s *Stream) Canceled() bool {
	return s.canceled || isReset(context.Cause(s.quic.Context()))
}

// isReset reports whether err says that the client has reset a stream, or stopped one.
func isReset(err error) bool {
	var reset *quic.StreamError
	return errors.As(err, &reset) && reset.Remote
}

// Read and Write implement net.Conn: nobody calls them.
func (w *waits) Read([]byte) (int, error)  { return 0, errors.ErrUnsupported }
func (w *waits) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }
func (w *waits) Close() error              { return errors.ErrUnsupported }

func (w *waits) LocalAddr() net.Addr  { return w.conn.LocalAddr() }
func (w *waits) RemoteAddr() net.Addr { return w.conn.RemoteAddr() }

func (w *waits) SetReadDeadline(t time.Time) error {
	if q := w.of.Load(); q != nil {
		return q.SetReadDeadline(t)
	}
	return nil
}

func (w *waits) SetWriteDeadline(t time.Time) error {
	if q := w.of.Load(); q != nil {
		return q.SetWriteDeadline(t)
	}
	return nil
}

func (w *waits) SetDeadline(t time.Time) error {
	return errors.Join(w.SetReadDeadline(t), w.SetWriteDeadline(t))
}
