package gateway

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"sluice/test/testcert"
	"sluice/test/verify"
)

// serveTLS starts a server with the certificate that agrees to HTTP/2 if h2 is set.
func serveTLS(t *testing.T, files testcert.Files, h2 bool, handler http.HandlerFunc) (address string) {
	t.Helper()
	pair := verify.Result(tls.LoadX509KeyPair(files.Cert, files.Key)).Must(t)
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2, server.TLS = h2, &tls.Config{Certificates: []tls.Certificate{pair}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// keep makes the client keep its connections, and expect a certificate in file, for the name.
func (r *running) keep(file, name string) {
	r.t.Helper()
	r.trust(file, name)
	transport := r.client.Transport.(*http.Transport)
	transport.DisableKeepAlives = false
	r.t.Cleanup(transport.CloseIdleConnections)
}

// overTLS returns a configuration with a listener with TLS, and h2 to the peers of a service.
func overTLS(files testcert.Files, service string, peers ...string) string {
	return fmt.Sprintf(`
listeners: [{ name: web, address: "127.0.0.1:0" }, { name: websecure, address: "127.0.0.1:0", tls: { certificates: [{ cert: %[1]q, key: %[2]q }] } }]
services: { star: { peers: ["%[3]s"], upstream: { protocol: h2, tls: { ca: %[1]q, server_name: a.example } }%[4]s } }
routes: [{ service: star }]
`, files.Cert, files.Key, strings.Join(peers, `", "`), service)
}

// With protocol h2, requests of HTTP/1.1 and HTTP/2 go to the peer over HTTP/2 with TLS:
// bodies and trailers in both directions.
func TestHTTP2OverTLSToPeers(t *testing.T) {
	t.Parallel()
	files := testcert.Write(t, t.TempDir(), "a.example")
	peer := serveTLS(t, files, true, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.(http.Flusher).Flush()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Write(body)
		w.Header().Set("X-Sum", r.Trailer.Get("X-Sum")+" "+r.Proto+" "+r.TLS.ServerName)
	})
	r := start(t, overTLS(files, ", timeouts: { connect: 10m }", peer))
	r.keep(files.Cert, "a.example")
	body := strings.Repeat("0123456789", 30_000)
	for _, client := range []struct {
		proto, url string
	}{{"HTTP/1.1", r.url("web")}, {"HTTP/2.0", "https://" + r.Address("websecure").String()}} {
		request := verify.Result(http.NewRequest(http.MethodPost, client.url, io.MultiReader(strings.NewReader(body)))).Must(t)
		request.Header.Set("TE", "trailers")
		request.Trailer = http.Header{"X-Sum": {"sum"}}
		response := verify.Result(r.client.Do(request)).Must(t)
		got, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != 200 || response.Proto != client.proto || string(got) != body {
			t.Errorf("%s: status %d by %s, %d bytes, %v", client.proto, response.StatusCode, response.Proto, len(got), err)
		}
		verify.Equal(t, response.Trailer.Get("X-Sum"), "sum HTTP/2.0 a.example", "%s: trailer", client.proto)
	}
}

// A peer that does not agree to HTTP/2 counts as one that refuses connections.
func TestPeerWithoutHTTP2(t *testing.T) {
	t.Parallel()
	files := testcert.Write(t, t.TempDir(), "a.example")
	name := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }
	good := serveTLS(t, files, true, name)
	bad := serveTLS(t, files, false, name)
	const lenient = ", timeouts: { connect: 10m }, balance: { policy: round_robin }, health: { passive: { consecutive_failures: 0 } }"
	r := start(t, overTLS(files, lenient, bad, good))
	for range 4 {
		request := verify.Result(http.NewRequest(http.MethodPost, r.url("web"), strings.NewReader("once"))).Must(t)
		status, body := r.do(request)
		verify.That(t, status == 200 && body == "HTTP/2.0", "got %d %q, want the peer with HTTP/2", status, body)
	}
	r.await("failures are counted", func() bool { return r.peers()[bad].Failures > 0 })
	r.awaitLog("does not agree to HTTP/2")
	r.replace(overTLS(files, lenient, bad))
	response := verify.Result(r.client.Get(r.url("web"))).Must(t)
	response.Body.Close()
	reason := response.Header.Get("X-Sluice-Reason")
	verify.That(t, response.StatusCode == 502 && reason == "upstream_tls_failed", "without another peer: %d %s", response.StatusCode, reason)
}

// A client of gRPC with TLS, a server with TLS, and sluice's checks of it.
func TestGRPCOverTLSToPeers(t *testing.T) {
	t.Parallel()
	files := testcert.Write(t, t.TempDir(), "a.example")
	serverTLS := verify.Result(credentials.NewServerTLSFromFile(files.Cert, files.Key)).Must(t)
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	server := grpc.NewServer(grpc.Creds(serverTLS))
	healthy := health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, healthy)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		verify.Succeeds(t, <-served)
	})

	r := start(t, overTLS(files, ", health: { active: { type: grpc, tls: {}, interval: 50ms } }", l.Addr().String()))
	clientTLS := verify.Result(credentials.NewClientTLSFromFile(files.Cert, "a.example")).Must(t)
	conn := verify.Result(grpc.NewClient("passthrough:///"+r.Address("websecure").String(), grpc.WithTransportCredentials(clientTLS))).Must(t)
	defer conn.Close()
	state := func() string { return r.peers()[l.Addr().String()].State }
	r.await("the peer is up", func() bool { return state() == "up" })
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	verify.That(t, err == nil && answer.Status == grpc_health_v1.HealthCheckResponse_SERVING, "got %v, %v", answer, err)
	healthy.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	r.await("the check finds the peer not serving", func() bool { return state() != "up" })
}

// limits.connections_per_peer bounds the requests in flight on a peer with HTTP/2, of
// clients with HTTP/1.1 and HTTP/2. Others wait, up to limits.connection_wait.
func TestConnectionsPerPeerWithHTTP2(t *testing.T) {
	t.Parallel()
	const limit, each = 2, 4
	var inFlight, most atomic.Int64
	arrived, release := make(chan struct{}, 2*each), make(chan struct{})
	files := testcert.Write(t, t.TempDir(), "a.example")
	peer := serveTLS(t, files, true, func(w http.ResponseWriter, r *http.Request) {
		n := inFlight.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); {
			m = most.Load()
		}
		arrived <- struct{}{}
		<-release
		inFlight.Add(-1)
	})
	text := func(wait string) string {
		return overTLS(files, fmt.Sprintf(", timeouts: { connect: 10m, response_header: 10m }, limits: { connections_per_peer: %d, connection_wait: %s }", limit, wait), peer)
	}
	r := start(t, text("1m"))
	r.keep(files.Cert, "a.example")
	var running sync.WaitGroup
	finish := sync.OnceFunc(func() { close(release); running.Wait() })
	defer finish()
	var succeeded atomic.Int64
	send := func(url string) {
		running.Go(func() {
			response, err := r.client.Get(url)
			if err != nil {
				t.Error(err)
				return
			}
			response.Body.Close()
			if response.StatusCode == 200 {
				succeeded.Add(1)
			}
		})
	}
	web, websecure := r.url("web"), "https://"+r.Address("websecure").String()
	for range each {
		send(web)
		send(websecure)
	}
	for range limit {
		<-arrived
	}
	waiting := fmt.Sprintf("sluice_requests_pending{service=\"star\"} %d\n", 2*each-limit)
	r.await("the others wait", func() bool { return strings.Contains(r.metrics(), waiting) })

	r.replace(text("1ms"))
	response := verify.Result(r.client.Get(web)).Must(t)
	response.Body.Close()
	reason := response.Header.Get("X-Sluice-Reason")
	verify.That(t, response.StatusCode == 503 && reason == "connections_saturated", "with a short wait: %d %s", response.StatusCode, reason)
	finish()
	n := succeeded.Load()
	verify.That(t, n == 2*each, "%d of %d requests succeeded", n, 2*each)
	verify.Equal(t, most.Load(), limit, "up to requests in flight")
}
