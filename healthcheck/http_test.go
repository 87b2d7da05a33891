package healthcheck

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/discovery/locality"
	"sluice/healthcheck/statuses"
	"sluice/test/verify"
)

// patience is the timeout of checks that should not time out.
const patience = 30 * time.Second

// check probes an address, and returns the error, or "".
func check(t *testing.T, p Probe, address string, limit time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := p.Check(ctx, Target{Address: address, Control: locality.ByOperator}); err != nil {
		return err.Error()
	}
	return ""
}

// serveRaw calls answer for each connection until the test ends.
func serveRaw(t *testing.T, answer func(net.Conn)) (address string) {
	t.Helper()
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			answer(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// checkInTime is check with a timeout. On a slow machine it may time out in an earlier step than
// the expected one, so it is repeated with longer timeouts.
func checkInTime(t *testing.T, p Probe, address, want string) {
	t.Helper()
	for limit := 50 * time.Millisecond; ; limit *= 2 {
		got := check(t, p, address, limit)
		if got == want {
			return
		}
		if limit > patience/4 {
			t.Errorf("got %q, want %q", got, want)
			return
		}
	}
}

// nowhere returns an address without a listener. Its port is not in the range from which the
// kernel assigns ports.
const nowhere = "127.0.0.1:1"

func accepted(t *testing.T, text string) statuses.Set {
	t.Helper()
	return verify.Result(statuses.Parse(text)).Must(t)
}

func TestHTTPSendsItsOptions(t *testing.T) {
	var got atomic.Pointer[http.Request]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got.Store(r) }))
	defer server.Close()
	address := server.Listener.Addr().String()

	verify.Equal(t, check(t, newHTTP(HTTPOptions{}), address, patience), "", "check")
	r := got.Load()
	if r.Method != "GET" || r.RequestURI != "/" || r.Host != address || r.UserAgent() != "sluice-healthcheck" || !r.Close || r.ProtoMinor != 1 {
		t.Errorf("request %s %s %s, host %q, agent %q, close %v", r.Method, r.RequestURI, r.Proto, r.Host, r.UserAgent(), r.Close)
	}

	p := newHTTP(HTTPOptions{
		Method: "POST", Path: "/health?full=1&a=%2F", Host: "star.example.com",
		Headers: [][2]string{{"x-lower", "a b"}, {"Authorization", "Bearer secret"}},
	})
	verify.Equal(t, check(t, p, address, patience), "", "check")
	r = got.Load()
	if r.Method != "POST" || r.RequestURI != "/health?full=1&a=%2F" || r.Host != "star.example.com" ||
		r.Header.Get("X-Lower") != "a b" || r.Header.Get("Authorization") != "Bearer secret" || r.ContentLength != 0 {
		t.Errorf("request %s %s, host %q, header %v", r.Method, r.RequestURI, r.Host, r.Header)
	}
	verify.Equal(t, p.String(), "http POST /health?…", "probe %q", p)
}

func TestHTTPChecksTheResponse(t *testing.T) {
	handler := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	chunked := func(w http.ResponseWriter, r *http.Request) {
		for range 1000 {
			io.WriteString(w, "0123456789")
		}
		io.WriteString(w, "the end")
		w.(http.Flusher).Flush()
	}
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		o       HTTPOptions
		want    string
	}{
		{"200", handler(200, ""), HTTPOptions{}, ""},
		{"204", handler(204, ""), HTTPOptions{}, ""},
		{"500", handler(500, "x"), HTTPOptions{}, "status 500, want 200-299"},
		{"redirect", handler(302, ""), HTTPOptions{}, "status 302, want 200-299"},
		{"redirect allowed", handler(302, ""), HTTPOptions{Status: accepted(t, "2xx,302")}, ""},
		{"only 503", handler(200, ""), HTTPOptions{Status: accepted(t, "503")}, "status 200, want 503"},
		{"early hints", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(103)
			w.WriteHeader(200)
		}, HTTPOptions{}, ""},
		{"head", handler(200, ""), HTTPOptions{Method: "HEAD", Body: Expectation{Text: "a", Within: 10}}, ""},
		{"text", handler(200, `{"status":"ok"}`), HTTPOptions{Body: Expectation{Text: `"ok"`, Within: 100}}, ""},
		{"no text", handler(200, "fine"), HTTPOptions{Body: Expectation{Text: "ok", Within: 100}}, `answer does not contain "ok"`},
		{"text too far", handler(200, "0123456789ok"), HTTPOptions{Body: Expectation{Text: "ok", Within: 11}}, `answer does not contain "ok"`},
		{"text at the end of what is read", handler(200, "0123456789ok"), HTTPOptions{Body: Expectation{Text: "ok", Within: 12}}, ""},
		{"regexp", handler(200, "a\nstatus = green\n"), HTTPOptions{Body: Expectation{Regexp: regexp.MustCompile(`(?m)^status = (green|yellow)$`), Within: 100}}, ""},
		{"no match", handler(200, "status = red"), HTTPOptions{Body: Expectation{Regexp: regexp.MustCompile("green|yellow"), Within: 100}},
			`answer does not match "green|yellow"`},
		{"both", handler(200, "ab"), HTTPOptions{Body: Expectation{Text: "a", Regexp: regexp.MustCompile("c"), Within: 100}}, `answer does not match "c"`},
		{"status before body", handler(500, "ok"), HTTPOptions{Body: Expectation{Text: "ok", Within: 100}}, "status 500, want 200-299"},
		{"chunked", chunked, HTTPOptions{Body: Expectation{Text: "the end", Within: 64 << 10}}, ""},
		{"chunked, too far", chunked, HTTPOptions{Body: Expectation{Text: "the end", Within: 1 << 10}}, `answer does not contain "the end"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(test.handler)
			defer server.Close()
			verify.Equal(t, check(t, newHTTP(test.o), server.Listener.Addr().String(), patience), test.want, "result")
		})
	}
}

// Each kind of failure has its own error.
func TestHTTPReportsTheFailure(t *testing.T) {
	readRequest := func(c net.Conn) { http.ReadRequest(bufio.NewReader(c)) }
	respond := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			readRequest(c)
			io.WriteString(c, text)
		}
	}
	body := HTTPOptions{Body: Expectation{Text: "ok", Within: 100}}
	for _, test := range []struct {
		name   string
		answer func(net.Conn)
		o      HTTPOptions
		want   string
	}{
		{"closed at once", readRequest, HTTPOptions{}, "answer: connection closed"},
		{"closed within the head", respond("HTTP/1.1 200 OK\r\nA: b\r\n"), HTTPOptions{}, "answer: connection closed"},
		{"closed within the body", respond("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"), body, "body: connection closed"},
		{"closed within a body that is not read", respond("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"), HTTPOptions{}, ""},
		{"up to the end of the connection", respond("HTTP/1.1 200 OK\r\n\r\nok"), body, ""},
		{"HTTP/1.0", respond("HTTP/1.0 200 OK\r\n\r\n"), HTTPOptions{}, ""},
		{"head too large", respond("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", maxHead) + "\r\n\r\n"), HTTPOptions{}, "answer: head above 16 KiB"},
		{"reset", func(c net.Conn) {
			readRequest(c)
			c.(*net.TCPConn).SetLinger(0)
		}, HTTPOptions{}, "answer: connection reset by peer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := serveRaw(t, test.answer)
			for range 2 {
				verify.Equal(t, check(t, newHTTP(test.o), address, patience), test.want, "result")
			}
		})
	}
	t.Run("closed before the request", func(t *testing.T) {
		address := serveRaw(t, func(net.Conn) {})
		for range 100 {
			switch got := check(t, newHTTP(HTTPOptions{}), address, patience); got {
			case "answer: connection closed", "answer: connection reset by peer", "answer: broken pipe":
			default:
				t.Fatalf("got %q", got)
			}
		}
	})
	t.Run("closed by net/http, since the target has", func(t *testing.T) {
		verify.Equal(t, failure("answer", &net.OpError{Op: "write", Err: net.ErrClosed}).Error(), "answer: connection closed", "result")
	})
	t.Run("refused", func(t *testing.T) {
		verify.Equal(t, check(t, newHTTP(HTTPOptions{}), nowhere, patience), "connect: connection refused", "result")
	})
	t.Run("not HTTP", func(t *testing.T) {
		address := serveRaw(t, respond("SSH-2.0-OpenSSH_9.2\r\n\r\n"))
		got := check(t, newHTTP(HTTPOptions{}), address, patience)
		verify.That(t, strings.HasPrefix(got, "answer: "), "got %q", got)
	})
	t.Run("no such host", func(t *testing.T) {
		got := check(t, newHTTP(HTTPOptions{}), "host.invalid:80", patience)
		verify.That(t, strings.HasPrefix(got, "connect: "), "got %q", got)
	})
}

// The timeout applies to each step of a check.
func TestHTTPTimesOut(t *testing.T) {
	for name, test := range map[string]struct {
		begin string
		want  string
	}{
		"answer": {"", "answer: timed out"},
		"head":   {"HTTP/1.1 200 OK\r\nA:", "answer: timed out"},
		"body":   {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "body: timed out"},
	} {
		t.Run(name, func(t *testing.T) {
			address := serveRaw(t, func(c net.Conn) {
				io.WriteString(c, test.begin)
				io.Copy(io.Discard, c) // until the check ends
			})
			probe := newHTTP(HTTPOptions{Body: Expectation{Text: "okay", Within: 100}})
			checkInTime(t, probe, address, test.want)
			// A check ends with its context.
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(10*time.Millisecond, cancel)
			err := probe.Check(ctx, Target{Address: address, Control: locality.ByOperator})
			verify.That(t, err != nil, "no error after the end of the context")
		})
	}
}

func TestHTTPSpeaksTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail in this test
	server.StartTLS()
	defer server.Close()
	address := server.Listener.Addr().String()
	trusting := server.Client().Transport.(*http.Transport).TLSClientConfig
	f := func(name string, config *tls.Config, want string) {
		t.Helper()
		got := check(t, newHTTP(HTTPOptions{TLS: fixed{config}}), address, patience)
		verify.That(t, strings.HasPrefix(got, want) && (want != "" || got == ""), "%s: got %q, want %q", name, got, want)
	}
	f("trusted", &tls.Config{RootCAs: trusting.RootCAs}, "")
	f("trusted, by name", &tls.Config{RootCAs: trusting.RootCAs, ServerName: "example.com"}, "")
	f("another name", &tls.Config{RootCAs: trusting.RootCAs, ServerName: "star.example.net"}, "TLS handshake: ")
	f("not trusted", &tls.Config{}, "TLS handshake: ")
	f("any", &tls.Config{InsecureSkipVerify: true}, "")
	verify.Equal(t, check(t, newHTTP(HTTPOptions{}), address, patience), "status 400, want 200-299", "plain HTTP to a TLS port")
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	got := check(t, newHTTP(HTTPOptions{TLS: fixed{&tls.Config{}}}), plain.Listener.Addr().String(), patience)
	verify.That(t, strings.HasPrefix(got, "TLS handshake: "), "TLS to a plain port: %q", got)
	verify.Equal(t, newHTTP(HTTPOptions{TLS: fixed{&tls.Config{}}, Path: "/a"}).String(), "https GET /a", "probe")
}

// Each check has a new connection, except with Reuse. A reused connection that the peer has closed
// is not a failure.
func TestHTTPConnections(t *testing.T) {
	var opened atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/close":
			w.Header().Set("Connection", "close")
		case "/large":
			w.Write(make([]byte, 100<<10))
		default:
			io.WriteString(w, "ok")
		}
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	address := server.Listener.Addr().String()
	f := func(name string, o HTTPOptions, between func(*HTTP), want int32) {
		t.Helper()
		opened.Store(0)
		p := newHTTP(o)
		defer p.Close()
		for range 4 {
			verify.Equal(t, check(t, p, address, patience), "", "%s", name)
			between(p)
		}
		verify.Equal(t, opened.Load(), want, "%s: connections for 4 checks", name)
	}
	nothing := func(*HTTP) {}
	body := Expectation{Text: "ok", Within: 100}
	f("by default", HTTPOptions{}, nothing, 4)
	f("reused", HTTPOptions{Reuse: true, Body: body}, nothing, 1)
	f("reused, body not read", HTTPOptions{Reuse: true, Body: Expectation{Within: 100}}, nothing, 1)
	f("reused, HEAD", HTTPOptions{Reuse: true, Method: "HEAD"}, nothing, 1)
	f("the peer closes", HTTPOptions{Reuse: true, Path: "/close"}, nothing, 4)
	f("too large to be read", HTTPOptions{Reuse: true, Path: "/large", Body: Expectation{Within: 100}}, nothing, 4)
	f("stale", HTTPOptions{Reuse: true, Body: body}, func(*HTTP) { server.CloseClientConnections() }, 4)
	f("forgotten", HTTPOptions{Reuse: true, Body: body}, func(p *HTTP) { p.Forget(address) }, 4)

	p := newHTTP(HTTPOptions{Reuse: true, Body: body})
	p.Close()
	got := check(t, p, address, patience)
	verify.That(t, got == "" && len(p.idle) == 0, "after Close: %q, %d idle", got, len(p.idle))
}
