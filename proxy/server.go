package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/metrics"
	"sluice/proxy/accesslog"
	"sluice/route"
)

// Options are the settings of a [Server]; see Configure for the required ones.
type Options struct {
	AccessLog *accesslog.Logger // nil: none

	Timeouts Timeouts
	Limits   Limits

	// TrustedProxies are the networks whose X-Forwarded-*, Forwarded and X-Real-IP
	// fields are forwarded. These fields of other clients are dropped.
	TrustedProxies []netip.Prefix
	// Forwarded adds the Forwarded field of RFC 7239 to X-Forwarded-*.
	Forwarded bool
	// KeepForGoneClients completes an exchange whose client has closed its connection.
	// Otherwise it is canceled within half a second.
	KeepForGoneClients bool
	// KeepUnderscores forwards fields with an underscore in their name. Otherwise they
	// are dropped.
	KeepUnderscores bool
}

// Timeouts are the timeouts of clients. They act up to 50 ms late. Time in which the
// process did not run hardly counts.
type Timeouts struct {
	Head  time.Duration // from the first byte of a head to its end
	Body  time.Duration // each pause within a body
	Write time.Duration // each pause in taking the response; acts up to an eighth late
	Idle  time.Duration // between requests
}

// Limits bound what a client may send.
type Limits struct {
	Connections int // open connections of clients
	// ConnectionsPerAddress is per IPv4 address or IPv6 /64. It does not apply to
	// TrustedProxies.
	ConnectionsPerAddress int

	TargetBytes int   // of a request target
	BodyBytes   int64 // of a request body; 0: no limit
}

func (o Options) complete() bool {
	t, l := o.Timeouts, o.Limits
	return min(t.Head, t.Body, t.Write, t.Idle) > 0 && min(l.Connections, l.ConnectionsPerAddress, l.TargetBytes) > 0
}

// A Server accepts client connections and serves their requests with its route
// table. It is safe for concurrent use.
type Server struct {
	options   atomic.Pointer[Options]
	log       zerolog.Logger
	sweeper   *sweeper
	idleConns *idleSet
	tables    atomic.Pointer[route.Table]
	requests  *metrics.Requests // see Unrouted
	draining  atomic.Bool
	idleUntil atomic.Int64 // for all listeners, as listener.idleUntil

	ctx    context.Context // ends when connections are cut
	cancel context.CancelFunc
	stop   chan struct{} // closed to end the background goroutines

	background sync.WaitGroup

	admission  admission
	handshakes *handshakes
	http2      http2Counters
	connCount  atomic.Int64
	refused    atomic.Uint64
	lingering  atomic.Int64 // connections in lingerForAnswer
	shards     atomic.Uint32

	mu sync.Mutex
	// mu guards the fields below.
	listeners map[*listener]struct{} // that Serve accepts on
	conns     map[*clientConn]struct{}
	streams   map[*stream]struct{}
	arrivals  map[*arrival]struct{}
	drained   chan struct{} // closed when the server drains and all maps are empty
}

// listener is a listener that is being served.
type listener struct {
	net.Listener
	server  *Server
	name    string
	proxies []netip.Prefix  // see ListenerOptions
	tls     *tls.Config     // nil: no TLS
	streams func() *Streams // nil: HTTP

	strictTransportSecurity string
	http2                   bool // without TLS, clients may use HTTP/2
	httpsPort               int  // of redirects to HTTPS; 0: none
	challenge               func(host, path string) (body []byte, ok bool)

	idleUntil atomic.Int64 // coarse time when idle connections end; 0: the listener does not drain
	cut       atomic.Bool  // the time for its requests is over
}

// acceptGrace is how long a closing listener accepts connections, because closing
// resets those in the backlog.
const acceptGrace = 20 * time.Millisecond

// close ends Serve after acceptGrace.
func (l *listener) close() {
	if l.setDeadline(time.Now().Add(acceptGrace)) != nil {
		l.Close()
	}
}

// setDeadline sets the deadline of Accept; zero: none.
func (l *listener) setDeadline(t time.Time) error {
	if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		return d.SetDeadline(t)
	}
	return errors.ErrUnsupported
}

func (l *listener) table() *route.Table { return l.server.tables.Load() }

// NewServer returns a server with an empty route table. The caller must call
// Shutdown.
func NewServer(o Options, log zerolog.Logger) *Server {
	empty, err := route.NewTable(nil)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	s := &Server{
		log: log, sweeper: newSweeper(),
		admission:  admission{perAddress: make(map[netip.Addr]int)},
		handshakes: newHandshakes(maxHandshakes),
		requests:   metrics.NewRequests(),
		stop:       make(chan struct{}),
		listeners:  make(map[*listener]struct{}),
		conns:      make(map[*clientConn]struct{}),
		streams:    make(map[*stream]struct{}),
		arrivals:   make(map[*arrival]struct{}),
		drained:    make(chan struct{}),
	}
	s.Configure(o)
	if s.idleConns, err = newIdleSet(); err != nil {
		s.log.Warn().Err(err).Msg("epoll failed: idle connections use more memory")
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.tables.Store(empty)
	s.background.Go(s.idleConns.run)
	s.background.Go(func() { s.sweeper.run(s.stop) })
	s.background.Go(func() { reclaim(s.stop, s.shards.Load, processorTime, collectGarbage) })
	return s
}

// Configure sets the options of new requests and connections. All timeouts and
// limits are required, except Limits.BodyBytes.
func (s *Server) Configure(o Options) {
	if !o.complete() {
		panic(fmt.Sprintf("BUG: proxy: incomplete options %+v", o))
	}
	o.TrustedProxies = unmapped(o.TrustedProxies)
	s.admission.configure(o.Limits, o.TrustedProxies)
	s.options.Store(&o)
}

// SetTable sets the route table of new requests.
func (s *Server) SetTable(t *route.Table) { s.tables.Store(t) }

// Connections returns the number of open client connections.
func (s *Server) Connections() int { return int(s.connCount.Load()) }

// RefusedConnections returns the number of connections that exceeded a limit.
func (s *Server) RefusedConnections() uint64 { return s.refused.Load() }

// Unrouted returns the counters of the requests that match no route or are malformed.
func (s *Server) Unrouted() *metrics.Requests { return s.requests }

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("server closed")

// Serve accepts connections on l until Shutdown or until l is closed, and closes l.
// If ctx ends first, it returns ctx's error and leaves l open. After any other error
// of Accept, such as a lack of descriptors, it tries again. name is for logs.
func (s *Server) Serve(ctx context.Context, l net.Listener, name string) error {
	return s.ServeWith(ctx, l, ListenerOptions{Name: name})
}

// ListenerOptions are the settings of a listener.
type ListenerOptions struct {
	Name string // for logs
	// TLS must not offer protocols except h2 and http/1.1. nil: without TLS.
	TLS *tls.Config
	// HTTP2: without TLS, clients may use HTTP/2. With TLS, they may if TLS offers h2.
	HTTP2 bool
	// StrictTransportSecurity is that field of responses; "": that of the peer.
	StrictTransportSecurity string
	// HTTPSPort is the port to which requests are redirected, except those that came to
	// a trusted proxy by HTTPS; 0: none are.
	HTTPSPort int
	// Challenge, if not nil, returns the body of the response to a GET request for a
	// path below /.well-known/acme-challenge/; false: the request is served as any other.
	Challenge func(host, path string) (body []byte, ok bool)
	// Proxies are the networks whose connections must begin with a PROXY header, which
	// has the address of the client.
	Proxies []netip.Prefix
	// Streams makes the listener forward TCP. It returns where the next connection
	// goes. nil: the listener serves HTTP.
	Streams func() *Streams
}

// ServeWith is Serve with more options.
func (s *Server) ServeWith(ctx context.Context, l net.Listener, o ListenerOptions) error {
	name := o.Name
	at := &listener{
		Listener: l, server: s, name: name, proxies: unmapped(o.Proxies), tls: o.TLS, http2: o.HTTP2, streams: o.Streams,
		strictTransportSecurity: o.StrictTransportSecurity, httpsPort: o.HTTPSPort, challenge: o.Challenge,
	}
	deferAccept(l, o.Streams == nil)
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		l.Close()
		return ErrServerClosed
	}
	s.listeners[at] = struct{}{}
	s.mu.Unlock()
	defer s.listenerClosed(at)
	left := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(left)
		at.close()
	})
	defer stop()

	pause := time.Duration(0)
	for {
		conn, err := l.Accept()
		if err == nil {
			pause = 0
			s.start(at, conn)
			continue
		}
		if s.draining.Load() {
			l.Close()
			return ErrServerClosed
		}
		if ctx.Err() != nil {
			<-left
			at.setDeadline(time.Time{})
			return ctx.Err()
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("listener %q: %w", name, err)
		}
		if pause == 0 {
			s.log.Warn().Err(err).Str("listener", name).Msg("accept failed; retrying")
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
}

// start serves a new connection in its own goroutine.
func (s *Server) start(at *listener, conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return
	}
	of := addresses{plainAddress(conn.RemoteAddr()), plainAddress(conn.LocalAddr())}
	remote := of.client.Addr()
	fromProxy := contains(at.proxies, remote)
	if !s.admission.admit(remote, fromProxy) {
		s.refused.Add(1)
		if at.tls != nil || at.streams != nil {
			conn.Close() // a response requires a handshake, or another protocol
		} else {
			s.refuseConn(tcp)
		}
		return
	}
	begin := s.begin
	if fromProxy {
		begin = s.awaitProxyHeader
	}
	if begin(at, tcp, of) != nil {
		s.admission.leave(remote)
		conn.Close()
	}
}

// begin serves a connection of a client that was admitted, in its own goroutine. It
// fails if the connection or the server is closed.
func (s *Server) begin(at *listener, conn *net.TCPConn, of addresses) error {
	if at.streams != nil {
		return s.startStream(at, conn, of)
	}
	c, err := newClientConn(s, at, conn, of.client.Addr(), s.shards.Add(1))
	if err != nil { // the connection is closed already
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil { // Shutdown has closed all other connections
		return net.ErrClosed
	}
	s.conns[c] = struct{}{}
	s.connCount.Add(1)
	s.sweeper.add(&c.sweepEntry, conn, c.shard)
	go c.serve()
	return nil
}

func (s *Server) connClosed(c *clientConn) {
	s.admission.leave(c.remote)
	s.connCount.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.noteDrainedLocked()
}

func (s *Server) listenerClosed(l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	s.noteDrainedLocked()
}

func (s *Server) noteDrainedLocked() {
	if !s.draining.Load() || len(s.conns) > 0 || len(s.streams) > 0 || len(s.arrivals) > 0 || len(s.listeners) > 0 {
		return
	}
	select {
	case <-s.drained:
	default:
		close(s.drained)
	}
}

// Shutdown stops accepting, waits for the requests in flight and returns when all
// listeners and connections are closed. If ctx ends first, it closes the remaining
// connections and returns ctx's error. It must be called once.
//
// A client may send a request on an idle connection while it is being closed, and
// the request would be lost. So idle connections stay open for idleGrace, and a
// request in this time is answered with Connection: close.
func (s *Server) Shutdown(ctx context.Context, idleGrace time.Duration) error {
	s.mu.Lock()
	s.idleUntil.Store(s.sweeper.now() + int64(idleGrace))
	s.draining.Store(true)
	for l := range s.listeners {
		l.close()
	}
	s.noteDrainedLocked()
	for c := range s.conns {
		c.wakeIfIdle()
	}
	for a := range s.arrivals {
		a.arm(s.sweeper, max(idleGrace, 1))
	}
	s.idleConns.close()
	s.mu.Unlock()

	var err error
	select {
	case <-s.drained:
	case <-ctx.Done():
		err = ctx.Err()
		s.cancel()
		// Peers first: closing a client's connection waits for its exchange, which
		// may wait for its peer.
		for _, t := range s.sweeper.allTransports() {
			t.Close()
		}
		s.mu.Lock()
		for c := range s.conns {
			c.conn.Close()
		}
		for c := range s.streams {
			c.abort()
		}
		for a := range s.arrivals {
			a.tcp.Close()
		}
		s.mu.Unlock()
		<-s.drained
	}
	s.cancel()
	close(s.stop)
	s.background.Wait()
	return err
}

// Drain ends the connections that were accepted on l, which must no longer be served.
// It treats requests in flight and idle connections as Shutdown does, but does not
// wait for them. After grace it ends the remaining requests, as if their clients had
// closed their connections, and resets the remaining streams. It must not be called
// after Shutdown.
func (s *Server) Drain(l net.Listener, idleGrace, grace time.Duration) {
	until := s.sweeper.now() + int64(idleGrace)
	s.eachConnection(l, func(c *clientConn) {
		c.listener.idleUntil.Store(until)
		c.wakeIfIdle()
		if s.idleConns.take(c) {
			go c.continueServing()
		}
	})
	s.background.Go(func() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-s.stop:
		case <-timer.C:
			s.eachConnection(l, func(c *clientConn) {
				c.listener.cut.Store(true)
				c.interrupt()
			})
			s.abortStreams(l)
		}
	})
}

// eachConnection calls do for the connections that were accepted on l.
func (s *Server) eachConnection(l net.Listener, do func(*clientConn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.listener.Listener == l {
			do(c)
		}
	}
}

// abortStreams resets the streams that were accepted on l.
func (s *Server) abortStreams(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.streams {
		if c.listener.Listener == l {
			c.abort()
		}
	}
}

// wakeIfIdle makes a connection that waits for a request check whether it drains. A
// spurious wake of a busy connection is harmless.
func (c *clientConn) wakeIfIdle() {
	c.conn.SetReadDeadline(aLongTimeAgo)
}
