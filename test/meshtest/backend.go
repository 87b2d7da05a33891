package meshtest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// InstanceHeader is the header of an answer with the name of the instance.
const InstanceHeader = "X-Instance"

// Handler answers as an instance with a name, which is in the header X-Instance of each answer:
//
//   - gRPC: grpc.health.v1.Health;
//   - WebSocket: each message returns;
//   - a request with a body: the body returns while it arrives;
//   - every other request: the name is the body.
//
// The headers of the request return with the prefix "Got-", except for gRPC.
func Handler(name string) http.Handler {
	calls := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(calls, health.NewServer())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(InstanceHeader, name)
		switch {
		case r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
			calls.ServeHTTP(w, r)
		case r.Header.Get("Upgrade") == "websocket":
			echoMessages(w, r)
		default:
			for key, values := range r.Header {
				w.Header()["Got-"+key] = values
			}
			w.Header().Set("Got-Path", r.URL.RequestURI())
			answer(w, r, name)
		}
	})
}

// answer writes the body of the request, or the name.
func answer(w http.ResponseWriter, r *http.Request, name string) {
	if r.ContentLength == 0 {
		io.WriteString(w, name)
		return
	}
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/2 has it always
	buffer := make([]byte, 16<<10)
	for {
		n, err := r.Body.Read(buffer)
		if _, failed := w.Write(buffer[:n]); failed != nil {
			return
		}
		control.Flush()
		if err != nil {
			return
		}
	}
}

func echoMessages(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

// ServeHTTP serves Handler on a port of 127.0.0.1 until t ends: HTTP/1.1 and, with prior knowledge,
// HTTP/2 without TLS. It is what is behind a sidecar.
func ServeHTTP(t testing.TB, name string) *net.TCPAddr {
	t.Helper()
	l := verify.Result(consultest.Listen()).Must(t)
	serve(t, l, Handler(name))
	return l.Addr().(*net.TCPAddr)
}

// serve serves a handler until t ends: HTTP/1.1, and HTTP/2 by its first bytes, over TLS too.
func serve(t testing.TB, l net.Listener, h http.Handler) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: h, Protocols: protocols, ErrorLog: silent, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		err := <-ended
		verify.That(t, errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed), "serve: %v", err)
	})
}

// ServeTCP serves connections on a port of 127.0.0.1 until t ends: each gets the name in a line,
// and then what it sends.
func ServeTCP(t testing.TB, name string) *net.TCPAddr {
	t.Helper()
	l := verify.Result(consultest.Listen()).Must(t)
	accept(t, l, func(c net.Conn) { echo(c, name) })
	return l.Addr().(*net.TCPAddr)
}

func echo(c net.Conn, name string) {
	if _, err := io.WriteString(c, name+"\n"); err == nil {
		_, _ = io.Copy(c, c) // until an end
	}
}

// serveTLS is serve over TLS. tlsOf returns the connection of a request.
func serveTLS(t testing.TB, l net.Listener, h http.Handler, config *tls.Config) {
	serve(t, tlsListener{l, config}, h)
}

// tlsListener hides from net/http that its connections have TLS: it would take HTTP/2 by ALPN only,
// as Envoy does not.
type tlsListener struct {
	net.Listener
	config *tls.Config
}

func (l tlsListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	secure := tls.Server(c, l.config)
	return &hiddenTLS{secure, secure}, nil
}

type hiddenTLS struct {
	net.Conn
	tls *tls.Conn
}

type connKey struct{}

// tlsOf returns the state of the connection of a request that serveTLS serves.
func tlsOf(r *http.Request) tls.ConnectionState {
	return r.Context().Value(connKey{}).(*hiddenTLS).tls.ConnectionState()
}
