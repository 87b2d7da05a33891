package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/proxy/upstream"
)

// A consulOfTest says what the mesh denies.
type consulOfTest struct {
	mu      sync.Mutex
	denied  map[string]bool // by service
	ended   map[string]time.Time
	changed chan struct{}
	waits   atomic.Int64 // calls of AwaitDenial
}

func newConsulOfTest() *consulOfTest {
	return &consulOfTest{denied: make(map[string]bool), ended: make(map[string]time.Time), changed: make(chan struct{})}
}

func (c *consulOfTest) say(service string, denied bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denied[service] = denied
	c.ended[service] = time.Now()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *consulOfTest) get(i discovery.Instance) (*discovery.Denial, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	service := i.Identity[strings.LastIndexByte(i.Identity, '/')+1:]
	if c.denied[service] || time.Since(c.ended[service]) < patience { // see mesh.Intentions; the machine may stand still
		return &discovery.Denial{Source: "sluice", Destination: service, Why: "the test"}, nil
	}
	return nil, c.changed
}

func (c *consulOfTest) Denial(i discovery.Instance) *discovery.Denial {
	d, _ := c.get(i)
	return d
}

func (c *consulOfTest) AwaitDenial(ctx context.Context, i discovery.Instance) *discovery.Denial {
	c.waits.Add(1)
	for ctx.Err() == nil {
		d, changed := c.get(i)
		if d != nil {
			return d
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// How a peer of the mesh denies connections.
type denyMode string

const (
	byAlert     denyMode = "an alert behind the handshake" // TLS 1.3, as Connect's own servers
	inHandshake denyMode = "an alert in the handshake"     // TLS 1.2
	byClose     denyMode = "a close behind the handshake"  // as Envoy with network RBAC
)

// A meshPeer is an instance of a service in the mesh. It serves /, /wait, which is answered when
// answer has a value, and /long, whose body does not end, by HTTP/1.1, HTTP/2 and gRPC, and echoes
// after an upgrade.
type meshPeer struct {
	discovery.Instance
	denies   atomic.Bool
	accepted atomic.Int64
	begun    atomic.Int64 // requests for /wait and /long, and upgrades
	answer   chan struct{}
}

// startMeshPeer starts an instance of a service. With stream it echoes connections.
func startMeshPeer(t *testing.T, service string, mode denyMode, stream bool) *meshPeer {
	t.Helper()
	l := listen(t)
	at := l.Addr().(*net.TCPAddr)
	p := &meshPeer{answer: make(chan struct{}), Instance: discovery.Instance{
		Service: service, ID: l.Addr().String(), Address: at.IP.String(), Port: at.Port, Weight: 1, Identity: "/ns/default/dc/dc1/svc/" + service,
	}}
	config := &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2", "http/1.1"}}
	if mode == inHandshake {
		config.MaxVersion = tls.VersionTLS12
	}
	config.VerifyConnection = func(tls.ConnectionState) error {
		if p.denies.Load() && mode != byClose {
			return errors.New("denied")
		}
		return nil
	}
	conns := &connListener{Listener: l, conns: make(chan net.Conn), ended: make(chan struct{})}
	server := &http.Server{Handler: http.HandlerFunc(p.serve), TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(conns) })
	serving.Go(func() {
		acceptAll(l, func(raw net.Conn) {
			p.accepted.Add(1)
			c := tls.Server(raw, config)
			c.SetDeadline(time.Now().Add(patience))
			err := c.Handshake()
			c.SetDeadline(time.Time{})
			switch {
			case err != nil, p.denies.Load() && mode == byClose:
				c.Close()
			case stream:
				defer c.Close()
				stop := context.AfterFunc(t.Context(), func() { c.Close() })
				defer stop()
				_, _ = io.Copy(c, c)
			default:
				select {
				case conns.conns <- c:
				case <-conns.ended:
					c.Close()
				}
			}
		})
	})
	t.Cleanup(func() {
		server.Close()
		serving.Wait()
	})
	return p
}

// A connListener accepts connections that somebody else has accepted.
type connListener struct {
	net.Listener
	conns chan net.Conn
	ended chan struct{}
	once  sync.Once
}

func (l *connListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

func (l *connListener) Close() error {
	l.once.Do(func() { close(l.ended) })
	return l.Listener.Close()
}

func (p *meshPeer) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Content-Type") == "application/grpc":
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.Write(make([]byte, 5)) // an empty message
		w.Header().Set("Grpc-Status", "0")
	case r.Header.Get("Upgrade") != "":
		c, b, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		p.begun.Add(1)
		_, _ = io.Copy(c, b)
	case r.URL.Path == "/wait":
		p.begun.Add(1)
		select {
		case <-p.answer:
		case <-r.Context().Done():
		}
	case r.URL.Path == "/long":
		io.WriteString(w, "begun")
		w.(http.Flusher).Flush()
		p.begun.Add(1)
		<-r.Context().Done()
	default:
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "ok")
	}
}

// useMesh makes the peers of p those of the mesh.
func (p *testProxy) useMesh(consul upstream.Intentions, http2 bool, peers ...*meshPeer) {
	p.t.Helper()
	o := someTransport
	o.TLS, o.Intentions = anyCertificate, consul
	p.usePeers(http2, o, balancer.Options{Policy: balancer.PolicyRoundRobin})
	var set []discovery.Instance
	for _, peer := range peers {
		set = append(set, peer.Instance)
	}
	p.pool.Apply(set)
}

// turn makes peers deny or allow from now on, and the test's Consul, which ends connections. Consul
// is the first to know of a denial, and the last to know of its end: else what a peer ends between
// may be unexplained, and is a failure.
func (p *testProxy) turn(consul *consulOfTest, denies bool, peers ...*meshPeer) {
	if denies {
		consul.say(peers[0].Service, true)
	}
	for _, peer := range peers {
		peer.denies.Store(denies)
	}
	if !denies {
		consul.say(peers[0].Service, false)
		return
	}
	p.cut(peers[0].Service)
}

// cut ends the connections to the peers of a service, and those that are being made.
func (p *testProxy) cut(service string) {
	for _, peer := range p.pool.Snapshot().All {
		if peer.Instance().Service == service {
			peer.Transport.(upstream.Connector).Cut()
		}
	}
}
