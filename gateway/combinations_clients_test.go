//lint:file-ignore SA1019 net/http refuses the field :protocol.

package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	xhttp2 "golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"sluice/proxy/proxyprotocol"
	"sluice/test/verify"
)

// A generation is a gateway of a world, which an upgrade ends, and its clients.
type generation struct {
	*running
	run      *combinedRun // nil: clients have no certificates and no cookies
	starting sync.RWMutex // read-locked by requests that have not reached the gateway
	clients  map[combinedClient]*generationClients
	terms    changingTerms
	accepted sync.Map // from the addresses of connections to functions that return the terms on which they may have been accepted
}

// generationClients are what a client sends requests with.
type generationClients struct {
	http    map[string]*http.Client // by protocol
	sockets *xhttp2.Transport       // for WebSocket over HTTP/2
	calls   *grpc.ClientConn
}

const combinedHeader = "PROXY TCP4 127.0.0.9 127.0.0.1 4711 80\r\n"

// open connects a client to its listener, before TLS.
func (g *generation) open(ctx context.Context, c combinedClient) (net.Conn, error) {
	begun := g.terms.begin()
	at := g.Address(c.listener)
	conn, err := c.dialer().DialContext(ctx, at.Network(), at.String())
	if err != nil {
		return nil, err
	}
	g.accepted.Store(endsOf(conn.LocalAddr(), conn.RemoteAddr()), func() []terms { return g.terms.since(begun) })
	switch c.listener {
	case "proxied":
		conn = &proxyConn{Conn: conn, header: []byte(combinedHeader)}
	case "relayed":
		conn = &proxyConn{Conn: conn, header: proxyprotocol.Header(2, proxyprotocol.Addresses{
			Client: netip.MustParseAddrPort("127.0.0.9:4711"), Server: netip.MustParseAddrPort("127.0.0.1:80")})}
	case "told": // the peer speaks first
		io.WriteString(conn, combinedHeader)
	}
	return conn, nil
}

// dial connects a client to its listener, with TLS for protocols where it has it.
func (g *generation) dial(ctx context.Context, c combinedClient, protocols ...string) (net.Conn, error) {
	conn, err := g.open(ctx, c)
	if err != nil || !c.secure() {
		return conn, err
	}
	secure := tls.Client(conn, g.clientConfig(c, protocols...))
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	ends := endsOf(conn.LocalAddr(), conn.RemoteAddr())
	g.shaken(c, ends, secure.ConnectionState(), g.acceptedBy(ends))
	return secure, nil
}

// shaken notes what the handshake of a connection between ends has met, and looks at the outcome.
func (g *generation) shaken(c combinedClient, ends string, state tls.ConnectionState, by []terms) {
	g.accepted.Store(ends, func() []terms { return by })
	if state.DidResume && c.asked() && !slices.ContainsFunc(by, func(t terms) bool { return t.auth == "" }) {
		g.t.Errorf("seed %d: %v has resumed a session, so its certificate is not verified: %v", g.run.seed, c, by)
	}
}

func endsOf(local, remote net.Addr) string {
	return fmt.Sprint(local.Network(), " ", local, " ", remote)
}

// acceptedBy returns the terms on which a connection may have been accepted.
func (g *generation) acceptedBy(ends string) []terms {
	by, ok := g.accepted.Load(ends)
	if !ok {
		return nil
	}
	return by.(func() []terms)()
}

// clientConfig returns the TLS of a client, with one of two versions at random.
func (g *generation) clientConfig(c combinedClient, protocols ...string) *tls.Config {
	config := &tls.Config{InsecureSkipVerify: true, ServerName: "a.example.com", NextProtos: protocols, ClientSessionCache: g.run.sessions}
	pair := g.run.servers.clients[c.who]
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	if c.asked() && g.run.handshakes.Add(1)%2 == 0 {
		config.MaxVersion = tls.VersionTLS12
	}
	return config
}

// newGeneration returns a gateway that begins with the newest configuration of a run.
func newGeneration(c *combinedRun, r *running) *generation {
	r.t.Helper()
	g := &generation{running: r, run: c, clients: make(map[combinedClient]*generationClients)}
	g.terms.publish(c.terms)
	g.connect(slices.Concat(openClients, localClients, certifiedClients, greedyClients)...)
	return g
}

// connect gives a generation clients.
func (g *generation) connect(all ...combinedClient) {
	for _, who := range all {
		clients := &generationClients{http: make(map[string]*http.Client), calls: g.callsOf(who)}
		for _, protocol := range []string{protocolHTTP1, protocolHTTP2, protocolHTTP3} {
			client := newCombinedClient(protocol != protocolHTTP1, greedyRequests, func(ctx context.Context) (net.Conn, error) {
				return g.dial(ctx, who, protocol)
			})
			if protocol == protocolHTTP3 {
				client.Transport = newHTTP3Client(clients.http[protocolHTTP2].Transport, func(ctx context.Context, config *quic.Config) (*quic.Conn, error) {
					return g.dialHTTP3(ctx, who, config)
				})
			}
			if g.run != nil {
				client.Jar, _ = cookiejar.New(nil)
			}
			clients.http[protocol] = client
		}
		clients.sockets = &xhttp2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
			return g.dial(ctx, who, protocolHTTP2)
		}}
		g.clients[who] = clients
	}
	g.t.Cleanup(g.closeClients)
}

// newCombinedClient returns a client with one of two protocols, and at most this number of idle
// connections. dial is to begin TLS where the URL asks for it.
func newCombinedClient(http2 bool, idle int, dial func(context.Context) (net.Conn, error)) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	protocols.SetUnencryptedHTTP2(http2)
	connect := func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	return &http.Client{
		Timeout: 10 * patience,
		Transport: &http.Transport{
			Protocols: protocols, DisableCompression: true, ExpectContinueTimeout: 10 * patience, MaxIdleConnsPerHost: idle,
			DialContext: connect, DialTLSContext: connect,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// callsOf returns connections of a client for gRPC.
func (g *generation) callsOf(c combinedClient) *grpc.ClientConn {
	security := insecure.NewCredentials()
	if c.secure() {
		security = credentials.NewTLS(g.clientConfig(c))
	}
	return verify.Result(grpc.NewClient("passthrough:///a.example.com", grpc.WithTransportCredentials(security),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return g.open(ctx, c) }))).Must(g.t)
}

// closeClients closes the connections that no request uses.
func (g *generation) closeClients() {
	for _, c := range g.clients {
		for _, client := range c.http {
			client.CloseIdleConnections()
		}
		c.sockets.CloseIdleConnections()
	}
}

// A turnedAway is the outcome for a client in place of what it wants.
type turnedAway string

func (r turnedAway) Error() string { return "turned away: " + string(r) }

// halves are both directions of a connection.
type halves struct {
	io.Reader
	io.WriteCloser
}

// lastOf ends a tunnel, and closes the other direction at its end.
type lastOf struct {
	io.WriteCloser
	other io.ReadCloser
}

func (l lastOf) Close() error {
	l.WriteCloser.Close()
	io.Copy(io.Discard, l.other)
	return l.other.Close()
}

// tunnel opens a WebSocket, and returns it with the path that its peer got.
func (e *entrance) tunnel(ctx context.Context, protocol, target string, barred bool) (io.ReadWriteCloser, string, error) {
	if protocol != protocolHTTP1 {
		body, up := io.Pipe()
		r, err := http.NewRequestWithContext(ctx, http.MethodConnect, "https://a.example.com"+target, body)
		if err != nil {
			return nil, "", err
		}
		r.GetBody = func() (io.ReadCloser, error) { // for a request that no server has got, because its connection was ending
			up.Close()
			body, up = io.Pipe()
			return body, nil
		}
		sockets := http.RoundTripper(e.clients[e.combinedClient].sockets)
		if protocol == protocolHTTP3 {
			sockets, r.Proto = e.clients[e.combinedClient].http[protocol].Transport, "websocket"
		} else {
			r.Header.Set(":protocol", "websocket")
		}
		r.Header.Set(isBarred, fmt.Sprint(barred))
		r.Header.Set("Sec-WebSocket-Version", "13")
		response, err := sockets.RoundTrip(r.WithContext(e.traced(ctx)))
		if err != nil || response.StatusCode != http.StatusOK {
			up.Close()
		}
		if errors.As(err, new(unreachable)) {
			return e.tunnel(ctx, protocolHTTP2, target, barred)
		}
		if err != nil {
			return nil, "", err
		}
		if response.StatusCode != http.StatusOK {
			response.Body.Close()
			return nil, "", notSwitched(response)
		}
		if protocol == protocolHTTP3 {
			return halves{response.Body, lastOf{up, response.Body}}, response.Header.Get("X-Path"), nil
		}
		return halves{response.Body, up}, response.Header.Get("X-Path"), nil
	}
	conn, err := e.dial(ctx, e.combinedClient, protocolHTTP1)
	if err != nil {
		return nil, "", err
	}
	e.uses(conn.LocalAddr(), conn.RemoteAddr())
	conn.SetDeadline(time.Now().Add(10 * patience))
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s: %t\r\n\r\n", target, key, isBarred, barred)
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err == nil && (response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Sec-WebSocket-Accept") != webSocketAccept(key)) {
		err = notSwitched(response)
	}
	if err != nil {
		conn.Close()
		return nil, "", err
	}
	return halves{in, conn}, response.Header.Get("X-Path"), nil
}

func notSwitched(response *http.Response) error {
	if outcome := outcomeOf(response); outcome != "" {
		return turnedAway(outcome)
	}
	return fmt.Errorf("no WebSocket: %s, %s", response.Status, response.Header.Get("X-Sluice-Reason"))
}

// echoes sends a text in pieces, and reads it back.
func echoes(conn io.ReadWriter, text string, pieces int) error {
	sent := make(chan error, 1)
	go func() {
		for i := range pieces {
			if _, err := io.WriteString(conn, text[len(text)*i/pieces:len(text)*(i+1)/pieces]); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	got := make([]byte, len(text))
	n, err := io.ReadFull(conn, got)
	if err != nil || string(got) != text {
		return fmt.Errorf("%d of %d bytes came back, equal %t: %w", n, len(text), string(got) == text, errors.Join(err, errors.New("echo")))
	}
	return <-sent
}
