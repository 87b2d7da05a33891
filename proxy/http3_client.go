package proxy

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"

	"sluice/observe/panics"
	"sluice/proxy/http2"
	"sluice/proxy/http3"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
	"sluice/route/places"
)

// Limits of an HTTP/3 connection of a client. They are those of HTTP/2 where both have them.
const (
	// http3Window is how many bytes of bodies may wait to be read: what as many streams as may
	// be open have at first, so that none stops another one.
	http3Window = http2Streams * http2.InitialWindow
	// http3RequestBytes is what a request may hold of it, as Limits.StreamBytes counts it. One of
	// each connection does not count.
	http3RequestBytes = http2.InitialWindow
	// unverifiedHandshakes is how many clients at a time may be in a handshake without a proof
	// of their address: above it they must prove it.
	unverifiedHandshakes = socket.MaxHandshakes / 8
	// http3Silence is how much longer than Timeouts.Idle a connection may be without a packet:
	// the end that QUIC makes of it then tells the client nothing.
	http3Silence = 2 * http2GoAwayTimeout
	// http3Linger is how long the end of a connection waits for the client to receive the last
	// answers: QUIC drops what is not acknowledged.
	http3Linger = 2 * time.Second
)

// http3Options returns the settings of new connections of a listener.
func (s *Server) http3Options(at *listener) http3.Options {
	return http3.Options{
		TLS: at.TLS, Streams: http2Streams,
		Timeouts: func() (handshake, idle time.Duration) {
			t := &s.options.Load().Timeouts
			return t.Head, t.Idle + http3Silence
		},
		StreamWindow: http2.InitialWindow, MaxStreamWindow: http2StreamWindow,
		Window: http3Window, MaxWindow: http3Window + http2Growth,
		Admit: s.admitHTTP3,
		Verify: func() bool {
			if s.handshakes.Unverified() < unverifiedHandshakes {
				return false
			}
			s.http3Retries.Add(1)
			return true
		},
	}
}

// admitHTTP3 decides whether a client may begin a handshake, and gives it its shares.
func (s *Server) admitHTTP3(remote netip.Addr, verified bool) (a http3.Admission, ok bool) {
	if !s.admission.admits(remote) {
		s.refused.Add(1)
		return a, false
	}
	block := blockOf(remote, s.options.Load().TrustedProxies)
	a.EndHandshake, ok = s.handshakes.Begin(block, verified, unverifiedHandshakes)
	a.Grow = func(n int64) bool { return s.streamMemory.Take(block, n, s.options.Load().Limits.StreamBytes) }
	a.Shrink = func(n int64) { s.streamMemory.Give(block, n) }
	return a, ok
}

// An http3ClientConn is a connection of a client with HTTP/3. Its goroutine accepts streams; each
// has a goroutine that serves its request. The Entry of client has the deadlines between requests.
type http3ClientConn struct {
	client   client
	conn     *http3.Conn
	block    places.Block
	lifetime socket.Lifetime
	work     sync.WaitGroup // of streams

	mu sync.Mutex
	// mu guards the fields below.
	open     map[*http3Stream]struct{}
	free     []*http3Stream    // to be reused
	counted  int               // streams that are open or free; all but one count in the limits
	holding  int               // requests that have not arrived whole
	resets   http2.LeakyBucket // see http2Resets
	idle     bool              // without a stream for idleSetDelay
	answered int64             // coarse time of the end of the last stream; 0: there was none
	goAway   goAwayPhase
	// goAwayUntil is the coarse time when goAwayAnnounced ends, or goAwayFinal if nothing is
	// open.
	goAwayUntil int64
}

// startHTTP3 serves a connection in its own goroutine, if the limits allow it.
func (s *Server) startHTTP3(at *listener, conn *http3.Conn) {
	remote := conn.Remote()
	if !s.admission.admit(remote, false) {
		s.refused.Add(1)
		conn.Refuse()
		return
	}
	shard := s.shards.Add(1)
	h := &http3ClientConn{
		client:   client{Client: upstream.Client{Shard: shard}, server: s, listener: at, remote: remote, address: addressText(remote), version: version3},
		conn:     conn,
		lifetime: socket.NewLifetime(s.sweeper, shard), open: make(map[*http3Stream]struct{}),
	}
	h.client.takeOptions()
	h.client.Entry.Owner, h.block = h, h.client.block()
	err := s.open(h, func() {
		s.sweeper.Add(&h.client.Entry, conn, shard)
		go h.serve()
	})
	if err != nil {
		s.admission.leave(remote)
		conn.Refuse()
	}
}

func (h *http3ClientConn) at() *listener { return h.client.listener }

// drain implements connection: its goroutine looks whether it drains.
func (h *http3ClientConn) drain(int64) { h.conn.SetReadDeadline(socket.ALongTimeAgo) }

// interrupt implements connection.
func (h *http3ClientConn) interrupt() { h.client.Entry.Interrupt() }

// abort implements connection.
func (h *http3ClientConn) abort() { h.conn.Abort() }

// Parties and OnSweep implement sweepOwner of package socket.
func (h *http3ClientConn) Parties() (client, peer any) { return places.BlockOf(h.client.remote), nil }
func (h *http3ClientConn) OnSweep(int64) int64         { return socket.Never }

// serve begins the connection. Another goroutine serves it, because the stack of this one has grown
// and never shrinks to the initial size.
func (h *http3ClientConn) serve() {
	defer panics.Contain(panics.Connection, h.end)
	if err := h.begin(); err != nil {
		h.serveOn(err)
		return
	}
	go h.serveOn(nil)
}

// serveOn serves streams until the connection ends, or ends it because of err.
func (h *http3ClientConn) serveOn(err error) {
	defer h.end()
	defer panics.Contain(panics.Connection, h.conn.Abort)
	for err == nil {
		err = h.acceptStream()
	}
	if fault := (*http3.Error)(nil); errors.As(err, &fault) {
		h.conn.CloseWith(fault)
	}
	if err != errHTTP3Over {
		h.client.server.log.Debug().Err(err).Str("listener", h.client.listener.Name).Str("client", h.client.address).Msg("HTTP/3 connection closed")
	}
}

// errHTTP3Over ends a connection that is no longer needed.
var errHTTP3Over = errors.New("the connection is over")

// begin sends the settings.
func (h *http3ClientConn) begin() (err error) {
	state := h.conn.TLS()
	h.client.session = newTLSSession(state)
	if h.client.certificate, err = newClientCertificate(state, h.client.listener.Revocations); err != nil {
		return err
	}
	if h.client.certificate != nil {
		if err := h.client.server.certify(&h.client, h); err != nil {
			return err
		}
	}
	h.arm()
	return h.conn.Begin(h.client.options.Limits.listBytes())
}

// acceptStream serves the next stream. An error ends the connection.
func (h *http3ClientConn) acceptStream() error {
	if h.client.draining() {
		h.announceGoAway()
	}
	stream, err := h.conn.AcceptStream()
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		if err != nil {
			return err
		}
		return h.openStream(stream)
	}
	expired := h.client.Entry.Expired(h.client.server.sweeper)
	if h.client.Entry.Interrupted.Load() {
		return h.interruptStreams()
	}
	if h.isOver() || expired && h.onDeadline() {
		return errHTTP3Over
	}
	return nil
}

// openStream serves a stream in its own goroutine.
func (h *http3ClientConn) openStream(stream http3.Incoming) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.client.takeOptions()
	if h.goAway == goAwayFinal {
		stream.Reject()
		return nil
	}
	s := h.takeStreamLocked()
	if s == nil {
		h.client.server.http3.refusedConnections.Add(1)
		stream.Reject()
		return nil
	}
	s.prepare(stream)
	h.open[s] = struct{}{}
	if h.idle = false; len(h.open) == 1 {
		h.armLocked()
	}
	if reached := h.lifetime.Begin(h.client.server.sweeper, &h.client.options.Connections); reached != socket.LimitNone {
		h.client.server.ended.count(reached)
		h.announceGoAwayLocked()
	}
	h.work.Add(1)
	go s.onServe()
	return nil
}

// takeStreamLocked returns an unused stream, or nil: there are too many.
func (h *http3ClientConn) takeStreamLocked() *http3Stream {
	if n := len(h.free); n > 0 {
		s := h.free[n-1]
		h.free = h.free[:n-1]
		return s
	}
	if h.counted > 0 && !h.client.server.admitStream(h.client.remote, h.block) {
		return nil
	}
	h.counted++
	return newHTTP3Stream(h)
}

// dropFreeLocked releases the unused streams.
func (h *http3ClientConn) dropFreeLocked() {
	for _, s := range h.free {
		s.client.Entry.Remove()
		h.uncountLocked()
	}
	h.free = nil
}

func (h *http3ClientConn) uncountLocked() {
	if h.counted--; h.counted > 0 {
		h.client.server.admission.leave(h.client.remote)
		h.client.server.streamMemory.Give(h.block, http2StreamBytes)
	}
}

// dropAll releases all streams, also one with which the connection has panicked.
func (h *http3ClientConn) dropAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.dropFreeLocked(); h.counted > 0; {
		h.uncountLocked()
	}
}

// countFaultLocked counts a stream that ends early by the act or fault of the client, and returns
// an error if there are too many.
func (h *http3ClientConn) countFaultLocked() error {
	h.resets.Leak(h.client.server.sweeper.Now(), http2ResetTime)
	if h.resets.Add(1) > http2Resets {
		return errHTTP3Resets
	}
	return nil
}

var errHTTP3Resets = &http3.Error{Code: http3.ExcessiveLoad, Reason: "too many streams end early"}

// isOver reports whether the last stream after GOAWAY has ended.
func (h *http3ClientConn) isOver() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.isOverLocked()
}

// isOverLocked is isOver. The client has had time to learn which streams are not served: the end of
// the connection would overtake that.
func (h *http3ClientConn) isOverLocked() bool {
	return h.goAway == goAwayFinal && len(h.open) == 0 && h.client.server.sweeper.Now() >= h.goAwayUntil
}

// onDeadline handles a timeout between requests, and reports whether the connection ends.
func (h *http3ClientConn) onDeadline() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	sweeper := h.client.server.sweeper
	switch {
	case h.goAway == goAwayAnnounced && sweeper.Now() < h.goAwayUntil:
		h.armLocked()
	case h.goAway == goAwayAnnounced:
		h.goAway, h.goAwayUntil = goAwayFinal, h.settledAt()
		h.conn.GoAway()
		h.armLocked()
	case h.goAway == goAwayFinal:
		h.armLocked()
	case len(h.open) > 0:
		h.conn.ReleaseCredit()
		h.dropFreeLocked()
		h.armLocked()
	case !h.idle:
		h.idle = true
		h.conn.ReleaseCredit()
		h.dropFreeLocked()
		h.client.Entry.Arm(sweeper, max(h.client.options.Timeouts.Idle-idleSetDelay, socket.SweepInterval))
	default:
		h.announceGoAwayLocked()
	}
	return h.isOverLocked()
}

// settledAt returns the coarse time until which the client has got a GOAWAY, and what it has sent
// before has arrived.
func (h *http3ClientConn) settledAt() int64 {
	return h.client.server.sweeper.Exact() + int64(http2GoAwaySettle+min(2*h.conn.RoundTrip(), http2GoAwayTimeout))
}

func (h *http3ClientConn) announceGoAway() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.announceGoAwayLocked()
}

// announceGoAwayLocked announces the end of the connection, once. Streams that are on the way are
// served: see http2GoAwaySettle.
func (h *http3ClientConn) announceGoAwayLocked() {
	if h.goAway != goAwayNone {
		return
	}
	h.goAway, h.goAwayUntil = goAwayAnnounced, h.settledAt()
	h.client.server.http3.goAways.Add(1)
	h.conn.AnnounceGoAway()
	h.armLocked()
}

func (h *http3ClientConn) arm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.armLocked()
}

// armLocked sets the deadline of the connection.
func (h *http3ClientConn) armLocked() {
	sweeper := h.client.server.sweeper
	switch {
	case h.goAway == goAwayAnnounced, h.goAway == goAwayFinal && len(h.open) == 0:
		h.client.Entry.Arm(sweeper, max(time.Duration(h.goAwayUntil-sweeper.Exact()), socket.SweepInterval))
	case len(h.open) > 0 && len(h.free) > 0:
		// To drop the unused streams: what is open may be a tunnel.
		h.client.Entry.Arm(sweeper, idleSetDelay)
	case len(h.open) > 0:
		h.client.Entry.Disarm()
	default:
		h.client.Entry.Arm(sweeper, min(idleSetDelay, h.client.options.Timeouts.Idle))
	}
}

// interruptStreams ends what is in progress.
func (h *http3ClientConn) interruptStreams() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.goAway != goAwayFinal {
		h.goAway = goAwayFinal
		h.conn.GoAway()
	}
	for s := range h.open {
		s.client.Entry.Interrupt()
	}
	return errHTTP3Over
}

// end waits for the streams, and closes the connection.
func (h *http3ClientConn) end() {
	h.client.Entry.Disarm()
	h.work.Wait()
	s := h.client.server
	if left := time.Duration(h.answered + int64(http3Linger) - s.sweeper.Exact()); h.answered != 0 && left > 0 {
		h.conn.AwaitEnd(left)
	}
	h.dropAll()
	h.client.Entry.Remove()
	h.conn.Close()
	if h.conn.Fault() != nil {
		s.http3.errors.Add(1)
	}
	s.admission.leave(h.client.remote)
	s.closed(h)
}

// ended ends a stream, which may be reused unless it has panicked. early: it has ended early by the
// act or fault of the client.
func (h *http3ClientConn) ended(s *http3Stream, early, panicked bool) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, s)
	h.answered = h.client.server.sweeper.Exact()
	h.free = append(h.free, s)
	if panicked {
		h.dropFreeLocked()
	}
	if early {
		err = h.countFaultLocked()
	} else {
		h.resets.Add(-1)
	}
	if len(h.open) == 0 {
		h.armLocked()
		if h.goAway == goAwayFinal {
			h.conn.SetReadDeadline(socket.ALongTimeAgo)
		}
	} else if h.goAway == goAwayNone {
		// To drop the unused streams.
		h.client.Entry.Arm(h.client.server.sweeper, idleSetDelay)
	}
	return err
}

// hold counts a request that has not arrived whole, and reports false if there is no memory for it.
func (h *http3ClientConn) hold() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holding > 0 && !h.client.server.streamMemory.Take(h.block, http3RequestBytes, h.client.options.Limits.StreamBytes) {
		return false
	}
	h.holding++
	return true
}

// release reverts hold.
func (h *http3ClientConn) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holding--; h.holding > 0 {
		h.client.server.streamMemory.Give(h.block, http3RequestBytes)
	}
}
