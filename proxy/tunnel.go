package proxy

import (
	"errors"
	"sync/atomic"
	"time"

	"sluice/balancer"
	"sluice/observe/metrics"
	"sluice/observe/panics"
	"sluice/route"
)

// receiveTunnel forwards the 101 response, whose head is x.out, and then all bytes in both
// directions until the tunnel ends. It closes u.
func (x *httpExchange) receiveTunnel(u upstream) balancer.Outcome {
	defer x.finish(u, false)
	up, late := u.tunnel(&x.buffers)
	t := tunnel{
		up: up, sweeper: x.client.server.sweeper, timeouts: tunnelTimeouts(x.service.Timeouts),
		requests: x.service.Pool.Requests(), shard: x.client.shard,
	}
	t.client = x.client.front.tunnel(&t)
	outcome := balancer.Outcome{Class: balancer.OutcomeOK, Status: x.response.Status, Latency: x.upstreamTime - x.picked.Sub(x.startTime)}
	x.status = x.response.Status
	early := x.in[x.start+x.headLength : x.end]
	x.bodyLength = len(early)
	if x.toClient(piece{text: late}) != nil {
		return outcome
	}
	x.bytesOut, x.counted = int64(len(late)), true
	if noted := x.tried.of(x.token.Peer); noted != nil {
		noted.connect, noted.status = x.connectTime, x.upstreamStatus
	}
	x.record(x.upstreamTime) // of the handshake
	t.requests.Transfer(t.shard, 0, x.bytesOut)
	x.giveBack()
	if cut := t.run(early, &x.bytesIn, &x.bytesOut); cut != nil {
		x.interrupted = cutReason(cut)
		x.client.front.cut()
	}
	return outcome
}

// A tunnel forwards bytes in both directions, after a protocol switch (RFC 9110,
// section 7.8) or for a stream. It ends when both sides have closed their sending
// sides, when a connection breaks, or when neither has sent bytes within the timeout.
// Its attempt stays in flight.
type tunnel struct {
	client   tunnelEnd
	up       tunnelEnd
	sweeper  *sweeper
	timeouts idleTimeouts
	requests *metrics.Requests // counts the bytes as they are forwarded
	shard    uint32

	active     atomic.Int64 // coarse time of the last byte
	halfClosed atomic.Bool
	cutBy      atomic.Pointer[error] // why it was cut; nil: it was not
}

// idleTimeouts bound the time without a byte in either direction.
type idleTimeouts struct {
	open       time.Duration
	halfClosed time.Duration // after one side has closed its sending side, which counts as a byte
}

// A tunnelEnd is one of the two ends of a tunnel: a connection, or a stream of HTTP/2.
type tunnelEnd struct {
	wire                // of a connection
	stream *http2Stream // nil: a connection
	entry  *sweepEntry
}

// isPlain reports whether e is a connection without TLS.
func (e *tunnelEnd) isPlain() bool { return e.stream == nil && e.tls == nil }

// closeWrite closes the sending side.
func (e *tunnelEnd) closeWrite() error {
	if e.stream != nil {
		return e.stream.sendTunnel(nil, true)
	}
	return e.wire.closeWrite()
}

// errIdle means that a tunnel has timed out.
var errIdle = errors.New("no byte within the idle timeout")

// brokenEnd is the error of the end that broke.
type brokenEnd struct {
	client bool // else the peer's
	error
}

func (e brokenEnd) Unwrap() error { return e.error }

// resetOnClose makes the close of a connection a reset. A stream whose two directions
// have not ended is always reset.
func (e *tunnelEnd) resetOnClose() {
	if e.stream == nil {
		resetOnClose(e.conn)
	}
}

// cutReason returns why a tunnel ended before both sides had closed their sending
// sides; cut is the result of run. "": it did not.
func cutReason(cut error) string {
	var broken brokenEnd
	switch {
	case cut == nil:
		return ""
	case cut == errIdle:
		return "idle_timeout"
	case cut == errPanicked:
		return refusalInternal.reason
	case !errors.As(cut, &broken):
		return "drain_timeout"
	case broken.client:
		return "client_gone"
	}
	return "upstream_reset"
}

// run forwards until the tunnel has ended, and adds the number of bytes to in and out.
// early is what the client sent before. cut is nil if both sides closed their sending
// sides; else it is errIdle, a brokenEnd, or net.ErrClosed if a connection was closed
// by another goroutine, and both connections are reset when they are closed: the end of
// what was cut must not look like the end of the bytes.
func (t *tunnel) run(early []byte, in, out *int64) (cut error) {
	t.active.Store(t.sweeper.now())
	up := newRelay(t, t.client, t.up, in)
	up.fromClient = true
	down := newRelay(t, t.up, t.client, out)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer panics.Contain(panics.Tunnel, nil)
		up.forward(early)
	}()
	down.forward(nil)
	<-ended
	for _, e := range [...]*sweepEntry{t.client.entry, t.up.entry} {
		e.disarm()
		e.writeDeadline.Store(0)
	}
	err := t.cutBy.Load()
	if err == nil {
		return nil
	}
	t.client.resetOnClose()
	t.up.resetOnClose()
	return *err
}

// cut ends both directions.
func (t *tunnel) cut(err error) {
	t.cutBy.CompareAndSwap(nil, &err)
	t.up.entry.interrupt()
	t.client.entry.interrupt()
}

// touch records that bytes were moved.
func (t *tunnel) touch() {
	if now := t.sweeper.now(); t.active.Load() != now {
		t.active.Store(now)
	}
}

// left returns how long the tunnel may be idle from now on.
func (t *tunnel) left(now int64) time.Duration {
	timeout := t.timeouts.open
	if t.halfClosed.Load() {
		timeout = t.timeouts.halfClosed
	}
	return time.Duration(t.active.Load() + int64(timeout) - now)
}

// tunnelTimeouts returns the idle timeouts of the tunnels of a service.
func tunnelTimeouts(t route.Timeouts) idleTimeouts {
	return idleTimeouts{open: t.Tunnel, halfClosed: min(t.Tunnel, t.Idle)}
}
