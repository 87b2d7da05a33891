package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"

	own "sluice/proxy/http3"
	"sluice/proxy/packets"
	"sluice/test/http3test"
	"sluice/test/verify"
)

// serveHTTP3 serves HTTP/3 on a socket of its own, and returns its address.
func (p *testProxy) serveHTTP3(o ListenerOptions) string {
	p.t.Helper()
	return p.serveEndpoint(o).Addr().String()
}

// serveEndpoint is serveHTTP3 for one who needs the endpoint.
func (p *testProxy) serveEndpoint(o ListenerOptions) *own.Endpoint {
	p.t.Helper()
	conn := verify.Result(net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})).Must(p.t)
	socket := verify.Result(packets.New(conn)).Must(p.t)
	e := own.NewEndpoint(socket, func() { socket.Close() })
	if o.TLS == nil {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{certificate()}}
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx, e, o) }()
	p.t.Cleanup(func() {
		cancel()
		<-served
		e.Close()
	})
	return e
}

// http3Client returns a client of another implementation.
func http3Client(t testing.TB) *http.Client {
	client := &http3test.Client{Transport: http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	t.Cleanup(func() { client.Close() })
	return &http.Client{Transport: client, Timeout: patience}
}

func TestHTTP3(t *testing.T) {
	t.Parallel()
	origin := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Saw", r.Method+" "+r.Host+" "+r.URL.RequestURI()+" "+r.Header.Get("Via")+" "+r.Trailer.Get("After"))
		w.Header().Set("Trailer", "Late")
		w.Write(body)
		w.Header().Set("Late", "yes")
	})
	p := startProxy(t, Options{}, origin)
	address := p.serveHTTP3(ListenerOptions{Name: "h3"})
	client := http3Client(t)
	long := strings.Repeat("0123456789abcdef", 1<<16)
	for name, test := range map[string]struct{ method, body string }{
		"GET": {"GET", ""}, "POST": {"POST", "small"}, "long POST": {"POST", long},
	} {
		t.Run(name, func(t *testing.T) {
			var body io.Reader
			if test.body != "" {
				body = strings.NewReader(test.body)
			}
			request := verify.Result(http.NewRequest(test.method, "https://"+address+"/a?b=c", body)).Must(t)
			request.Header.Set("TE", "trailers")
			answer := verify.Result(client.Do(request)).Must(t)
			defer answer.Body.Close()
			got := string(verify.Result(io.ReadAll(answer.Body)).Must(t))
			verify.Equal(t, answer.StatusCode, 200, "status")
			verify.Equal(t, answer.Proto, "HTTP/3.0", "protocol")
			verify.That(t, got == test.body, "body of %d bytes, want %d", len(got), len(test.body))
			verify.Equal(t, answer.Header.Get("X-Saw"), test.method+" "+address+" /a?b=c 3.0 sluice", "what the peer saw")
			verify.Equal(t, answer.Trailer.Get("Late"), "yes", "trailer")
		})
	}
}
