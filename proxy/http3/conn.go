package http3

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"sluice/observe/panics"
)

// A Conn is a connection of a client, after its handshake. Its deadlines end AcceptStream: it is a
// net.Conn as far as a [socket.SweepEntry] needs one, and neither reads nor writes. It is safe for
// concurrent use, except Begin and AcceptStream.
type Conn struct {
	quic     *quic.Conn
	endpoint *Endpoint
	accept   deadline
	streams  int // that may be open at a time
	control  *quic.SendStream
	uni      uniStreams
	next     uint64 // the id of the next request
	work     sync.WaitGroup
	fault    atomic.Pointer[Error]
	closed   sync.Once

	mu sync.Mutex
	// mu guards the fields below.
	lent  int            // requests whose credit the client has not got back
	ended []*quic.Stream // those of them that have ended
}

// creditBatch is how many requests end before the client gets their credit back: each time costs a
// packet, and another one that confirms it. A client with little credit gets it at once.
const creditBatch = 16

// lend counts a request.
func (c *Conn) lend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lent++
	c.releaseInTimeLocked()
}

// release gives the credit of a request back, soon.
func (c *Conn) release(s *quic.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = append(c.ended, s)
	c.releaseInTimeLocked()
}

func (c *Conn) releaseInTimeLocked() {
	if len(c.ended) >= creditBatch || len(c.ended) > 0 && c.lent > c.streams-2*creditBatch {
		c.releaseLocked()
	}
}

// ReleaseCredit gives the credit of all requests back that have ended.
func (c *Conn) ReleaseCredit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.releaseLocked()
	c.ended = nil
}

func (c *Conn) releaseLocked() {
	for _, s := range c.ended {
		s.ReleaseStreamCredit()
	}
	c.lent -= len(c.ended)
	clear(c.ended)
	c.ended = c.ended[:0]
}

// Begin sends the settings, and reads the client's. maxSectionBytes is the limit of field sections,
// by the size of lists (RFC 9114, section 4.2.2). The caller must call Close in the end.
func (c *Conn) Begin(maxSectionBytes int) error {
	if err := c.sendSettings(maxSectionBytes); err != nil {
		return err
	}
	c.work.Go(func() {
		defer panics.Contain(panics.Connection, c.Abort)
		c.acceptUniStreams()
	})
	return nil
}

// TLS returns what the handshake has agreed on.
func (c *Conn) TLS() tls.ConnectionState { return c.quic.ConnectionState().TLS }

// Remote returns the client's address now: it may change (RFC 9000, section 9).
func (c *Conn) Remote() netip.Addr { return addressOf(c.quic.RemoteAddr()) }

// RoundTrip returns how long a packet to the client and its acknowledgement take.
func (c *Conn) RoundTrip() time.Duration { return c.quic.ConnectionStats().SmoothedRTT }

// Incoming is the stream of a request that is neither opened by [Stream.Open] nor rejected yet.
type Incoming struct {
	stream *quic.Stream
	conn   *Conn
}

// AcceptStream returns the stream of the next request. The error is os.ErrDeadlineExceeded after
// the read deadline, and else says why the connection has ended.
func (c *Conn) AcceptStream() (Incoming, error) {
	s, err := c.quic.AcceptStream(c.accept.context())
	switch {
	case err == nil:
		c.next = uint64(s.StreamID()) + 4
		c.lend()
		return Incoming{s, c}, nil
	case errors.Is(err, context.Canceled):
		return Incoming{}, os.ErrDeadlineExceeded
	}
	if fault := c.fault.Load(); fault != nil {
		return Incoming{}, fault
	}
	return Incoming{}, err
}

// Reject rejects a request that was not read: the client may repeat it (RFC 9114, section 4.1.1).
func (i Incoming) Reject() {
	i.stream.CancelRead(quic.StreamErrorCode(RequestRejected))
	i.stream.CancelWrite(quic.StreamErrorCode(RequestRejected))
	i.conn.release(i.stream)
}

// AnnounceGoAway tells the client to open no more streams; those on the way are served (RFC 9114,
// section 5.2).
func (c *Conn) AnnounceGoAway() { c.sendGoAway(1<<62 - 4) }

// GoAway names the last request that is served. Later ones must be rejected.
func (c *Conn) GoAway() { c.sendGoAway(c.next) }

func (c *Conn) sendGoAway(id uint64) {
	out := []byte{byte(frameGoAway), byte(quicvarint.Len(id))}
	// A client that gives no credit for its control stream learns it from the end.
	_ = c.control.TryWriteAll(quicvarint.Append(out, id))
}

// Fault returns the fault of the client that has ended the connection; nil: none.
func (c *Conn) Fault() *Error { return c.fault.Load() }

// CloseWith ends the connection because of a fault of the client; nil: there is none.
func (c *Conn) CloseWith(fault *Error) {
	if fault != nil && c.quic.Context().Err() == nil && c.fault.CompareAndSwap(nil, fault) {
		c.quic.CloseWithError(quic.ApplicationErrorCode(fault.Code), fault.Reason)
	}
}

// Abort ends the connection at once, with an error.
func (c *Conn) Abort() { c.quic.CloseWithError(quic.ApplicationErrorCode(InternalError), "") }

// Refuse ends a connection that has not begun.
func (c *Conn) Refuse() {
	c.quic.CloseWithError(quic.ApplicationErrorCode(ExcessiveLoad), "too many connections")
	c.leave()
}

// Close ends the connection, without an error unless it has one, and waits for its goroutines.
// What was not acknowledged is lost.
func (c *Conn) Close() error {
	err := c.quic.CloseWithError(quic.ApplicationErrorCode(NoError), "")
	c.work.Wait()
	c.leave()
	return err
}

func (c *Conn) leave() { c.closed.Do(c.endpoint.left) }

// AwaitEnd waits until the client has closed the connection, at most for a time. By then it has
// received the last answer, or never will.
func (c *Conn) AwaitEnd(timeout time.Duration) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-c.quic.Context().Done():
	case <-timer.C:
	}
}

// Read and Write implement net.Conn: there is nothing outside of streams.
func (c *Conn) Read([]byte) (int, error)  { return 0, errors.ErrUnsupported }
func (c *Conn) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

func (c *Conn) LocalAddr() net.Addr  { return c.quic.LocalAddr() }
func (c *Conn) RemoteAddr() net.Addr { return c.quic.RemoteAddr() }

// SetReadDeadline ends AcceptStream at a time; zero: it waits for ever.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.accept.set(t)
	return nil
}

func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is SetReadDeadline.
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

var _ net.Conn = (*Conn)(nil)

// addressOf returns the address of a net.UDPAddr as the limits know it.
func addressOf(a net.Addr) netip.Addr {
	if udp, ok := a.(*net.UDPAddr); ok {
		return udp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
