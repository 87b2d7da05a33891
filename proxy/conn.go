package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/http1"
	"sluice/route/places"
)

// idleSetDelay is the idle time after which a connection enters the idle set. That
// takes a few system calls, which a busy connection must not pay. At the latest then
// a FIN that came together with the last request is found.
const idleSetDelay = 200 * time.Millisecond

// A clientConn is an HTTP/1 connection of a client. While it is in the server's
// idleSet, it has no goroutine.
type clientConn struct {
	client
	wire
	exchange *http1Exchange // nil if no byte of a request has arrived
	http2    *http2Conn     // not nil: the protocol is HTTP/2
	lifetime lifetime

	fd       int32 // valid while the connection is open
	arrived  int32 // in phaseBody: bytes of the request when the deadline was set
	phase    connPhase
	watched  bool // for idleSet
	reading  bool // readable runs
	finished bool // the connection is to be closed
	linger   bool // see lingerForAnswer
	cutOff   bool // the response is incomplete: no close_notify
	reset    bool // close with RST, since FIN would mark the end of the response
	closed   bool
}

type connPhase uint8

const (
	phaseRecent  connPhase = iota // without a request for less than idleSetDelay
	phaseIdle                     // without a request for longer, or draining
	phaseHead                     // a part of a head has arrived
	phaseBody                     // a head and a part of a small body have arrived
	phaseRequest                  // the exchange serves a request, or nothing was read yet
)

func newClientConn(s *Server, l *listener, conn socketConn, remote netip.Addr, shard uint32) (*clientConn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &clientConn{
		client: client{server: s, listener: l, shard: shard, remote: remote, address: remote.String()},
		wire:   wire{conn: conn, raw: raw},

		lifetime: newLifetime(s.sweeper, shard),
	}
	if err := raw.Control(func(fd uintptr) { c.fd = int32(fd) }); err != nil {
		return nil, err
	}
	c.takeOptions()
	c.front, c.owner = c, c
	c.mayPreface = l.http2 && l.tls == nil
	return c, nil
}

// serve serves a new connection.
func (c *clientConn) serve() {
	defer panics.Contain(panics.Connection, c.fail)
	if c.listener.tls != nil {
		c.arm(c.server.sweeper, c.options.Timeouts.Head)
		if err := c.handshake(); err != nil {
			c.server.log.Debug().Err(err).Str("listener", c.listener.name).Str("client", c.address).Msg("TLS handshake failed")
			c.cutOff = true
			c.end()
			return
		}
	}
	// The connection cannot become idle before it has been read: the handshake may have taken
	// the first request from the socket.
	c.phase = phaseRequest
	c.disarm()
	if c.tls != nil && c.tls.usesHTTP2() {
		c.startHTTP2(nil)
	}
	c.serveOn()
}

// handshake performs the TLS handshake. It fails if the client and the listener have agreed on a
// protocol that is not HTTP: the answer to a challenge of ACME is the handshake, and nothing
// may follow it (RFC 8737, section 3).
func (c *clientConn) handshake() (err error) {
	c.tls, err = acceptTLS(c.wire, &c.sweepEntry, c.server, c.block(), c.listener.tls)
	if err != nil {
		return err
	}
	state := c.tls.ConnectionState()
	if p := state.NegotiatedProtocol; p != "" && p != alpnHTTP1 && p != alpnHTTP2 {
		return fmt.Errorf("the client has chosen the protocol %q", p)
	}
	c.session = newTLSSession(state)
	c.certificate, err = clientCertificateLine(state)
	return err
}

// block returns the address block whose share of the places the connection uses.
func (c *client) block() places.Block {
	if contains(c.options.TrustedProxies, c.remote) {
		return places.Many
	}
	return places.BlockOf(c.remote)
}

// continueServing serves a connection that was idle.
func (c *clientConn) continueServing() {
	defer panics.Contain(panics.Connection, c.fail)
	c.serveOn()
}

// serveOn serves requests until the connection ends or becomes idle. Then it
// adds the connection to the idle set. If that fails, a new goroutine takes over,
// because the stack of this one has grown and never shrinks to the initial size.
func (c *clientConn) serveOn() {
	if !c.serveUntilIdle() {
		c.end()
	} else if !c.server.idleConns.add(c) || c.draining() && c.deadline.Load() > c.idleUntil() && c.server.idleConns.take(c) {
		go c.continueServing() // not added, or its deadline is now earlier
	}
}

// onSweep implements sweepOwner: it restarts the goroutine of an idle connection that
// has timed out.
func (c *clientConn) onSweep(now int64) int64 {
	if passed(&c.deadline, now) && c.server.idleConns.take(c) {
		go c.continueServing()
	}
	return never
}

// serveUntilIdle serves requests. It returns true when the connection is idle, false
// when it must be closed.
func (c *clientConn) serveUntilIdle() bool {
	if c.http2 != nil {
		return c.http2.serveUntilIdle()
	}
	onReadable := c.readable
	for {
		err := c.raw.Read(onReadable)
		c.reading = false
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if c.expired(c.server.sweeper) {
				if open := c.onDeadline(); !open || c.phase == phaseIdle {
					return open
				}
			}
		case err != nil || c.finished:
			return false
		case c.http2 != nil:
			return c.http2.serveUntilIdle()
		default:
			// A request that exceeds the buffer is served outside of raw.Read,
			// because its body is read with raw.Read.
			if !c.serveRequest() {
				return false
			}
		}
	}
}

func (c *clientConn) end() {
	defer c.close() // also if a part of the end panics
	linger := c.linger || c.sendsOn()
	c.dropExchange()
	switch {
	case c.reset:
		resetOnClose(c.conn)
	case linger:
		c.lingerForAnswer()
	case c.tls != nil && !c.cutOff:
		c.tls.closeNotify()
	}
}

func (c *clientConn) close() {
	c.closed = true
	c.remove()
	c.conn.Close()
	c.server.connClosed(c)
}

// readable is called when the client may have sent bytes. It serves every request
// that has arrived completely, and reports whether raw.Read ends: the connection is
// finished, or a request must be read further.
func (c *clientConn) readable(fd uintptr) bool {
	c.reading = true
	c.wake()
	if c.exchange == nil {
		c.exchange = acquireExchange(c)
	}
	x := c.exchange
	// drained: the last read emptied the socket, so that the poller reports later
	// bytes. That does not cover a FIN together with these bytes, so a connection
	// with a partial request is read again.
	drained := false
	for {
		switch x.scan() {
		case scanWhole:
			if !c.serveRequest() {
				c.finished = true
				return true
			}
			continue
		case scanStreaming:
			return true
		case scanRefused:
			c.finished = true
			return true
		case scanHTTP2:
			c.startHTTP2(x.in[x.start:x.end])
			return true
		}
		if drained && x.start == x.end {
			return !c.park()
		}
		space := x.space()
		n, err := c.receive(fd, space)
		switch {
		case err == errWouldBlock:
			return !c.park()
		case err != nil || n == 0:
			c.finished = true
			return true
		}
		x.end += n
		drained = n < len(space) && c.tls == nil
	}
}

// serveRequest serves a request, and reports whether the connection stays open.
func (c *clientConn) serveRequest() bool {
	x := c.exchange
	if !x.serve() || !x.keep {
		return false
	}
	x.next()
	return true
}

// park prepares a wait for the client: it sets the deadline and, if no byte of a
// request has arrived, releases the exchange. It returns false if the connection
// drains and its time is over.
func (c *clientConn) park() bool {
	sweeper, timeouts := c.server.sweeper, &c.options.Timeouts
	switch x := c.exchange; {
	case x.headLength > 0:
		if arrived := x.end - x.start; c.phase != phaseBody || arrived > int(c.arrived) {
			c.phase, c.arrived = phaseBody, int32(arrived)
			c.arm(sweeper, timeouts.Body)
		}
	case x.start < x.end:
		if c.phase != phaseHead {
			c.phase = phaseHead
			c.arm(sweeper, timeouts.Head)
		}
	case c.draining():
		// The client may be sending a request. It is answered with Connection: close.
		left := time.Duration(c.idleUntil() - sweeper.now())
		if left <= 0 {
			c.finished = true
			return false
		}
		c.dropExchange()
		c.phase = phaseIdle
		c.arm(sweeper, left)
	default:
		c.dropExchange()
		if c.phase == phaseRequest {
			c.phase = phaseRecent
			c.arm(sweeper, min(idleSetDelay, timeouts.Idle))
		}
	}
	return true
}

// onDeadline handles a timeout of the client, and reports whether the connection
// stays open.
func (c *clientConn) onDeadline() bool {
	switch c.phase {
	case phaseHead:
		c.exchange.begin()
		c.exchange.refuse(refusalHeadTimeout)
	case phaseBody:
		c.exchange.begin()
		c.exchange.refuse(refusalBodyTimeout)
	case phaseRecent:
		left := c.options.Timeouts.Idle - idleSetDelay
		if left <= 0 {
			return c.hasArrived()
		}
		c.phase = phaseIdle
		c.arm(c.server.sweeper, left)
		c.conn.SetReadDeadline(time.Time{})
		return true
	case phaseIdle:
		return c.hasArrived()
	}
	return false
}

// hasArrived reports whether a request has arrived on a connection whose idle time is over,
// and prepares the connection for it: closing would lose the request.
func (c *clientConn) hasArrived() bool {
	nothing := true
	if err := c.raw.Control(func(fd uintptr) { nothing = quiet(fd) }); err != nil || nothing || !c.resumeRead() {
		return false
	}
	c.phase = phaseRecent
	c.arm(c.server.sweeper, min(idleSetDelay, c.options.Timeouts.Idle))
	return true
}

func (c *clientConn) dropExchange() {
	if c.exchange != nil {
		releaseExchange(c.exchange)
		c.exchange = nil
	}
}

// refuseMalformed answers a request that http1 has rejected.
func (x *httpExchange) refuseMalformed(err error) {
	var malformed *http1.Error
	if !errors.As(err, &malformed) {
		malformed = http1.ErrResponse
	}
	x.refuse(refusalOf(malformed))
}
