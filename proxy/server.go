package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/config/units"
	"sluice/observe/metrics"
	"sluice/observe/panics"
	"sluice/observe/tracing"
	"sluice/observe/wake"
	"sluice/proxy/accesslog"
	"sluice/proxy/http1"
	"sluice/proxy/http3"
	"sluice/proxy/proxyprotocol"
	"sluice/proxy/recent"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/route/compression"
	"sluice/route/places"
)

// Options are the settings of a [Server]; see Configure for the required ones.
type Options struct {
	AccessLog *accesslog.Logger // nil: none
	Tracer    *tracing.Tracer   // nil: no spans

	Timeouts    Timeouts
	Limits      Limits
	Connections socket.ConnectionLimits

	// TrustedProxies are the networks, and by the zero prefix unix sockets, whose X-Forwarded-* and
	// Forwarded fields are forwarded, and say who the client is. These fields of other clients are
	// dropped.
	TrustedProxies []netip.Prefix
	Switches
}

// Switches change what a server does with requests.
type Switches struct {
	// Forwarded adds the Forwarded field of RFC 7239 to X-Forwarded-*.
	Forwarded bool `key:"forwarded" default:"false"`
	// RequestID gives each request an id, which the peer and the client get as X-Request-Id:
	// the ID from one of TrustedProxies, or a new one.
	RequestID bool `key:"request_id" default:"false"`
	// KeepForGoneClients completes an exchange whose client has closed its connection.
	// Otherwise it is canceled within half a second.
	KeepForGoneClients bool `key:"keep_for_gone_clients" default:"false"`
	// KeepUnderscores forwards fields with an underscore in their name. Otherwise they
	// are dropped.
	KeepUnderscores bool `key:"keep_underscores" default:"false"`
	// KeepDotSegments forwards paths that have a segment "..", in any spelling, also to
	// hosts with a route that restricts its clients. Otherwise they are refused.
	KeepDotSegments bool `key:"keep_dot_segments" default:"false"`
}

// Timeouts are the timeouts of clients. They act up to 50 ms late. Time in which the
// process did not run hardly counts.
type Timeouts struct {
	Head  time.Duration `key:"head" default:"10s" min:"100ms" max:"1h"`   // from the first byte of a head to its end
	Body  time.Duration `key:"body" default:"30s" min:"100ms" max:"24h"`  // each pause within a body
	Write time.Duration `key:"write" default:"60s" min:"100ms" max:"24h"` // each pause in reading the response; acts up to an eighth late
	Idle  time.Duration `key:"idle" default:"75s" min:"100ms" max:"24h"`  // between requests
}

// Limits bound what clients may send, and how much memory their responses need.
type Limits struct {
	// Connections bounds the open connections of clients.
	Connections int `key:"connections" default:"0" min:"0" max:"10000000"`
	// ConnectionsPerAddress is per IPv4 address or IPv6 /64. It does not apply to
	// TrustedProxies.
	ConnectionsPerAddress int `key:"connections_per_address" default:"0" min:"0" max:"10000000"`

	// HeadBytes and Fields bound the head of a request, and TargetBytes its target. BodyBytes
	// bounds its body; 0: no limit.
	HeadBytes   units.Size `key:"head" default:"16KiB" min:"1KiB" max:"60KiB"`
	Fields      int        `key:"fields" default:"100" min:"10" max:"1000"`
	TargetBytes units.Size `key:"target" default:"8KiB" min:"256B" max:"16KiB"`
	BodyBytes   units.Size `key:"body" default:"0" min:"0" max:"1024GiB"`

	// KeptBodyBytes is the memory of request bodies that are kept for a retry, and an eighth
	// of it the memory of one block of addresses, except TrustedProxies. What would need more is
	// streamed. What fits a buffer together with its head does not count.
	KeptBodyBytes units.Size `key:"kept_bodies" default:"256MiB" min:"1MiB" max:"1024GiB"`
	// StreamBytes is the memory of the requests of HTTP/2 that are open, and of the parts of their
	// bodies that wait to be forwarded, and an eighth of it that of one block of addresses, except
	// TrustedProxies. Requests that would need more are refused. One request of each connection
	// does not count, nor 64 KiB of bodies.
	StreamBytes int64 `key:"-"`
	// CompressionBytes is the memory of encoders in use, and an eighth of it, or one encoder, that
	// of one block of addresses, except TrustedProxies. Responses that would need more are not
	// compressed.
	CompressionBytes units.Size `key:"compression" default:"256MiB" min:"1MiB" max:"1024GiB"`
}

func (o Options) complete() bool {
	t, l := o.Timeouts, o.Limits
	return min(t.Head, t.Body, t.Write, t.Idle) > 0 && min(l.Connections, l.ConnectionsPerAddress, int(l.TargetBytes), int(l.HeadBytes), l.Fields) > 0 && l.HeadBytes <= http1.MaxHeadBytes
}

// A Server accepts client connections and serves their requests with its route
// table. It is safe for concurrent use.
type Server struct {
	options    atomic.Pointer[Options]
	log        zerolog.Logger
	sweeper    *socket.Sweeper
	connectors *upstream.Connectors
	idleConns  *socket.IdleSet
	routing    atomic.Pointer[routing]
	requests   *metrics.Requests // see Unrouted
	draining   atomic.Bool
	idleUntil  atomic.Int64 // for all listeners, as listener.idleUntil
	cutting    atomic.Bool  // for all listeners, as listener.cut
	lacking    atomic.Bool  // see LackRoutes
	recent     recent.Requests

	ctx    context.Context // ends when connections are cut
	cancel context.CancelFunc
	stop   chan struct{} // closed to end the background goroutines

	background sync.WaitGroup
	copies     sync.WaitGroup // of requests; each begins while a connection of a client is open

	admission  admission
	handshakes *socket.Handshakes
	http2      streamCounters
	http3      streamCounters
	// http3Retries counts the clients that had to prove their address.
	http3Retries atomic.Uint64
	ended        endedCounters
	keptBodies   *places.Shares
	// streamMemory is the memory of streams of HTTP/2: see Limits.StreamBytes.
	streamMemory *places.Shares
	encoders     *compression.Encoders
	refused      atomic.Uint64
	lingering    atomic.Int64 // connections in linger
	shards       atomic.Uint32

	mu sync.Mutex
	// mu guards the fields below.
	listeners map[*listener]struct{} // that Serve accepts on
	conns     map[connection]struct{}
	certified map[connection]*client // those of conns whose client has a certificate
	drained   chan struct{}          // closed when the server drains and all maps are empty
}

// NewServer returns a server with an empty route table. The caller must call
// Shutdown.
func NewServer(o Options, log zerolog.Logger) *Server {
	empty, err := route.NewTable(nil)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	s := &Server{
		log: log, sweeper: socket.NewSweeper(),
		admission:  admission{perBlock: make(map[places.Block]int)},
		keptBodies: places.NewShares(), streamMemory: places.NewShares(), encoders: compression.NewEncoders(),
		requests:  metrics.NewRequests(),
		stop:      make(chan struct{}),
		listeners: make(map[*listener]struct{}),
		conns:     make(map[connection]struct{}),
		certified: make(map[connection]*client),
		drained:   make(chan struct{}),
	}
	s.connectors = upstream.NewConnectors(s.sweeper, log)
	s.Configure(o)
	if s.idleConns, err = socket.NewIdleSet(); err != nil {
		s.log.Warn().Err(err).Msg("epoll failed: idle connections use more memory")
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.handshakes = socket.NewHandshakes(s.ctx, s.sweeper)
	s.SetTable(empty, nil)
	s.repeat(s.idleConns.Run)
	s.repeat(func() { s.sweeper.Run(s.stop) })
	s.repeat(func() { s.connectors.Run(s.stop) })
	s.repeat(func() { socket.Reclaim(s.stop, s.shards.Load, socket.ProcessorTime, socket.ReturnMemory) })
	return s
}

// NewTransport returns the transport factory of a pool, for [balancer.Options].
func (s *Server) NewTransport(o upstream.Options) func(*balancer.Peer) balancer.Transport {
	return s.connectors.NewTransport(o)
}

// repeat runs what serves all connections in the background, again if it has panicked.
func (s *Server) repeat(run func()) {
	s.background.Go(func() { panics.Repeat(s.stop, panics.Task, socket.SweepInterval, run) })
}

// Configure sets the options of new requests and connections. All timeouts and limits are required,
// except BodyBytes, KeptBodyBytes, StreamBytes, CompressionBytes and Connections.
func (s *Server) Configure(o Options) {
	if !o.complete() {
		panic(fmt.Sprintf("BUG: proxy: incomplete options %+v", o))
	}
	o.TrustedProxies = route.Unmapped(o.TrustedProxies)
	s.admission.configure(o.Limits, o.TrustedProxies)
	s.options.Store(&o)
}

// A routing is a route table, and the names that it has for listeners. It does not change.
type routing struct {
	*route.Table
	names map[net.Listener]string
	reads route.Reads
}

// SetTable sets the route table of new requests, and the names that listeners have for it, also for
// connections that they have accepted under another name. One that names does not have keeps its
// own.
func (s *Server) SetTable(t *route.Table, names map[net.Listener]string) {
	s.routing.Store(&routing{t, names, t.Reads()})
}

// LackRoutes says whether the route table may lack routes, because what asks for them has not
// answered since the start. Then a request without a route is not told that there is none.
func (s *Server) LackRoutes(lacking bool) { s.lacking.Store(lacking) }

// Connections returns the number of open client connections.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Compression returns the counts of compressed responses.
func (s *Server) Compression() compression.Stats { return s.encoders.Stats() }

// start serves a new connection in its own goroutine.
func (s *Server) start(at *listener, conn net.Conn) {
	if conn, ok := conn.(*http3.Conn); ok {
		s.startHTTP3(at, conn)
		return
	}
	socket, ok := conn.(socket.Conn)
	if !ok {
		conn.Close()
		return
	}
	defer panics.Contain(panics.Connection, func() { conn.Close() })
	of := proxyprotocol.Addresses{Client: proxyprotocol.AddressOf(conn.RemoteAddr()), Server: proxyprotocol.AddressOf(conn.LocalAddr())}
	remote := of.Client.Addr()
	fromProxy := contains(at.Proxies, remote)
	if !s.admission.admit(remote, fromProxy) {
		s.refused.Add(1)
		if at.TLS != nil || at.Streams != nil {
			conn.Close() // a response requires a handshake, or another protocol
		} else {
			s.refuseConn(socket)
		}
		return
	}
	begin := s.begin
	if fromProxy {
		begin = s.awaitProxyHeader
	}
	if begin(at, socket, of) != nil {
		s.admission.leave(remote)
		conn.Close()
	}
}

// begin serves a connection of a client that was admitted, in its own goroutine. It
// fails if the connection or the server is closed.
func (s *Server) begin(at *listener, conn socket.Conn, of proxyprotocol.Addresses) error {
	if at.Streams != nil {
		return s.startStream(at, conn, of)
	}
	c, err := newClientConn(s, at, conn, of.Client.Addr(), s.shards.Add(1))
	if err != nil { // the connection is closed already
		return err
	}
	return s.open(c, func() {
		s.sweeper.Add(&c.client.Entry, conn, c.client.Shard)
		go c.serve()
	})
}

func (s *Server) signalDrainedLocked() {
	if s.draining.Load() && len(s.conns)+len(s.listeners) == 0 && !wake.Closed(s.drained) {
		close(s.drained)
	}
}

// refuseConn answers a connection over the limits without waiting, and closes it. It
// first reads what has arrived, so that closing does not reset the connection.
func (s *Server) refuseConn(conn socket.Conn) {
	answer, body := refusal.Append(nil, refusal.TooManyConnections, false, false, false)
	answer = append(answer, body...)
	var b socket.Buffers
	b.Borrow()
	defer b.GiveBack()
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			socket.Receive(fd, b.From)
			socket.Send(fd, answer)
		})
	}
	conn.Close()
}
