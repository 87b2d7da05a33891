// Package upstream is the peer's side of a try: the connections to peers, their pools and
// their TLS. A [Conn] takes a request and provides the response, with heads in HTTP/1.1 text;
// who uses it does not know the protocol of the peer.
package upstream

import (
	"context"
	"errors"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/proxy/http1"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
)

// A Connector provides the upstreams to one peer. It is safe for concurrent use.
type Connector interface {
	balancer.Transport
	// Connect returns an upstream for one request: on an existing connection or on a
	// new one, which took connectTime. stale, if not nil, is an upstream whose
	// ClosedIdle returned true; Connect finishes it, and uses a new connection.
	Connect(ctx context.Context, r Requirements, stale Conn) (u Conn, connectTime time.Duration, err error)
	// DialStream opens a connection for a stream, whatever the protocol. It is not in the pool, and
	// its user must call Finish(false).
	DialStream(ctx context.Context, picked time.Time, timeout time.Duration, shard uint32) (*HTTP1Conn, error)
	// CloseIdle closes the connections whose idle timeout has passed. now is coarse
	// time.
	CloseIdle(now int64)
	// Denial returns why the mesh has ended a connection to the peer with err; nil: it has not. A
	// peer that has rejected sluice's certificate may know it before: then Denial waits, with a
	// context of waiting.
	Denial(err error, waiting func(time.Duration) (context.Context, context.CancelFunc)) *discovery.Denial
	// Cut closes all connections, also those that are being opened. Their exchanges fail as if the
	// peer had closed them.
	Cut()
	// UsesTLS reports whether new connections use TLS.
	UsesTLS() bool
	// Connections returns how many connections are open: the ones that no exchange uses, and the
	// others.
	Connections() (idle, busy int)
}

// Requirements are what an exchange requires of an upstream.
type Requirements struct {
	Picked      time.Time     // when the peer was
	Timeout     time.Duration // of opening a connection
	Deadline    time.Time     // when the client no longer waits; zero: unknown
	Pause       time.Duration // the longest pause in taking a streamed body
	Client      *Client
	KeepForGone bool // the exchange is completed also if the client closes its connection
	Body        bool // the request has a body
	WebSocket   bool // the request asks for WebSocket
	Private     bool // the request authenticates its connection, which nobody else must use then
	HTTP2       bool // the protocol: without TLS by prior knowledge, and with TLS by ALPN
}

// A Conn is the peer's side of a try, an upstream. Each peer protocol has one type of it.
// It takes the request and provides the response, both with a head in HTTP/1.1 text.
// The user must call Finish, or pass it to Connect, exactly once.
type Conn interface {
	transfer.Sink   // for the body of the request
	transfer.Source // of the response's body; the first ReadBody does not wait

	// Send sends a request with the head b.out and the whole body, and waits for a
	// response as Await does. It gives b back while it waits and if it fails. sent reports
	// whether a part of the request may have reached the peer. body must not change until
	// the upstream is finished. trailer follows the body if the protocol has trailer
	// sections after a body with a Content-Length.
	Send(b *socket.Buffers, body, trailer []byte, w Until) (sent bool, err error)
	// SendHead sends the head b.out of a request whose body follows by WriteBody.
	// answered: the peer has responded already and takes no body.
	SendHead(b *socket.Buffers, chunked bool) (answered, sent bool, err error)
	// Await waits for the first bytes of a response. It gives b back while it waits. It
	// fails with ErrSuspected if w says so; then it may be called again, and continues the
	// wait, as after a timeout that WaitAtMost has prolonged.
	Await(b *socket.Buffers, w Until) error
	// WaitAtMost sets the timeout of waits for the peer.
	WaitAtMost(timeout time.Duration)
	// Interrupt ends all present and future waits for the peer. It is safe for
	// concurrent use.
	Interrupt()

	// HasSent reports whether all that Send was given was sent, so that body may change.
	HasSent() bool

	// ReadHead reads the head of the next response, interim or final, and scans it
	// into head. text is in b, and valid until StartBody.
	ReadHead(b *socket.Buffers, head *http1.ResponseHead) (text []byte, err error)
	// StartBody prepares ReadBody after a final response with that head. It may wait
	// shortly for the start of the body, and then keeps text.
	StartBody(b *socket.Buffers, head *http1.ResponseHead, text []byte, bodiless bool) error

	// BodyPauses waits up to patience until ReadBody does not wait, and reports whether it
	// still would. It gives b back while it waits.
	BodyPauses(b *socket.Buffers, patience time.Duration) (bool, error)

	// ClosedIdle reports whether the peer may have closed the connection while it was
	// idle, given err, and whether that is likely enough not to count as a failure.
	ClosedIdle(err error) (maybe, likely bool)
	// Finish releases the upstream. complete: both messages are complete. Otherwise
	// the exchange with the peer is canceled.
	Finish(complete bool)

	// Tunnel returns the connection for the bytes after a protocol switch, and those
	// that were read with the head.
	Tunnel(b *socket.Buffers) (end socket.TunnelEnd, late []byte)
}

// An Until says what ends a wait for a peer's answer, besides what always does: an answer, the
// timeout, the end of the connection, and Interrupt.
// The zero value is nothing else.
type Until struct {
	// Suspicion: ErrSuspected when health checks of the peer have begun to fail since the
	// peer was picked.
	Suspicion bool
	Changed   <-chan struct{} // ErrSuspected when it is closed, where suspicion was before
}

// ErrSuspected ends a wait because health checks of the peer have begun to fail. The
// exchange on the upstream continues.
var ErrSuspected = errors.New("health checks of the peer fail")

// ErrUnprocessed means that the peer has certainly not processed the request: it
// refused the stream, its GOAWAY excludes it, or the request was not sent.
var ErrUnprocessed = errors.New("the peer did not process the request")

// ErrRejected means that a healthy peer has refused the request as malformed.
var ErrRejected = errors.New("the peer considers the request malformed")

// ErrNoWebSocket means that the protocol of the peer has no WebSocket.
var ErrNoWebSocket = errors.New("requests for WebSocket are not sent to peers with HTTP/2")
