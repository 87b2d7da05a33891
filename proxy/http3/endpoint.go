package http3

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/observe/panics"
	"sluice/proxy/packets"
)

// Options are the settings of new connections.
type Options struct {
	TLS *tls.Config // its protocols are replaced by h3
	// Timeouts returns, for each connection, the bounds of its handshake and of the time
	// without a packet.
	Timeouts func() (handshake, idle time.Duration)
	// Streams is the number of requests of a connection at a time.
	Streams int
	// StreamWindow, that grows to MaxStreamWindow, is how many bytes of a stream may wait to be
	// read, and Window, that grows to MaxWindow, is that of all streams of a connection.
	StreamWindow, MaxStreamWindow, Window, MaxWindow int
	// Admit asks whether a client may begin a handshake. verified: it is at that address; else
	// anybody could have sent the packet.
	Admit func(remote netip.Addr, verified bool) (Admission, bool)
	// Verify asks whether the next client must prove its address first, which costs it a round
	// trip (RFC 9000, section 8.1.2).
	Verify func() bool
}

// An Admission is what a client has of that which all share.
type Admission struct {
	// EndHandshake is called at the end of the handshake, with what was agreed on, or nil after
	// a failure.
	EndHandshake func(*tls.ConnectionState)
	// Grow asks whether the window of the connection may grow by a number of bytes. Shrink is
	// called with all of them in the end.
	Grow   func(bytes int64) bool
	Shrink func(bytes int64)
}

// An Endpoint is a UDP socket that serves HTTP/3. It is a [net.Listener] of connections whose
// handshake has ended, a *Conn each. It is safe for concurrent use.
type Endpoint struct {
	socket    *packets.Socket
	release   func()
	transport quic.Transport
	options   atomic.Pointer[Options]
	accept    deadline
	serving   atomic.Bool

	mu sync.Mutex
	// mu guards the fields below.
	listener   *listening // nil: it does not listen
	conns      int        // of clients, that have not ended
	handshakes int        // in progress
	stopping   bool       // see Stop
	// Until then, it accepts connections also without handshakes in progress.
	stopFrom time.Time
	stopBy   time.Time // after that, it waits for no handshake
	closing  bool      // Close was called
	closed   bool      // the socket is released
}

// ids are the connection ids of a socket.
type ids struct{ *packets.Socket }

func (s ids) GenerateConnectionID() (quic.ConnectionID, error) {
	id := s.NewID()
	return quic.ConnectionIDFromBytes(id[:]), nil
}

func (s ids) ConnectionIDLen() int { return packets.IDLen }

// NewEndpoint returns the endpoint of a socket, for which it calls release in the end. Nothing is
// read before Serve.
//
// The keys of tokens are secrets of the socket, which a later process has too. They must not be
// shared with other machines: who has a packet sent to one of them could end the connections of
// another by a stateless reset (RFC 9000, section 21.11).
func NewEndpoint(socket *packets.Socket, release func()) *Endpoint {
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") // see Counts
	e := &Endpoint{socket: socket, release: release}
	reset, token := quic.StatelessResetKey(socket.Secret("stateless reset")), quic.TokenGeneratorKey(socket.Secret("token"))
	e.transport = quic.Transport{
		Conn: socket, ConnectionIDGenerator: ids{socket}, StatelessResetKey: &reset, TokenGeneratorKey: &token,
		VerifySourceAddress: func(net.Addr) bool { return e.options.Load().Verify() },
		ConnContext:         e.begin,
	}
	return e
}

// admittedKey is the key of a connection's *admitted in its context.
type admittedKey struct{}

// admitted is a connection from the begin of its handshake.
type admitted struct {
	Admission
	endpoint *Endpoint
	ended    sync.Once    // the handshake
	increase atomic.Int64 // of its window
}

func (a *admitted) endHandshake(state *tls.ConnectionState) {
	a.ended.Do(func() {
		a.EndHandshake(state)
		a.endpoint.leave()
	})
}

func admittedOf(c *quic.Conn) *admitted { return c.Context().Value(admittedKey{}).(*admitted) }

var errNotAdmitted = errors.New("too many handshakes or connections")

// begin decides whether a client may begin a handshake.
func (e *Endpoint) begin(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	o, remote := e.options.Load(), addressOf(info.RemoteAddr)
	if !e.enter(info.AddrVerified) {
		return nil, errStopping
	}
	admission, ok := o.Admit(remote, info.AddrVerified)
	if !ok {
		e.leave()
		return nil, errNotAdmitted
	}
	a := &admitted{Admission: admission, endpoint: e}
	context.AfterFunc(ctx, func() {
		defer panics.Contain(panics.Connection, nil)
		a.endHandshake(nil)
		a.Shrink(a.increase.Load())
	})
	return context.WithValue(ctx, admittedKey{}, a), nil
}

var errStopping = errors.New("the endpoint stops")

// enter begins a handshake. While the endpoint stops, only clients that it has asked to prove their
// address may come back, unless another process reads the socket: what this one gets then is its
// own.
func (e *Endpoint) enter(verified bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping && !verified && !e.socket.IsAside() {
		return false
	}
	e.handshakes++
	return true
}

// leave ends a handshake.
func (e *Endpoint) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.handshakes--; e.stopping && e.handshakes == 0 {
		e.accept.set(e.stopFrom)
	}
}

// asideGrace is how long an endpoint accepts connections after another process reads the socket:
// packets that were read before may not have been processed.
const asideGrace = 500 * time.Millisecond

// Stop ends Accept once no handshake is in progress, or after grace. New ones are refused.
func (e *Endpoint) Stop(grace time.Duration) {
	e.serving.Store(false)
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	e.stopping, e.stopFrom, e.stopBy = true, now, now.Add(grace)
	if e.socket.IsAside() {
		e.stopFrom = now.Add(asideGrace)
	}
	e.accept.set(e.stopFrom)
}

// awaitsHandshakes reports whether Accept goes on after its deadline.
func (e *Endpoint) awaitsHandshakes() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.stopping || e.handshakes == 0 || !time.Now().Before(e.stopBy) {
		return false
	}
	e.accept.set(e.stopBy)
	return true
}

// IsServing reports whether clients may be told of the endpoint.
func (e *Endpoint) IsServing() bool { return e.serving.Load() }

// Serve sets the settings of new connections, and begins to read the socket.
func (e *Endpoint) Serve(o Options) error {
	e.options.Store(&o)
	listens, err := e.state()
	if err != nil || listens {
		e.serving.Store(err == nil)
		return err
	}
	early, err := e.transport.ListenEarly(&tls.Config{GetConfigForClient: e.tls}, &quic.Config{
		GetConfigForClient: func(*quic.ClientInfo) (*quic.Config, error) { return e.config(), nil },
	})
	if err != nil {
		return err
	}
	l := startListening(early)
	if !e.setListener(l) {
		l.close()
		return net.ErrClosed
	}
	e.serving.Store(true)
	return nil
}

// state reports whether the endpoint listens. The error is net.ErrClosed after Close.
func (e *Endpoint) state() (listens bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return false, net.ErrClosed
	}
	return e.listener != nil, nil
}

func (e *Endpoint) setListener(l *listening) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return false
	}
	e.listener = l
	return true
}

// listening takes connections from quic-go before the end of their handshake: its queue of 32
// afterwards refuses connections when many clients come at once.
type listening struct {
	early *quic.EarlyListener
	ready chan *quic.Conn // whose handshake has ended
	ctx   context.Context // ends with stop
	stop  context.CancelFunc
	work  sync.WaitGroup
}

// acceptors is how many goroutines wait for connections: so many are taken at once, also while the
// processors are busy.
const acceptors = 64

func startListening(early *quic.EarlyListener) *listening {
	l := &listening{early: early, ready: make(chan *quic.Conn)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	for range acceptors {
		l.work.Go(l.acceptNext)
	}
	return l
}

// acceptNext takes one connection. Another goroutine waits in place of this one then.
func (l *listening) acceptNext() {
	defer panics.Contain(panics.Connection, nil)
	q, err := l.early.Accept(l.ctx)
	if err != nil {
		return
	}
	l.work.Go(l.acceptNext)
	l.await(q)
}

// await waits for the end of a handshake, and until somebody accepts the connection.
func (l *listening) await(q *quic.Conn) {
	select {
	case <-q.HandshakeComplete():
	case <-q.Context().Done():
		return
	case <-l.ctx.Done():
	}
	select {
	case l.ready <- q:
	case <-q.Context().Done():
	case <-l.ctx.Done():
		q.CloseWithError(quic.ApplicationErrorCode(NoError), "")
	}
}

// close refuses all connections that were not accepted.
func (l *listening) close() {
	l.stop()
	l.early.Close()
	l.work.Wait()
}

// tls returns the TLS of a new connection: that of the listener, with the protocol of HTTP/3.
func (e *Endpoint) tls(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c := e.options.Load().TLS
	for c.GetConfigForClient != nil {
		found, err := c.GetConfigForClient(hello)
		if err != nil {
			return nil, err
		}
		if found == nil {
			break
		}
		c = found
	}
	c = c.Clone() // each time: keys of tickets are added to the original
	c.GetConfigForClient, c.NextProtos = nil, []string{"h3"}
	return c, nil
}

func (e *Endpoint) config() *quic.Config {
	o := e.options.Load()
	handshake, idle := o.Timeouts()
	return &quic.Config{
		HandshakeIdleTimeout: handshake, MaxIdleTimeout: idle,
		MaxIncomingStreams: int64(o.Streams), MaxIncomingUniStreams: maxUniStreams, RequireStreamCreditRelease: true,
		InitialStreamReceiveWindow: uint64(o.StreamWindow), MaxStreamReceiveWindow: uint64(o.MaxStreamWindow),
		InitialConnectionReceiveWindow: uint64(o.Window), MaxConnectionReceiveWindow: uint64(o.MaxWindow),
		AllowConnectionWindowIncrease: func(c *quic.Conn, delta uint64) bool {
			a := admittedOf(c)
			if !a.Grow(int64(delta)) {
				return false
			}
			a.increase.Add(int64(delta))
			return true
		},
	}
}

// Accept returns the next connection. After the deadline the error is os.ErrDeadlineExceeded.
func (e *Endpoint) Accept() (net.Conn, error) {
	e.mu.Lock()
	l := e.listener
	e.mu.Unlock()
	if l == nil {
		return nil, net.ErrClosed
	}
	var q *quic.Conn
	for q == nil {
		select {
		case q = <-l.ready:
		case <-l.ctx.Done():
			return nil, net.ErrClosed
		case <-e.accept.context().Done():
			if !e.awaitsHandshakes() {
				return nil, os.ErrDeadlineExceeded
			}
		}
	}
	state := q.ConnectionState().TLS
	admittedOf(q).endHandshake(&state)
	e.countConns(1)
	return &Conn{quic: q, endpoint: e, streams: e.options.Load().Streams}, nil
}

// SetDeadline is the deadline of Accept; zero: none.
func (e *Endpoint) SetDeadline(t time.Time) error {
	e.accept.set(t)
	return nil
}

// Addr implements net.Listener.
func (e *Endpoint) Addr() net.Addr { return e.socket.LocalAddr() }

// Counts returns what has happened to the packets of the socket.
func (e *Endpoint) Counts() packets.Counts { return e.socket.Counts() }

// Close ends Accept and refuses new connections. The socket is released with the last connection.
func (e *Endpoint) Close() error {
	e.serving.Store(false)
	l, first := e.beginClose()
	if !first {
		return net.ErrClosed
	}
	if l != nil {
		l.close() // it waits for calls of enter
	}
	e.closeIfUnused()
	return nil
}

// beginClose reports whether this is the first call, and returns what listens; nil: nothing.
func (e *Endpoint) beginClose() (l *listening, first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return nil, false
	}
	l, e.listener, e.closing = e.listener, nil, true
	return l, true
}

// Reopen reverts Close, and reports whether it could: the socket is not released yet. Then Serve
// may be called again.
func (e *Endpoint) Reopen() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.closing, e.stopping = false, false
	return true
}

// left ends one of the connections.
func (e *Endpoint) left() {
	e.countConns(-1)
	e.closeIfUnused()
}

func (e *Endpoint) countConns(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conns += n
}

// closeIfUnused releases the socket after Close, with the last connection.
func (e *Endpoint) closeIfUnused() {
	if e.beginRelease() {
		e.transport.Close() // it waits for calls of enter
		e.release()
	}
}

func (e *Endpoint) beginRelease() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closing || e.conns > 0 || e.closed {
		return false
	}
	e.closed = true
	return true
}
