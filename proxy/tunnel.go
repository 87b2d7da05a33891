package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"sluice/balancer"
)

// receiveTunnel passes the 101 on and then whatever comes, until both sides
// have ended: x.from[:n] is the head and what came after it. It closes u.
func (x *httpExchange) receiveTunnel(u *upstreamConn, headLength, n int) balancer.Outcome {
	defer u.transport.discard(u)
	u.client.Store(nil) // one that closes its sending side is not gone
	outcome := balancer.Outcome{Class: balancer.OutcomeOK, Status: x.response.Status, Latency: x.upstreamTime - x.picked.Sub(x.startTime)}
	x.status, x.keepClient, x.begun, x.answered = x.response.Status, false, true, true
	x.framing = framingNone
	x.out = append(x.appendResponseHead(x.out[:0], x.from[:headLength]), x.from[headLength:n]...)
	early := x.in[x.start+x.headLength : x.end]
	x.bodyLength = len(early)
	if x.toClient(x.out) != nil {
		return outcome
	}
	t := tunnel{client: x.client, up: u, timeout: x.service.Timeouts.Tunnel}
	t.run(early, &x.bytesIn, &x.bytesOut)
	x.bytesOut += int64(n - headLength)
	return outcome
}

// A tunnel carries bytes both ways after the peer has agreed to another
// protocol, such as WebSocket (RFC 9110, section 7.8). It ends when both sides
// have closed their sending sides, when one breaks, or when neither has sent
// anything for the timeout. Its request is in flight all the time.
type tunnel struct {
	client  *clientConn
	up      *upstreamConn
	timeout time.Duration
}

// run returns when the tunnel has ended. early is what the client sent ahead.
func (t *tunnel) run(early []byte, in, out *int64) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if t.write(t.up.conn, early, in) {
			t.pipe(t.client.conn, t.up.conn, in)
		}
	}()
	t.pipe(t.up.conn, t.client.conn, out)
	<-ended
	t.client.disarm()
}

// pipe copies to the end, and passes the end on.
func (t *tunnel) pipe(from, to *net.TCPConn, copied *int64) {
	b := relayBuffers.Get().(*buffer)
	defer relayBuffers.Put(b)
	for {
		t.arm()
		n, err := from.Read(b.bytes)
		if !t.write(to, b.bytes[:n], copied) {
			return
		}
		switch {
		case err == nil || t.goesOn(err):
		case err == io.EOF && to.CloseWrite() == nil:
			return
		default:
			t.cut()
			return
		}
	}
}

// write writes all of b, or cuts the tunnel.
func (t *tunnel) write(to *net.TCPConn, b []byte, copied *int64) bool {
	for len(b) > 0 {
		t.arm()
		n, err := to.Write(b)
		b = b[n:]
		*copied += int64(n)
		if err != nil && !t.goesOn(err) {
			t.cut()
			return false
		}
	}
	return true
}

// arm puts the deadline off, for both directions.
func (t *tunnel) arm() {
	sweeper := t.up.transport.sweeper
	t.up.arm(sweeper, t.timeout)
	t.client.arm(sweeper, t.timeout)
}

// goesOn reports whether err is a wait that was ended though there is time left.
func (t *tunnel) goesOn(err error) bool {
	sweeper := t.up.transport.sweeper
	return errors.Is(err, os.ErrDeadlineExceeded) && !t.up.expired(sweeper) && !t.client.expired(sweeper)
}

// cut makes both directions end.
func (t *tunnel) cut() {
	t.up.interrupt()
	t.client.interrupt()
}
