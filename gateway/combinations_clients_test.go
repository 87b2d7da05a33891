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
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"sluice/test/verify"
)

// A generation is a gateway of TestCombinations, which an upgrade ends, and its clients.
type generation struct {
	*running
	starting sync.RWMutex // read-locked by requests that have not reached the gateway
	clients  []*http.Client
	sockets  []*xhttp2.Transport // for WebSocket over HTTP/2, by listener
	calls    []*grpc.ClientConn
	sessions tls.ClientSessionCache // of all generations
}

// The listeners for HTTP of TestCombinations. Clients have both protocols at each.
var combinedListeners = []string{"web", "secure", "proxied"}

const combinedHeader = "PROXY TCP4 127.0.0.9 127.0.0.1 4711 80\r\n"

// dial connects to a listener, with TLS for protocols where it has it.
func (g *generation) dial(ctx context.Context, listener string, protocols ...string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", g.Address(listener).String())
	if err != nil {
		return nil, err
	}
	switch listener {
	case "proxied":
		conn = &proxyConn{Conn: conn, header: []byte(combinedHeader)}
	case "told": // the peer speaks first
		io.WriteString(conn, combinedHeader)
	case "secure":
		secure := tls.Client(conn, g.clientConfig(protocols...))
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		return secure, nil
	}
	return conn, nil
}

func (g *generation) clientConfig(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "a.example.com", NextProtos: protocols, ClientSessionCache: g.sessions}
}

func newGeneration(t *testing.T, r *running, sessions tls.ClientSessionCache) *generation {
	t.Helper()
	g := &generation{running: r, sessions: sessions}
	for _, listener := range combinedListeners {
		for _, http2 := range []bool{false, true} {
			protocols := new(http.Protocols)
			protocols.SetHTTP1(!http2)
			protocols.SetHTTP2(http2)
			protocols.SetUnencryptedHTTP2(http2)
			transport := &http.Transport{
				Protocols: protocols, DisableCompression: true, ExpectContinueTimeout: 10 * patience, MaxIdleConnsPerHost: 10,
				TLSClientConfig: g.clientConfig(),
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					if listener == "secure" {
						return new(net.Dialer).DialContext(ctx, "tcp", g.Address(listener).String())
					}
					return g.dial(ctx, listener)
				},
			}
			cookies, _ := cookiejar.New(nil)
			g.clients = append(g.clients, &http.Client{
				Jar: cookies, Transport: transport, Timeout: 10 * patience,
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			})
		}
		g.sockets = append(g.sockets, &xhttp2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
			return g.dial(ctx, listener, "h2")
		}})
		security := insecure.NewCredentials()
		if listener == "secure" {
			security = credentials.NewTLS(g.clientConfig())
		}
		calls := verify.Result(grpc.NewClient("passthrough:///a.example.com", grpc.WithTransportCredentials(security),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				if listener == "secure" {
					return new(net.Dialer).DialContext(ctx, "tcp", g.Address(listener).String())
				}
				return g.dial(ctx, listener)
			}))).Must(t)
		g.calls = append(g.calls, calls)
	}
	t.Cleanup(g.closeClients)
	return g
}

// client returns the client for a listener.
func (g *generation) client(listener int, http2 bool) *http.Client {
	if http2 {
		return g.clients[listener*2+1]
	}
	return g.clients[listener*2]
}

func schemeOf(listener int) string {
	if combinedListeners[listener] == "secure" {
		return "https"
	}
	return "http"
}

// closeClients closes the connections that no request uses.
func (g *generation) closeClients() {
	for _, c := range g.clients {
		c.CloseIdleConnections()
	}
	for _, s := range g.sockets {
		s.CloseIdleConnections()
	}
}

// tunnel opens a WebSocket by HTTP/1.1 or HTTP/2, and returns it with the path that its peer got.
func (g *generation) tunnel(ctx context.Context, listener int, http2 bool, target string) (io.ReadWriteCloser, string, error) {
	if http2 {
		body, up := io.Pipe()
		r, err := http.NewRequestWithContext(ctx, http.MethodConnect, "https://a.example.com"+target, body)
		if err != nil {
			return nil, "", err
		}
		r.GetBody = func() (io.ReadCloser, error) { // for a request that no server has got, because its connection was ending
			body, up = io.Pipe()
			return body, nil
		}
		r.Header.Set(":protocol", "websocket")
		r.Header.Set("Sec-WebSocket-Version", "13")
		response, err := g.sockets[listener].RoundTrip(r)
		if err != nil {
			return nil, "", err
		}
		if response.StatusCode != http.StatusOK {
			response.Body.Close()
			return nil, "", fmt.Errorf("WebSocket over HTTP/2: %s, %s", response.Status, response.Header.Get("X-Sluice-Reason"))
		}
		return struct {
			io.Reader
			io.WriteCloser
		}{response.Body, up}, response.Header.Get("X-Path"), nil
	}
	conn, err := g.dial(ctx, combinedListeners[listener], "http/1.1")
	if err != nil {
		return nil, "", err
	}
	conn.SetDeadline(time.Now().Add(10 * patience))
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", target, key)
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err == nil && (response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Sec-WebSocket-Accept") != webSocketAccept(key)) {
		err = fmt.Errorf("WebSocket: %s, %s", response.Status, response.Header.Get("X-Sluice-Reason"))
	}
	if err != nil {
		conn.Close()
		return nil, "", err
	}
	return struct {
		io.Reader
		io.WriteCloser
	}{in, conn}, response.Header.Get("X-Path"), nil
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
