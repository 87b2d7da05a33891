package proxy

import (
	"context"
	"errors"
	"time"

	"sluice/balancer"
	"sluice/proxy/http1"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
)

// A connector provides the upstreams to one peer. Each peer protocol has one type of it;
// a service's [balancer.Options.NewTransport] selects it. It is safe for concurrent
// use.
type connector interface {
	balancer.Transport
	// connect returns an upstream for one request: on an existing connection or on a
	// new one, which took connectTime. stale, if not nil, is an upstream whose
	// closedIdle returned true; connect finishes it, and uses a new connection.
	connect(ctx context.Context, r requirements, stale upstream) (u upstream, connectTime time.Duration, err error)
	// closeIdle closes the connections whose idle timeout has passed. now is coarse
	// time.
	closeIdle(now int64)
	// usesTLS reports whether new connections use TLS.
	usesTLS() bool
}

// requirements are what an exchange requires of an upstream.
type requirements struct {
	picked      time.Time     // when the peer was
	timeout     time.Duration // of opening a connection
	deadline    time.Time     // when the client no longer waits; zero: unknown
	pause       time.Duration // the longest pause in taking a streamed body
	client      *upstreamClient
	keepForGone bool // the exchange is completed also if the client closes its connection
	webSocket   bool // the request asks for WebSocket
}

// An upstream is the peer's side of a try. Each peer protocol has one upstream type.
// It takes the request and provides the response, both with a head in HTTP/1.1 text.
// The user must call finish, or pass it to connect, exactly once. No other part of the
// package knows the wire protocol of the peer.
type upstream interface {
	transfer.Sink   // for the body of the request
	transfer.Source // of the response's body; the first ReadBody does not wait

	// send sends a request with the head b.out and the whole body, and waits for a
	// response as await does. It gives b back while it waits and if it fails. sent reports
	// whether a part of the request may have reached the peer. body must not change until
	// the upstream is finished. trailer follows the body if the protocol has trailer
	// sections after a body with a Content-Length.
	send(b *socket.Buffers, body, trailer []byte, w until) (sent bool, err error)
	// sendHead sends the head b.out of a request whose body follows by WriteBody.
	// answered: the peer has responded already and takes no body.
	sendHead(b *socket.Buffers, chunked bool) (answered, sent bool, err error)
	// await waits for the first bytes of a response. It gives b back while it waits. It
	// fails with errPatience or errSuspected if w says so; then it may be called again,
	// and continues the wait.
	await(b *socket.Buffers, w until) error
	// waitAtMost sets the timeout of waits for the peer.
	waitAtMost(timeout time.Duration)
	// Interrupt ends all present and future waits for the peer. It is safe for
	// concurrent use.
	Interrupt()

	// readHead reads the head of the next response, interim or final, and scans it
	// into head. text is in b, and valid until startBody.
	readHead(b *socket.Buffers, head *http1.ResponseHead) (text []byte, err error)
	// startBody prepares ReadBody after a final response with that head. It may wait
	// shortly for the start of the body, and then keeps text.
	startBody(b *socket.Buffers, head *http1.ResponseHead, text []byte, bodiless bool) error

	// bodyPauses waits up to patience until ReadBody does not wait, and reports whether it
	// still would. It gives b back while it waits.
	bodyPauses(b *socket.Buffers, patience time.Duration) (bool, error)

	// closedIdle reports whether the peer may have closed the connection while it was
	// idle, given err, and whether that is likely enough not to count as a failure.
	closedIdle(err error) (maybe, likely bool)
	// finish releases the upstream. complete: both messages are complete. Otherwise
	// the exchange with the peer is canceled.
	finish(complete bool)

	// tunnel returns the connection for the bytes after a protocol switch, and those
	// that were read with the head.
	tunnel(b *socket.Buffers) (end socket.TunnelEnd, late []byte)
}

// An until says what ends a wait for a peer's answer, besides what always does: see wake.
// The zero value is nothing else.
type until struct {
	patience time.Duration // how long send waits, if above 0: then errPatience
	// suspicion: errSuspected when health checks of the peer have begun to fail since the
	// peer was picked.
	suspicion bool
	changed   <-chan struct{} // errSuspected when it is closed, where suspicion was before
}

// isOver reports whether changed is closed.
func (w *until) isOver() bool {
	select {
	case <-w.changed:
		return true
	default:
		return false
	}
}

// errPatience ends a wait for a hedge. The exchange on the upstream continues.
var errPatience = errors.New("no response yet")

// errSuspected ends a wait because health checks of the peer have begun to fail. The
// exchange on the upstream continues.
var errSuspected = errors.New("health checks of the peer fail")
