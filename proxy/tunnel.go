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
	client, up := tunnelEnd{t.client.conn, &t.client.sweepEntry}, tunnelEnd{t.up.conn, &t.up.sweepEntry}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if t.write(up, early, in) {
			t.pipe(client, up, in)
		}
	}()
	t.pipe(up, client, out)
	<-ended
	t.client.disarm()
	t.client.writeDeadline.Store(0)
}

// A tunnelEnd is one of the two connections of a tunnel.
type tunnelEnd struct {
	*net.TCPConn
	entry *sweepEntry
}

// pipe copies to the end, and passes the end on.
func (t *tunnel) pipe(from, to tunnelEnd, copied *int64) {
	b := relayBuffers.Get().(*buffer)
	defer relayBuffers.Put(b)
	sweeper := t.up.transport.sweeper
	for {
		t.arm()
		n, err := from.Read(b.bytes)
		if !t.write(to, b.bytes[:n], copied) {
			return
		}
		switch {
		case err == nil || errors.Is(err, os.ErrDeadlineExceeded) && !from.entry.expired(sweeper):
		case err == io.EOF && to.CloseWrite() == nil:
			return
		default:
			t.cut()
			return
		}
	}
}

// write writes all of b, or cuts the tunnel.
func (t *tunnel) write(to tunnelEnd, b []byte, copied *int64) bool {
	for len(b) > 0 {
		t.arm()
		n, err := to.Write(b)
		b = b[n:]
		*copied += int64(n)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && (n > 0 || !to.entry.writeExpired(t.up.transport.sweeper)):
		default:
			t.cut()
			return false
		}
	}
	return true
}

// arm puts the deadlines off, all of them.
func (t *tunnel) arm() {
	for _, e := range [...]*sweepEntry{&t.up.sweepEntry, &t.client.sweepEntry} {
		e.arm(t.up.transport.sweeper, t.timeout)
		e.writeDeadline.Store(e.deadline.Load())
	}
}

// cut makes both directions end.
func (t *tunnel) cut() {
	t.up.interrupt()
	t.client.interrupt()
}
