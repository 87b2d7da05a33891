package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/certificates"
	"sluice/observe/panics"
	"sluice/proxy/http3"
	"sluice/proxy/proxyprotocol"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/route/places"
)

// listener is a listener that is being served.
type listener struct {
	net.Listener
	ListenerOptions
	server  *Server
	instead *routing // of a question, in place of the server's; else nil

	idleUntil atomic.Int64 // coarse time when idle connections end; 0: the listener does not drain
	cut       atomic.Bool  // the time for its requests is over
}

// acceptGrace is how long a closing listener accepts connections, because closing
// resets connections in the backlog.
const acceptGrace = 20 * time.Millisecond

// handshakeGrace is how long a server that ends waits for handshakes of QUIC, whose clients it
// serves.
const handshakeGrace = 3 * time.Second

// close ends Serve after acceptGrace, or if the server ends, also after the handshakes of QUIC.
func (l *listener) close() {
	if e, ok := l.Listener.(*http3.Endpoint); ok && l.server.draining.Load() {
		e.Stop(handshakeGrace)
		return
	}
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

// cutBy returns refusal.Cut if the time for what is left is over, else nil.
func (l *listener) cutBy() *refusal.Refusal {
	if l.server.cutting.Load() || l.cut.Load() {
		return refusal.Cut
	}
	return nil
}

// routing returns the routes of requests.
func (l *listener) routing() *routing {
	if l.instead != nil {
		return l.instead
	}
	return l.server.routing.Load()
}

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("server closed")

// ListenerOptions are the settings of a listener.
type ListenerOptions struct {
	Name string // for logs
	// TLS must not offer protocols except h2 and http/1.1, and none with Streams. nil: without TLS.
	TLS *tls.Config
	// Revocations, if not nil, returns the lists of revoked certificates now, for the clients of
	// open connections; nil: there are none. See [Server.EndRevoked].
	Revocations func() *certificates.Revocations
	// HTTP2: without TLS, clients may use HTTP/2. With TLS, they may if TLS offers h2.
	HTTP2 bool
	// StrictTransportSecurity is that field of responses; "": the peer's.
	StrictTransportSecurity string
	// AltSvc, if not nil, returns that field of responses now (RFC 7838); "": the peer's. It is
	// safe for concurrent use.
	AltSvc func() string
	// HTTPSPort is the port to which requests are redirected, except requests that came to
	// a trusted proxy by HTTPS; 0: none are.
	HTTPSPort int
	// Challenge, if not nil, returns the body of the response to a GET request for a
	// path below /.well-known/acme-challenge/; false: the request is served as any other.
	Challenge func(host, path string) (body []byte, ok bool)
	// Proxies are the networks, the zero prefix for unix sockets, whose connections must begin with
	// a PROXY header, which has the address of the client.
	Proxies []netip.Prefix
	// Streams makes the listener forward TCP. It returns where the next connection
	// goes. nil: the listener serves HTTP.
	Streams func() *Streams
}

// Serve accepts connections on l until Shutdown or until l is closed, and closes l.
// If ctx ends first, it returns ctx's error and leaves l open. After any other error
// of Accept, such as a lack of descriptors, it tries again.
func (s *Server) Serve(ctx context.Context, l net.Listener, o ListenerOptions) error {
	o.Proxies = route.Unmapped(o.Proxies)
	at := &listener{Listener: l, ListenerOptions: o, server: s}
	socket.DeferAccept(l, o.Streams == nil)
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		l.Close()
		return ErrServerClosed
	}
	s.listeners[at] = struct{}{}
	s.mu.Unlock()
	defer s.left(at)
	if e, ok := l.(*http3.Endpoint); ok {
		if err := e.Serve(s.http3Options(at)); err != nil {
			return fmt.Errorf("listener %q: HTTP/3: %w", o.Name, err)
		}
	}
	left := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer panics.Contain(panics.Task, nil)
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
			return fmt.Errorf("listener %q: %w", o.Name, err)
		}
		if pause == 0 {
			s.log.Warn().Err(err).Str("listener", o.Name).Msg("accept failed; retrying")
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
}

// alternativeServices returns the field Alt-Svc of responses; "": the peer's.
func (l *listener) alternativeServices() string {
	if l.AltSvc == nil {
		return ""
	}
	return l.AltSvc()
}

// scheme returns http or https.
func (l *listener) scheme() string {
	if l.TLS != nil {
		return "https"
	}
	return "http"
}

// An arrival is a new connection of a proxy whose PROXY header is awaited.
type arrival struct {
	entry    socket.SweepEntry
	server   *Server
	listener *listener
	conn     socket.Conn
	raw      syscall.RawConn
	from     proxyprotocol.Addresses // of the proxy
	admitted netip.Addr
	taken    bool // the connection is served, or closed
}

func (a *arrival) at() *listener { return a.listener }

// Parties and OnSweep implement sweepOwner of package socket.
func (a *arrival) Parties() (client, peer any) { return places.BlockOf(a.from.Client.Addr()), nil }
func (a *arrival) OnSweep(int64) int64         { return socket.Never }

// awaitProxyHeader serves a connection of a proxy that was admitted.
func (s *Server) awaitProxyHeader(at *listener, conn socket.Conn, from proxyprotocol.Addresses) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	a := &arrival{server: s, listener: at, conn: conn, raw: raw, from: from, admitted: from.Client.Addr()}
	a.entry.Owner = a
	return s.open(a, func() {
		s.sweeper.Add(&a.entry, conn, s.shards.Add(1))
		a.entry.Arm(s.sweeper, s.options.Load().Timeouts.Head)
		if s.draining.Load() { // Shutdown has drained all other connections
			a.drain(s.idleUntil.Load())
		}
		go a.serve()
	})
}

// drain implements connection. The wait for the header ends at the coarse time until, or earlier.
func (a *arrival) drain(until int64) {
	if a.entry.Deadline.Load() > until {
		a.entry.ArmRead(max(until, 1))
	}
}

// interrupt and abort implement connection.
func (a *arrival) interrupt() { a.conn.Close() }
func (a *arrival) abort()     { a.conn.Close() }

// serve reads the header and begins to serve the client.
func (a *arrival) serve() {
	s := a.server
	defer s.closed(a)
	defer panics.Contain(panics.Connection, a.close)
	of, err := a.read()
	a.entry.Remove()
	if err == nil {
		if err = s.begin(a.listener, a.conn, of); err == nil {
			a.taken = true
		}
	} else {
		s.log.Debug().Err(err).Str("listener", a.listener.Name).Stringer("proxy", a.from.Client.Addr()).Msg("no PROXY header was received")
	}
	a.close()
}

// close closes the connection, unless it is served.
func (a *arrival) close() {
	if a.taken {
		return
	}
	a.taken = true
	a.entry.Remove()
	a.server.admission.leave(a.admitted)
	a.conn.Close()
}

// read returns the addresses of the client, which it admits.
func (a *arrival) read() (of proxyprotocol.Addresses, err error) {
	s, proxy := a.server, a.from.Client.Addr()
	length, known := 0, false
	err = socket.AwaitPrelude(&a.entry, a.raw, s.sweeper, proxyprotocol.MaxBytes, func(b []byte) (_ bool, err error) {
		if length, err = proxyprotocol.Length(b); length > 0 {
			of, known, err = proxyprotocol.Parse(b[:length])
		}
		return length > 0, err
	})
	a.entry.Disarm()
	if err == nil {
		err = socket.Discard(a.raw, length)
	}
	switch {
	case err != nil:
		return of, err
	case !known:
		return a.from, nil
	case !s.admission.move(proxy, of.Client.Addr()):
		s.refused.Add(1)
		return of, fmt.Errorf("too many connections of %s", of.Client.Addr())
	}
	a.admitted = of.Client.Addr()
	return of, nil
}
