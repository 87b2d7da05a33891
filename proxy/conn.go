package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
	"sluice/route/places"
)

// idleSetDelay is the idle time after which a connection enters the idle set. That
// takes a few system calls, which a busy connection must not pay. At the latest then
// a FIN that came together with the last request is found.
const idleSetDelay = 200 * time.Millisecond

// A clientConn is an HTTP/1 connection of a client. While it is in the server's
// socket.IdleSet, it has no goroutine.
type clientConn struct {
	client   client
	wire     socket.Wire
	exchange *http1Exchange   // nil if no byte of a request has arrived
	http2    *http2ClientConn // not nil: the protocol is HTTP/2
	lifetime socket.Lifetime

	watch    socket.Watch
	arrived  int32 // in phaseBody: bytes of the request when the deadline was set
	phase    connPhase
	reading  bool // readable runs
	finished bool // the connection is to be closed
	linger   bool // see Server.linger
	cutOff   bool // the response is incomplete: no close_notify
	reset    bool // close with RST, since FIN would mark the end of the response
	closed   bool
	// delimits: the end of the connection is the end of the response, or of a tunnel.
	delimits atomic.Bool
}

type connPhase uint8

const (
	phaseRecent  connPhase = iota // without a request for less than idleSetDelay
	phaseIdle                     // without a request for longer, or draining
	phaseHead                     // a part of a head has arrived
	phaseBody                     // a head and a part of a small body have arrived
	phaseRequest                  // the exchange serves a request, or nothing was read yet
)

func newClientConn(s *Server, l *listener, conn socket.Conn, remote netip.Addr, shard uint32) (*clientConn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &clientConn{
		client: client{Client: upstream.Client{Shard: shard}, server: s, listener: l, remote: remote, address: addressText(remote)},
		wire:   socket.Wire{Conn: conn, Raw: raw},

		lifetime: socket.NewLifetime(s.sweeper, shard),
	}
	if err := raw.Control(func(fd uintptr) { c.watch.FD = int32(fd) }); err != nil {
		return nil, err
	}
	c.client.takeOptions()
	c.client.downstream, c.client.Presence, c.client.Entry.Owner, c.client.KeepsOwn = c, c, c, true
	c.client.mayPreface = l.HTTP2 && l.TLS == nil
	return c, nil
}

func (c *clientConn) at() *listener { return c.client.listener }

func (c *clientConn) serve() {
	defer panics.Contain(panics.Connection, c.fail)
	if c.client.listener.TLS != nil {
		c.client.Entry.Arm(c.client.server.sweeper, c.client.options.Timeouts.Head)
		if err := c.handshake(); err != nil {
			c.client.server.log.Debug().Err(err).Str("listener", c.client.listener.Name).Str("client", c.client.address).Msg("TLS handshake failed")
			c.cutOff = true
			c.end()
			return
		}
	}
	// The connection cannot become idle before it has been read: the handshake may have taken
	// the first request from the socket.
	c.phase = phaseRequest
	c.client.Entry.Disarm()
	if c.wire.TLS != nil && c.wire.TLS.UsesHTTP2() {
		startHTTP2(c, nil)
	}
	c.serveOn()
}

// handshake performs the TLS handshake. It fails if the client and the listener have agreed on a
// protocol that is not HTTP: the answer to a challenge of ACME is the handshake, and nothing
// may follow it (RFC 8737, section 3).
func (c *clientConn) handshake() (err error) {
	c.wire.TLS, err = c.client.server.handshakes.Accept(c.wire, &c.client.Entry, c.client.block(), c.client.listener.TLS)
	if err != nil {
		return err
	}
	state := c.wire.TLS.ConnectionState()
	if p := state.NegotiatedProtocol; p != "" && p != socket.ALPNHTTP1 && p != socket.ALPNHTTP2 {
		return fmt.Errorf("the client has chosen the protocol %q", p)
	}
	c.client.session = newTLSSession(state)
	if c.client.certificate, err = newClientCertificate(state, c.client.listener.Revocations); err != nil || c.client.certificate == nil {
		return err
	}
	return c.client.server.certify(&c.client, c)
}

// block returns the address block whose share of the places the connection uses. Its requests have
// one each: see request.block.
func (c *client) block() places.Block { return blockOf(c.remote, c.options.TrustedProxies) }

// blockOf returns the address block of a client: a trusted proxy has many.
func blockOf(client netip.Addr, trusted []netip.Prefix) places.Block {
	if contains(trusted, client) {
		return places.Many
	}
	return places.BlockOf(client)
}

// Resume implements idleConn: it serves a connection that was idle.
func (c *clientConn) Resume() {
	defer panics.Contain(panics.Connection, c.fail)
	c.serveOn()
}

// Watch implements idleConn.
func (c *clientConn) Watch() *socket.Watch { return &c.watch }

// serveOn serves requests until the connection ends or becomes idle. Then it
// adds the connection to the idle set. If that fails, a new goroutine takes over,
// because the stack of this one has grown and never shrinks to the initial size.
func (c *clientConn) serveOn() {
	growStack(nil)
	if !c.serveUntilIdle() {
		c.end()
	} else if !c.client.server.idleConns.Add(c, c.wire.Raw) || c.endsEarlier() && c.client.server.idleConns.Take(c) {
		go c.Resume()
	}
}

// endsEarlier reports whether an idle connection ends before its deadline, because something has
// changed while it became idle.
func (c *clientConn) endsEarlier() bool {
	if c.client.Entry.Interrupted.Load() {
		c.client.Entry.Interrupt() // the deadlines may have been removed since
		return true
	}
	return c.client.draining() && c.client.Entry.Deadline.Load() > c.client.idleUntil()
}

// Parties implements sweepOwner of package socket, and downstream.
func (c *clientConn) Parties() (client, peer any) { return places.BlockOf(c.client.remote), nil }

// OnSweep implements sweepOwner: it restarts the goroutine of an idle connection that
// has timed out.
func (c *clientConn) OnSweep(now int64) int64 {
	if socket.Passed(&c.client.Entry.Deadline, now) && c.client.server.idleConns.Take(c) {
		// Else it would read first, and be idle for as long again.
		c.wire.Conn.SetReadDeadline(socket.ALongTimeAgo)
		go c.Resume()
	}
	return socket.Never
}

// serveUntilIdle serves requests. It returns true when the connection is idle, false
// when it must be closed.
func (c *clientConn) serveUntilIdle() bool {
	if c.http2 != nil {
		return c.http2.serveUntilIdle()
	}
	onReadable := c.readable
	for {
		err := c.wire.Raw.Read(onReadable)
		c.reading = false
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if c.client.Entry.Expired(c.client.server.sweeper) {
				if open := !c.client.Entry.Interrupted.Load() && c.onDeadline(); !open || c.phase == phaseIdle {
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
	linger := c.linger || c.exchange.sendsOn(c.wire.Raw)
	c.dropExchange()
	switch {
	case c.reset:
		socket.ResetOnClose(c.wire.Conn)
	case linger:
		c.client.server.linger(c.wire, &c.client.Entry)
	case c.wire.TLS != nil && !c.cutOff:
		c.wire.TLS.CloseNotify()
	}
}

func (c *clientConn) close() {
	c.closed = true
	c.client.DropOwn()
	c.client.Entry.Remove()
	c.wire.Conn.Close()
	c.client.server.admission.leave(c.client.remote)
	c.client.server.closed(c)
}

// drain implements connection: its goroutine looks whether it drains.
func (c *clientConn) drain(int64) {
	c.wire.WakeReader()
	c.client.server.resumeIdle(c)
}

// interrupt implements connection.
func (c *clientConn) interrupt() {
	c.client.Entry.Interrupt()
	c.client.server.resumeIdle(c)
}

// abort implements connection.
func (c *clientConn) abort() {
	if c.delimits.Load() {
		socket.ResetOnClose(c.wire.Conn)
	}
	c.wire.Conn.Close()
}

// resumeIdle starts the goroutine of a connection, if that is in the idle set.
func (s *Server) resumeIdle(c *clientConn) {
	if s.idleConns.Take(c) {
		go c.Resume()
	}
}

// readable is called when the client may have sent bytes. It serves every request
// that has arrived completely, and reports whether raw.Read ends: the connection is
// finished, or a request must be read further.
func (c *clientConn) readable(fd uintptr) bool {
	c.reading = true
	c.wire.Wake()
	if c.exchange == nil {
		c.exchange = exchanges.Get().(*http1Exchange)
		c.exchange.request.open(&c.client)
	}
	x := c.exchange
	// drained: the last read emptied the socket, so that the poller reports later
	// bytes. That does not cover a FIN together with these bytes, so a connection
	// with a partial request is read again.
	drained := false
	for {
		result, err := x.request.scan()
		if err != nil {
			x.begin()
			x.refuse(ofMalformed(err))
		}
		switch result {
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
			startHTTP2(c, x.request.bytes())
			return true
		}
		if drained && x.request.start == x.request.end {
			return !c.park()
		}
		space := x.request.space()
		n, err := c.wire.Receive(fd, space)
		switch {
		case err == socket.ErrWouldBlock:
			return !c.park()
		case err != nil || n == 0:
			c.finished = true
			return true
		}
		x.request.end += n
		drained = n < len(space) && c.wire.TLS == nil
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

// growStack is [http2.GrowStack] for the 8 KiB that a request of HTTP/1 needs. If the connection
// waits, the garbage collector makes the stack smaller again.
//
//go:noinline
func growStack(use func(byte)) {
	if use != nil {
		var frame [4 << 10]byte
		for i := range frame {
			use(frame[i])
		}
	}
}

// park prepares a wait for the client: it sets the deadline and, if no byte of a
// request has arrived, releases the exchange. It returns false if the connection
// drains and its time is over.
func (c *clientConn) park() bool {
	sweeper, timeouts := c.client.server.sweeper, &c.client.options.Timeouts
	switch x := c.exchange; {
	case x.request.headLength > 0:
		if arrived := x.request.end - x.request.start; c.phase != phaseBody || arrived > int(c.arrived) {
			c.phase, c.arrived = phaseBody, int32(arrived)
			c.client.Entry.Arm(sweeper, timeouts.Body)
		}
	case x.request.start < x.request.end:
		if c.phase != phaseHead {
			c.phase = phaseHead
			c.client.Entry.Arm(sweeper, timeouts.Head)
		}
	case c.client.draining():
		// The client may be sending a request. It is answered with Connection: close.
		left := time.Duration(c.client.idleUntil() - sweeper.Exact())
		if left <= 0 {
			c.finished = true
			return false
		}
		c.dropExchange()
		c.phase = phaseIdle
		c.client.Entry.Arm(sweeper, left)
	default:
		c.dropExchange()
		if c.phase == phaseRequest {
			c.phase = phaseRecent
			c.client.Entry.Arm(sweeper, min(idleSetDelay, timeouts.Idle))
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
		c.exchange.refuse(refusal.HeadTimeout)
	case phaseBody:
		c.exchange.begin()
		c.exchange.refuse(refusal.BodyTimeout)
	case phaseRecent:
		left := c.client.options.Timeouts.Idle - idleSetDelay
		if left <= 0 {
			return c.hasArrived()
		}
		c.phase = phaseIdle
		c.client.Entry.Arm(c.client.server.sweeper, left)
		c.wire.Conn.SetReadDeadline(time.Time{})
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
	if err := c.wire.Raw.Control(func(fd uintptr) { nothing = socket.Quiet(fd) }); err != nil || nothing || !c.client.Entry.ResumeRead() {
		return false
	}
	c.phase = phaseRecent
	c.client.Entry.Arm(c.client.server.sweeper, min(idleSetDelay, c.client.options.Timeouts.Idle))
	return true
}

func (c *clientConn) dropExchange() {
	if x := c.exchange; x != nil {
		x.surplus, x.framed.Section = nil, nil
		x.close()
		exchanges.Put(x)
		c.exchange = nil
	}
}
