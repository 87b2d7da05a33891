package proxy

import (
	"crypto/tls"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/route"
	"sluice/test/verify"
)

// tlsOrigin is a server of TLS with the certificate of tests, which tells its name.
func tlsOrigin(t *testing.T, name string, config *tls.Config) *origin {
	return startOrigin(t, func(c *originConn) bool {
		conn := tls.Server(bufferedConn{c}, config)
		io.WriteString(conn, name)
		conn.CloseWrite()
		io.Copy(io.Discard, conn)
		return false
	})
}

// bufferedConn reads from the origin's reader.
type bufferedConn struct{ *originConn }

func (c bufferedConn) Read(b []byte) (int, error) { return c.originConn.Read(b) }

func TestStreamsByServerName(t *testing.T) {
	t.Parallel()
	config := &tls.Config{Certificates: []tls.Certificate{certificate()}}
	p := startProxy(t, Options{Timeouts: Timeouts{Head: 2 * time.Second}}, tlsOrigin(t, "git", config).address())
	git := p.service
	other := newUnmanagedProxy(t, Options{}, tlsOrigin(t, "other", config).address())
	t.Cleanup(func() {
		other.Shutdown(t.Context(), 0)
		other.pool.Close()
	})
	names := verify.Result(route.NewTable([]route.Route{{Host: "git.example.com", Path: "/", Service: git}, {Host: "*.git.example.com", Path: "/", Service: git}})).Must(t)
	var streams atomic.Pointer[Streams]
	streams.Store(&Streams{Names: names, Other: &route.Route{Service: other.service}})
	p.serveProxies(ListenerOptions{Streams: streams.Load})
	dial := func(name string) (string, error) {
		conn := p.stream()
		io.WriteString(conn, "PROXY UNKNOWN\r\n")
		secure := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		got, err := io.ReadAll(secure)
		return string(got), err
	}
	for name, want := range map[string]string{"git.example.com": "git", "GIT.example.com": "git", "a.git.example.com": "git", "x.example.com": "other", "": "other"} {
		got, err := dial(name)
		verify.That(t, got == want && err == nil, "%q: got %q, %v, want %q", name, got, err, want)
	}
	streams.Store(&Streams{Names: names})
	got, err := dial("x.example.com")
	verify.That(t, err != nil && strings.Contains(err.Error(), "unrecognized name"), "without a service: got %q, %v, want the alert", got, err)
	for _, sent := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01"} { // no TLS, and too slow
		conn := p.stream()
		io.WriteString(conn, "PROXY UNKNOWN\r\n"+sent)
		got, _ := io.ReadAll(conn)
		verify.That(t, len(got) == 0, "%q: got %q", sent, got)
	}
	eventually(t, "all are counted", func() bool {
		s := p.Stats().Unrouted
		return s.Total() == 3
	})
}

// The routes count that are in use when the ClientHello has come, not those of the connection's
// begin.
func TestStreamsByServerNameAfterAReload(t *testing.T) {
	t.Parallel()
	config := &tls.Config{Certificates: []tls.Certificate{certificate()}}
	p := startProxy(t, Options{Timeouts: Timeouts{Head: patience}}, tlsOrigin(t, "now", config).address())
	former := newUnmanagedProxy(t, Options{}, tlsOrigin(t, "former", config).address())
	t.Cleanup(func() {
		former.Shutdown(t.Context(), 0)
		former.pool.Close()
	})
	table := func(service *route.Service) *route.Table {
		return verify.Result(route.NewTable([]route.Route{{Host: "git.example.com", Path: "/", Service: service}})).Must(t)
	}
	for name, now := range map[string]*Streams{
		"another service": {Names: table(p.service)}, "one for all": {Other: &route.Route{Service: p.service}},
	} {
		t.Run(name, func(t *testing.T) {
			var streams atomic.Pointer[Streams]
			streams.Store(&Streams{Names: table(former.service)})
			looked := make(chan struct{}, 1)
			p.serveProxies(ListenerOptions{Streams: func() *Streams {
				defer func() {
					select {
					case looked <- struct{}{}:
					default:
					}
				}()
				return streams.Load()
			}})
			conn := p.stream()
			io.WriteString(conn, "PROXY UNKNOWN\r\n")
			<-looked // it waits for the ClientHello
			streams.Store(now)
			got, err := io.ReadAll(tls.Client(conn, &tls.Config{ServerName: "git.example.com", InsecureSkipVerify: true}))
			verify.That(t, string(got) == "now" && err == nil, "got %q, %v", got, err)
		})
	}
}

// A server name for which a bounded expression would take too long gets no service, not the one for
// all others.
func TestAServerNameOverTheBudgetOfExpressionsIsRefused(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Timeouts: Timeouts{Head: patience}}, tlsOrigin(t, "now", &tls.Config{Certificates: []tls.Certificate{certificate()}}).address())
	var routes []route.Route
	for i := range 30 { // each name takes a 20th of the budget
		routes = append(routes, route.Route{HostRegexp: strings.Repeat("[a-d]?", 60+i) + "z", Path: "/", Service: p.service, Bounded: true})
	}
	streams := &Streams{Names: verify.Result(route.NewTable(routes)).Must(t), Other: &route.Route{Service: p.service}}
	p.serveProxies(ListenerOptions{Streams: func() *Streams { return streams }})
	for name, passes := range map[string]bool{"e.example": true, strings.Repeat("abcd.", 50) + "e": false} {
		conn := p.stream()
		io.WriteString(conn, "PROXY UNKNOWN\r\n")
		got, err := io.ReadAll(tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true}))
		verify.That(t, (string(got) == "now") == passes, "%.20s: got %q, %v", name, got, err)
	}
}
