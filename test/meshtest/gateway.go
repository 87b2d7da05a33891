package meshtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// Gateway behaves as Envoy as a mesh gateway: it reads the server name of a ClientHello, and passes
// the connection through to an instance of the service that it names, without ending TLS. It knows
// the names of services of its own data centre, "[SUBSET.]NAME.default.DC.internal.TRUSTDOMAIN"
// (agent/connect/sni.go), and those of Route; it closes all others.
type Gateway struct {
	Address string

	mesh        *Mesh
	connections atomic.Int64

	// mu guards the field below.
	mu     sync.Mutex
	routes map[string]string
}

// Gateway registers a mesh gateway with an address in the LAN and the WAN, which are the same, and
// serves until t ends.
func (m *Mesh) Gateway(t testing.TB, name string) *Gateway {
	t.Helper()
	l := verify.Result(consultest.Listen()).Must(t)
	g := &Gateway{Address: l.Addr().String(), mesh: m, routes: make(map[string]string)}
	accept(t, l, g.serve)
	port := l.Addr().(*net.TCPAddr).Port
	at := api.ServiceAddress{Address: "127.0.0.1", Port: port}
	verify.NoError(t, m.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		Kind: api.ServiceKindMeshGateway, ID: name, Name: name, Address: at.Address, Port: port,
		TaggedAddresses: map[string]api.ServiceAddress{"lan": at, "wan": at},
	}))
	t.Cleanup(func() { _ = m.Client().Agent().ServiceDeregister(name) })
	return g
}

// Route makes the gateway pass connections for a server name to an address, such as one of a
// subset, or of another gateway.
func (g *Gateway) Route(serverName, address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.routes[strings.ToLower(serverName)] = address
}

// Connections returns how many connections it has passed through.
func (g *Gateway) Connections() int64 { return g.connections.Load() }

func (g *Gateway) serve(client net.Conn) {
	name, begin, err := readServerName(client)
	if err != nil {
		return
	}
	address, err := g.addressOf(strings.ToLower(name))
	if err != nil {
		return
	}
	peer, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	g.connections.Add(1)
	var answers sync.WaitGroup
	answers.Go(func() {
		_, _ = io.Copy(client, peer)
		client.Close()
	})
	if _, err := peer.Write(begin); err == nil {
		_, _ = io.Copy(peer, client)
	}
	peer.Close()
	answers.Wait()
}

// addressOf returns where connections for a server name go.
func (g *Gateway) addressOf(name string) (string, error) {
	if address, ok := g.route(name); ok {
		return address, nil
	}
	before, _, ok := strings.Cut(name, ".default.")
	if !ok {
		return "", fmt.Errorf("no route for %q", name)
	}
	service := before[strings.LastIndexByte(before, '.')+1:]
	found, _, err := g.mesh.Client().Health().Connect(service, "", true, nil)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("no instance of %s: %w", service, err)
	}
	first := found[0].Service
	return net.JoinHostPort(first.Address, strconv.Itoa(first.Port)), nil
}

func (g *Gateway) route(name string) (address string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	address, ok = g.routes[name]
	return address, ok
}

// readServerName reads a ClientHello, and returns its server name and all bytes read.
func readServerName(c net.Conn) (name string, begin []byte, err error) {
	var read bytes.Buffer
	enough := errors.New("the ClientHello is read")
	err = tls.Server(recorder{c, io.TeeReader(c, &read)}, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		name = hello.ServerName
		return nil, enough
	}}).HandshakeContext(context.Background())
	if !errors.Is(err, enough) {
		return "", nil, err
	}
	return name, read.Bytes(), nil
}

// recorder is a connection that is only read.
type recorder struct {
	net.Conn
	from io.Reader
}

func (r recorder) Read(p []byte) (int, error)  { return r.from.Read(p) }
func (r recorder) Write(p []byte) (int, error) { return len(p), nil } // the alert
