package upstream

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"sluice/observe/wake"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
)

// errStale means that an idle connection was closed, or had unexpected bytes, before
// a request was sent on it.
var errStale = errors.New("stale idle connection")

// An HTTP1Conn is a connection to a peer. One exchange at a time uses it.
type HTTP1Conn struct {
	entry     socket.SweepEntry
	transport *http1Transport
	slot      *slot
	wire      socket.Wire
	agreed    agreement
	onSocket  func(fd uintptr) bool // step as a value: creating it allocates

	client atomic.Pointer[Client] // the client to probe, or nil
	probe  probe
	owner  atomic.Pointer[Client] // of the present exchange; nil: none

	reader      socket.BufferedReader
	used        bool // by an exchange before, so it may be stale
	drains      int  // of the transport, when the connection was opened
	idleTimeout time.Duration
	idleUntil   int64 // coarse time, 0 while busy; guarded by transport.mu
	lifetime    socket.Lifetime
	complete    bool // no exchange is in progress, and none was cut

	// private: a client has authenticated itself on the connection, or was asked to. Nobody but
	// owner gets it again.
	private bool
	ownTo   int64 // coarse time until which owner has it; 0: not kept. Guarded by transport.mu

	// The state of send.
	out     outgoing
	buffers *socket.Buffers // of the exchange
	err     error
	woken   bool // before the whole request was sent

	until  Until     // of the present wait
	picked time.Time // when the peer was, for the present exchange

	// A streamed body.
	writer  socket.Writer
	pause   time.Duration // the longest one in taking it
	chunked bool

	// The response. Its unread bytes are at start:end in the buffers of the exchange.
	start, end int
	response   transfer.Reader
	begun      bool // the first piece of its body was read
	persistent bool // the connection is reusable after it
	repaired   bool // the head of a response was: see readRepaired
}

func newHTTP1Conn(t *http1Transport, w socket.Wire, agreed agreement) *HTTP1Conn {
	u := &HTTP1Conn{transport: t, wire: w, agreed: agreed, idleTimeout: t.options.IdleTimeout}
	u.onSocket = u.step
	u.entry.Probes, u.entry.Owner = true, u
	return u
}

func (u *HTTP1Conn) close() {
	u.entry.Remove()
	if u.wire.TLS != nil && u.complete {
		u.wire.TLS.CloseNotify()
	}
	u.wire.Conn.Close()
	if u.out.remainder != nil {
		<-u.out.remainder
	}
}

// endOfWait returns why a wait for the response ends after a wake; nil: the wake was
// spurious.
func (u *HTTP1Conn) endOfWait() error {
	if u.until.Suspicion && u.transport.suspectedSince(u.picked) || wake.Closed(u.until.Changed) {
		return ErrSuspected
	}
	return nil
}

// Interrupt implements [Conn].
func (u *HTTP1Conn) Interrupt() { u.entry.Interrupt() }

// WaitAtMost implements [Conn].
func (u *HTTP1Conn) WaitAtMost(timeout time.Duration) { u.entry.Arm(u.transport.sweeper, timeout) }

// ClosedIdle implements [Conn].
func (u *HTTP1Conn) ClosedIdle(err error) (maybe, likely bool) {
	maybe = u.used && (err == errStale || time.Since(u.picked) < staleWithin)
	return maybe, maybe && (err == errStale || u.transport.countsAsStale(time.Now()))
}

// Finish implements [Conn].
func (u *HTTP1Conn) Finish(complete bool) {
	u.persistent = u.persistent && !u.response.Odd()
	u.complete = complete && u.response.Ended() && u.start == u.end && (u.persistent || u.wire.TLS != nil) && u.out.allSent()
	if u.complete && u.persistent {
		u.transport.release(u)
	} else {
		u.transport.discard(u)
	}
}

// Tunnel implements [Conn]. It stops the client probe: a client may close its
// sending side of a tunnel. The rest of the request's body comes first.
func (u *HTTP1Conn) Tunnel(b *socket.Buffers) (socket.TunnelEnd, []byte) {
	u.client.Store(nil)
	if u.out.remainder != nil {
		<-u.out.remainder
	}
	return u.TunnelEnd(), b.From[u.start:u.end]
}

func (u *HTTP1Conn) TunnelEnd() socket.TunnelEnd {
	return socket.TunnelEnd{Wire: u.wire, Entry: &u.entry}
}

// quiet reports whether an idle connection is reusable.
func (u *HTTP1Conn) quiet() bool {
	reusable := false
	err := u.wire.Raw.Control(func(fd uintptr) { reusable = u.wire.Quiet(fd) })
	return err == nil && reusable
}

// wokenInError reports whether err ended a wait whose deadline has not passed.
func (u *HTTP1Conn) wokenInError(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) && !u.entry.Expired(u.transport.sweeper)
}

// Parties implements sweepOwner of package socket.
func (u *HTTP1Conn) Parties() (client, peer any) {
	if owner := u.owner.Load(); owner != nil {
		client, _ = owner.Presence.Parties()
	}
	return client, u.transport
}

// OnSweep implements sweepOwner of package socket.
func (u *HTTP1Conn) OnSweep(now int64) int64 {
	return u.probe.sweep(&u.entry, u.client.Load(), now)
}
