package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/http1"
)

const (
	// idleGlance is how soon a connection that has gone idle is looked at once
	// more, for a FIN that came together with the last request.
	idleGlance = 200 * time.Millisecond
	// restAfter is how soon one that stays idle rests. It costs a few system calls,
	// which clients that send one request after the other do not pay.
	restAfter = time.Second
)

// A clientConn is one client's connection. Its goroutine runs serve; between
// requests it may have none, and be in the server's restingSet.
type clientConn struct {
	sweepEntry
	rest     rest
	server   *Server
	listener *listener
	conn     *net.TCPConn
	raw      syscall.RawConn
	shard    uint32 // for counters and logs

	remote        netip.Addr
	clientAddress string // remote as text
	trusted       bool   // may say for whom it forwards

	gone   atomic.Bool // the client has closed, as a clientWatch found
	peek   func(fd uintptr)
	peeked bool

	fd       uintptr       // valid inside readable, else 0
	exchange *httpExchange // nil while nothing of a request is here
	phase    connPhase
	here     int  // in phaseBody: how much of the request was here when the deadline was set
	finished bool // the connection is to be closed
	linger   bool // …after the client has had time to read the last answer
	reset    bool // …in a way that cannot be taken for the end of a response
}

type connPhase uint8

const (
	phaseIdle    connPhase = iota // between requests, for less than idleGlance
	phaseQuiet                    // for longer, or before the first request
	phaseRest                     // for longer than restAfter, or the server drains
	phaseHead                     // a part of a head is here
	phaseBody                     // a head and a part of a small body are here
	phaseRequest                  // a request is being served
)

func newClientConn(s *Server, l *listener, conn *net.TCPConn, remote netip.Addr, shard uint32) (*clientConn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &clientConn{
		server: s, listener: l, conn: conn, raw: raw, shard: shard,
		remote: remote, clientAddress: remote.String(),
		trusted: contains(s.options.TrustedProxies, remote),
	}
	c.onSweep = c.endRest
	return c, nil
}

// serve handles the requests of the connection until it ends.
func (c *clientConn) serve() {
	c.phase = phaseQuiet
	c.arm(c.server.sweeper, min(restAfter, c.server.options.Timeouts.Idle))
	c.goOn()
}

// goOn handles requests until the connection ends or has been idle for a while.
// Then it rests. Where it cannot, a new goroutine waits in place of this one:
// serving has let its stack grow, and the runtime does not let it shrink again
// below twice what a new one has.
func (c *clientConn) goOn() {
	if !c.serveUntilIdle() {
		c.end()
	} else if !c.server.resting.add(c) {
		go c.goOn()
	}
}

// endRest is called at every sweep. It lets a connection go on that has rested
// for too long, to find that out.
func (c *clientConn) endRest(now int64) {
	if deadline := c.deadline.Load(); deadline != 0 && deadline <= now && c.server.resting.take(c) {
		go c.goOn()
	}
}

// serveUntilIdle returns when the connection ends, or is to rest: then it reports
// true.
func (c *clientConn) serveUntilIdle() bool {
	onReadable := c.readable
	for {
		err := c.raw.Read(onReadable)
		c.fd = 0
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if c.expired(c.server.sweeper) {
				if goesOn := c.onDeadline(); !goesOn || c.phase == phaseRest {
					return goesOn
				}
			}
		case err != nil || c.finished:
			return false
		default:
			// A request that needs more than is in the buffer is served outside
			// of the read, because it reads by itself.
			if !c.exchange.serve() {
				return false
			}
			c.exchange.next()
		}
	}
}

func (c *clientConn) end() {
	linger := c.linger || c.sendsOn()
	c.dropExchange()
	switch {
	case c.reset:
		c.conn.SetLinger(0)
	case linger:
		c.lingerForAnswer()
	}
	c.remove()
	c.conn.Close()
	c.server.connClosed(c)
}

// readable is called when the client may have sent something. It serves every
// request that is here as a whole and reports whether raw.Read should end:
// because the connection is finished, or because a request needs more reading.
func (c *clientConn) readable(fd uintptr) bool {
	c.fd = fd
	if c.exchange == nil {
		c.exchange = acquireExchange(c)
	}
	x := c.exchange
	// drained: the last read took all there was, so that anything that came
	// later, also while a request was served, calls readable again. That is not
	// relied on where half a request is here: its client may have gone with it.
	drained := false
	for {
		switch x.scan() {
		case scanWhole:
			if !x.serve() {
				c.finished = true
				return true
			}
			x.next()
			continue
		case scanStreaming:
			return true
		case scanRefused:
			c.finished = true
			return true
		}
		if drained && x.start == x.end {
			return !c.park()
		}
		space := x.space()
		n, err := receive(fd, space)
		switch {
		case err == errWouldBlock:
			return !c.park()
		case err != nil || n == 0:
			c.finished = true
			return true
		}
		x.end += n
		drained = n < len(space)
	}
}

// park prepares for waiting for the client: it sets the deadline and, where
// nothing of a request is here, lets go of the buffers. It returns false where
// there is nothing to wait for, because the server drains.
func (c *clientConn) park() bool {
	sweeper, timeouts := c.server.sweeper, &c.server.options.Timeouts
	switch x := c.exchange; {
	case x.headLength > 0:
		if here := x.end - x.start; c.phase != phaseBody || here > c.here {
			c.phase, c.here = phaseBody, here
			c.arm(sweeper, timeouts.Body)
		}
	case x.start < x.end:
		if c.phase != phaseHead {
			c.phase = phaseHead
			c.arm(sweeper, timeouts.Head)
		}
	case c.server.draining.Load():
		// One more request may be on its way, and is answered with
		// Connection: close.
		left := time.Duration(c.server.idleUntil.Load() - sweeper.now())
		if left <= 0 {
			c.finished = true
			return false
		}
		c.dropExchange()
		c.phase = phaseRest
		c.arm(sweeper, left)
	default:
		c.dropExchange()
		if c.phase == phaseRequest {
			c.phase = phaseIdle
			c.arm(sweeper, min(idleGlance, timeouts.Idle))
		}
	}
	return true
}

// onDeadline handles a wait for the client that took too long, and reports
// whether the connection goes on.
func (c *clientConn) onDeadline() bool {
	idle := c.server.options.Timeouts.Idle
	switch c.phase {
	case phaseHead:
		c.exchange.begin()
		c.exchange.refuse(refusalHeadTimeout)
	case phaseBody:
		c.exchange.begin()
		c.exchange.refuse(refusalBodyTimeout)
	case phaseIdle:
		return c.idleOn(phaseQuiet, idleGlance, min(restAfter, idle))
	case phaseQuiet:
		return c.idleOn(phaseRest, restAfter, idle)
	}
	return false
}

// idleOn goes on waiting for a request, which has taken since, until it has taken
// that long, and reports false where it has.
func (c *clientConn) idleOn(phase connPhase, since, until time.Duration) bool {
	if until <= since {
		return false
	}
	c.phase = phase
	c.arm(c.server.sweeper, until-since)
	c.conn.SetReadDeadline(time.Time{})
	return true
}

func (c *clientConn) dropExchange() {
	if c.exchange != nil {
		releaseExchange(c.exchange)
		c.exchange = nil
	}
}

// write sends all of b to the client, for the exchange.
func (c *clientConn) write(b []byte) error {
	if c.fd != 0 {
		n, err := send(c.fd, b)
		if n == len(b) || err != nil && err != errWouldBlock {
			return err
		}
		b = b[n:]
	}
	_, err := c.exchange.clientWriter.write(c.side(c.server.options.Timeouts.Write), b)
	return err
}

// read reads more of a request's body, within the timeout. It is not for use
// inside readable.
func (c *clientConn) read(b []byte) (int, error) {
	c.arm(c.server.sweeper, c.server.options.Timeouts.Body)
	defer c.disarm()
	for {
		n, err := c.conn.Read(b)
		if n > 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || c.expired(c.server.sweeper) {
			return n, err
		}
	}
}

// refuseMalformed answers a request that http1 refused.
func (x *httpExchange) refuseMalformed(err error) {
	var malformed *http1.Error
	if !errors.As(err, &malformed) {
		malformed = http1.ErrResponse
	}
	x.refuse(refusalOf(malformed))
}
