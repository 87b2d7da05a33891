package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/accesslog"
	"sluice/metrics"
	"sluice/route"
)

// Options are the settings of a [Server].
type Options struct {
	Log       zerolog.Logger
	AccessLog *accesslog.Logger // nil: none

	Timeouts Timeouts
	Limits   Limits

	// TrustedProxies are the networks whose word is taken for whom they forward
	// (X-Forwarded-*, Forwarded, X-Real-IP). Those fields are dropped from
	// everybody else's requests.
	TrustedProxies []netip.Prefix
	// Forwarded adds the Forwarded field of RFC 7239 to X-Forwarded-*.
	Forwarded bool
	// KeepForGoneClients lets an exchange go on to its end when the client has
	// closed its connection; otherwise it is broken off, within half a second.
	KeepForGoneClients bool
	// KeepUnderscores passes on fields with an underscore in their name, which
	// are dropped otherwise.
	KeepUnderscores bool
}

// Timeouts bound what a client may take its time with. They act up to 50 ms
// late; time in which the process did not run hardly counts. Zero values become
// the defaults.
type Timeouts struct {
	Head  time.Duration // from the first byte of a head to its end. Default 10 s
	Body  time.Duration // each pause within a body. Default 30 s
	Write time.Duration // each pause in taking the response; an eighth of it late at most. Default 60 s
	Idle  time.Duration // between requests. Default 75 s
}

// Limits bound what a client may send. Zero values become the defaults.
type Limits struct {
	// Connections is how many client connections may be open. Default: half of
	// the descriptors that the process may have.
	Connections int
	// ConnectionsPerAddress is how many of them one client may have: an IPv4
	// address or an IPv6 /64. TrustedProxies may have any number. Default: half
	// of Connections.
	ConnectionsPerAddress int

	TargetBytes int   // of a request target. Default 8 KiB
	BodyBytes   int64 // of a request body. Default none
}

func (o Options) withDefaults() Options {
	setDefault(&o.Timeouts.Head, 10*time.Second)
	setDefault(&o.Timeouts.Body, 30*time.Second)
	setDefault(&o.Timeouts.Write, 60*time.Second)
	setDefault(&o.Timeouts.Idle, 75*time.Second)
	setDefault(&o.Limits.Connections, defaultConnectionLimit())
	setDefault(&o.Limits.ConnectionsPerAddress, (o.Limits.Connections+1)/2)
	setDefault(&o.Limits.TargetBytes, 8<<10)
	o.TrustedProxies = unmapped(o.TrustedProxies)
	return o
}

func setDefault[T int | time.Duration](value *T, fallback T) {
	if *value <= 0 {
		*value = fallback
	}
}

// A Server accepts client connections and serves their requests by the table
// that was set last. Safe for concurrent use.
type Server struct {
	options   Options
	log       zerolog.Logger
	sweeper   *sweeper
	resting   *restingSet
	tables    atomic.Pointer[route.Table]
	requests  *metrics.Requests // that no route was found for
	draining  atomic.Bool
	idleUntil atomic.Int64 // coarse time when draining ends for idle connections

	ctx    context.Context // ends when connections are cut
	cancel context.CancelFunc
	stop   chan struct{} // closed to end what runs in the background

	background sync.WaitGroup

	admission *admission
	connCount atomic.Int64
	refused   atomic.Uint64
	lingering atomic.Int64 // connections in lingerForAnswer
	shards    atomic.Uint32

	mu sync.Mutex
	// mu guards the fields below.
	listeners map[*listener]struct{} // that Serve accepts on
	conns     map[*clientConn]struct{}
	idle      chan struct{} // closed when draining and none of either is left
}

// listener is an address to accept connections on.
type listener struct {
	net.Listener
	server *Server
	name   string
}

// lastAccepts is how long a listener goes on accepting when it is to be closed.
// Connections that the system has opened and nobody has accepted are reset
// when the listener is closed, so first those that wait are taken.
const lastAccepts = 20 * time.Millisecond

// close makes Serve end soon. The server drains already.
func (l *listener) close() {
	if tcp, ok := l.Listener.(*net.TCPListener); !ok || tcp.SetDeadline(time.Now().Add(lastAccepts)) != nil {
		l.Close()
	}
}

func (l *listener) table() *route.Table { return l.server.tables.Load() }

// NewServer returns a server without a table: it knows no route. It must be
// ended with Shutdown.
func NewServer(o Options) *Server {
	empty, err := route.NewTable(nil)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	o = o.withDefaults()
	s := &Server{
		options: o, log: o.Log, sweeper: newSweeper(),
		admission: newAdmission(o.Limits, o.TrustedProxies),
		requests:  metrics.NewRequests(),
		stop:      make(chan struct{}),
		listeners: make(map[*listener]struct{}),
		conns:     make(map[*clientConn]struct{}),
		idle:      make(chan struct{}),
	}
	if s.resting, err = newRestingSet(); err != nil {
		s.log.Warn().Err(err).Msg("idle connections will take more memory than they need")
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.tables.Store(empty)
	s.background.Go(s.resting.run)
	s.background.Go(func() { s.sweeper.run(s.stop) })
	s.background.Go(func() { reclaim(s.stop, s.shards.Load, collectGarbage) })
	return s
}

// SetTable makes t the table for requests from now on.
func (s *Server) SetTable(t *route.Table) { s.tables.Store(t) }

// Connections returns how many client connections are open.
func (s *Server) Connections() int { return int(s.connCount.Load()) }

// RefusedConnections returns how many connections were closed unserved,
// because there were too many.
func (s *Server) RefusedConnections() uint64 { return s.refused.Load() }

// Unrouted returns the counters of the requests that no route was found for,
// and of those that were refused as malformed.
func (s *Server) Unrouted() *metrics.Requests { return s.requests }

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("server closed")

// Serve accepts connections on l until Shutdown, or until l is closed by
// somebody else, and closes it. Every other error of accepting, such as having
// no descriptors left, is waited out: it concerns the connections to come, not
// those that are there. name is the listener's in the configuration.
func (s *Server) Serve(l net.Listener, name string) error {
	at := &listener{Listener: l, server: s, name: name}
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		l.Close()
		return ErrServerClosed
	}
	s.listeners[at] = struct{}{}
	s.mu.Unlock()
	defer s.listenerClosed(at)

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
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("listener %q: %w", name, err)
		}
		if pause == 0 {
			s.log.Warn().Err(err).Str("listener", name).Msg("accepting connections fails; trying on")
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
}

// start begins to serve a new connection.
func (s *Server) start(at *listener, conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return
	}
	remote := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
	if !s.admission.admit(remote) {
		s.refused.Add(1)
		s.refuseConn(tcp)
		return
	}
	c, err := newClientConn(s, at, tcp, remote, s.shards.Add(1))
	if err != nil { // the client is gone
		s.admission.leave(remote)
		conn.Close()
		return
	}
	s.mu.Lock()
	if s.ctx.Err() != nil { // all others have just been cut
		s.mu.Unlock()
		s.admission.leave(remote)
		conn.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.connCount.Add(1)
	s.sweeper.add(&c.sweepEntry, conn, c.shard)
	go c.serve()
}

func (s *Server) connClosed(c *clientConn) {
	s.admission.leave(c.remote)
	s.connCount.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.closeIfIdleLocked()
}

func (s *Server) listenerClosed(l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	s.closeIfIdleLocked()
}

func (s *Server) closeIfIdleLocked() {
	if !s.draining.Load() || len(s.conns) > 0 || len(s.listeners) > 0 {
		return
	}
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}

// Shutdown stops accepting, lets requests in flight finish and returns when no
// listener and no connection is left. When ctx ends before, it cuts what is left and returns
// ctx's error. It must be called once.
//
// A client may send a request on an idle connection at the very moment in which
// it is closed, and would lose it. So idle connections are kept open for
// idleGrace, and a request that comes by then is answered with
// Connection: close.
func (s *Server) Shutdown(ctx context.Context, idleGrace time.Duration) error {
	s.mu.Lock()
	s.idleUntil.Store(s.sweeper.now() + int64(idleGrace))
	s.draining.Store(true)
	for l := range s.listeners {
		l.close()
	}
	s.closeIfIdleLocked()
	for c := range s.conns {
		c.wakeIfIdle()
	}
	s.resting.close()
	s.mu.Unlock()

	var err error
	select {
	case <-s.idle:
	case <-ctx.Done():
		err = ctx.Err()
		s.cancel()
		// Peers first: closing a client's connection waits for the exchange on
		// it, which may wait for its peer.
		for _, t := range s.sweeper.allTransports() {
			t.Close()
		}
		s.mu.Lock()
		for c := range s.conns {
			c.conn.Close()
		}
		s.mu.Unlock()
		<-s.idle
	}
	s.cancel()
	close(s.stop)
	s.background.Wait()
	return err
}

// wakeIfIdle makes a connection that waits for a request look at whether the
// server drains. A connection that gets a deadline while it is at work finds
// out that it was woken in error.
func (c *clientConn) wakeIfIdle() {
	c.conn.SetReadDeadline(aLongTimeAgo)
}
