package healthcheck

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/certificates"
	"sluice/test/verify"
)

// newHTTP2 returns a probe with the defaults of the configuration.
func newHTTP2(o HTTPOptions) *HTTP {
	o.HTTP2 = true
	return newHTTP(o)
}

// startHTTP2 starts a server with HTTP/2 only. opened counts its connections.
func startHTTP2(t *testing.T, secure bool, handler http.HandlerFunc) (server *httptest.Server, opened *atomic.Int32) {
	t.Helper()
	opened = new(atomic.Int32)
	server = httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.Protocols = new(http.Protocols)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	if secure {
		server.Config.Protocols.SetHTTP2(true)
		server.EnableHTTP2 = true
		server.StartTLS()
	} else {
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
	}
	t.Cleanup(server.Close)
	return server, opened
}

func TestHTTP2(t *testing.T) {
	anyCertificate := fixed{&tls.Config{InsecureSkipVerify: true}}
	for _, secure := range []bool{false, true} {
		var config certificates.Security
		if secure {
			config = anyCertificate
		}
		server, opened := startHTTP2(t, secure, func(w http.ResponseWriter, r *http.Request) {
			if r.Proto != "HTTP/2.0" || r.Host != "star.example" || r.Header.Get("A") != "b" || r.UserAgent() != "sluice-healthcheck" || r.URL.RawQuery != "c=d" {
				t.Errorf("request %s %s %s %v", r.Proto, r.Host, r.URL, r.Header)
			}
			if r.URL.Path == "/fails" {
				w.WriteHeader(503)
			}
			io.WriteString(w, "all is well"+strings.Repeat(".", 100_000))
		})
		address := server.Listener.Addr().String()
		for _, reuse := range []bool{false, true} {
			before := opened.Load()
			for _, test := range []struct{ path, text, want string }{
				{"/", "", ""},
				{"/", "is well", ""},
				{"/", "is ill", `answer does not contain "is ill"`},
				{"/fails", "", "status 503, want 200-299"},
			} {
				probe := newHTTP2(HTTPOptions{
					Path: test.path + "?c=d", Host: "star.example", Headers: [][2]string{{"A", "b"}}, TLS: config, Reuse: reuse,
					Body: Expectation{Text: test.text, Within: 1000},
				})
				for range 2 {
					verify.Equal(t, check(t, probe, address, patience), test.want, "%s", probe)
				}
				probe.Close()
			}
			want := int32(8)
			if reuse {
				want = 4
			}
			verify.Equal(t, opened.Load()-before, want, "TLS %v, reuse %v: connections", secure, reuse)
		}
	}
}

// A peer without HTTP/2 fails, and a reused connection that it has closed does not.
func TestHTTP2Failures(t *testing.T) {
	ok := func(http.ResponseWriter, *http.Request) {}
	plain := httptest.NewServer(http.HandlerFunc(ok))
	defer plain.Close()
	verify.That(t, check(t, newHTTP2(HTTPOptions{}), plain.Listener.Addr().String(), patience) != "",
		"HTTP/1.1 passes")
	secure := httptest.NewUnstartedServer(http.HandlerFunc(ok))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	for what, config := range map[string]*tls.Config{"HTTP/1.1 over TLS": {InsecureSkipVerify: true}, "unknown CA": {}} {
		got := check(t, newHTTP2(HTTPOptions{TLS: fixed{config}}), secure.Listener.Addr().String(), patience)
		verify.That(t, strings.HasPrefix(got, "TLS handshake: "), "%s: %q", what, got)
	}

	large, _ := startHTTP2(t, false, func(w http.ResponseWriter, _ *http.Request) {
		for n := range 40 {
			w.Header().Set("A"+strconv.Itoa(n), strings.Repeat("a", maxHead/20))
		}
	})
	got := check(t, newHTTP2(HTTPOptions{}), large.Listener.Addr().String(), patience)
	verify.That(t, strings.HasPrefix(got, "answer: "), "head too large: %q", got)
	server, _ := startHTTP2(t, false, ok)
	probe := newHTTP2(HTTPOptions{Reuse: true})
	defer probe.Close()
	for range 3 {
		verify.Equal(t, check(t, probe, server.Listener.Addr().String(), patience), "", "result")
		server.CloseClientConnections()
	}
	silent := serveRaw(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	checkInTime(t, newHTTP2(HTTPOptions{}), silent, "answer: timed out")
}
