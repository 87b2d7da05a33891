package proxy

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/config/units"
	"sluice/discovery/locality"
	"sluice/route"
	"sluice/route/auth"
	"sluice/test/verify"
)

// authAt lets the authentication server at url decide, whose answer is waited for that long.
func authAt(t testing.TB, url string, timeout time.Duration, copied ...string) *route.ForwardAuth {
	t.Helper()
	f := auth.NewForward(units.NewLocation(url), timeout, locality.ByOperator)
	t.Cleanup(f.Close)
	return &route.ForwardAuth{Forward: f, Copied: copied}
}

// asking returns an action for which a server is asked, which allows what handler does not deny.
func asking(t *testing.T, handler http.HandlerFunc) *route.ForwardAuth {
	t.Helper()
	return authAt(t, "http://"+startServer(t, handler), patience)
}

// An authentication server allows and denies requests, whatever the protocol of the client
// is. Nothing passes without its permission.
func TestForwardAuth(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			verify.That(t, !strings.HasPrefix(name, "If-") && name != "Range", "the server was asked with %s", name)
		}
		uri := r.Header.Get("X-Forwarded-Uri")
		w.Header().Set("X-Asked", fmt.Sprint(r.Method, " ", r.Header.Get("X-Forwarded-Method"), " ", r.Header.Get("X-Forwarded-Host"), uri, " ", r.Header.Get("X-Forwarded-For"),
			" ", r.ContentLength, " ", r.Header.Get("Content-Type"), r.Header.Get("Cookie")))
		switch {
		case strings.HasPrefix(uri, "/allowed"):
			w.Header().Set("X-User", "ann")
			w.Header().Add("X-Group", "a")
			w.Header().Add("X-Group", "b")
			w.Header().Set("X-Other", "secret")
			w.WriteHeader(204)
		case strings.HasPrefix(uri, "/silent"):
			<-r.Context().Done()
		case strings.HasPrefix(uri, "/long"):
			w.Write(make([]byte, 100_000))
		case strings.HasPrefix(uri, "/cut"):
			w.Header().Set("Content-Length", "10")
			w.WriteHeader(401)
		case strings.HasPrefix(uri, "/login"):
			w.Header().Set("Set-Cookie", "a=b")
			w.Header().Set("Location", "https://login.example/")
			w.WriteHeader(302)
		case strings.HasPrefix(uri, "/nobody"): // allowed without a name
		default:
			w.Header().Set("X-Sluice-Attempts", "1")
			w.WriteHeader(403)
			fmt.Fprint(w, "no")
		}
	})
	var served atomic.Int64
	p := startProxyTo(t, false, Options{}, func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		echoRequest(w, r)
	})
	actions := func(url string, timeout time.Duration) *route.Actions {
		return &route.Actions{ForwardAuth: authAt(t, url, timeout, "x-user", "x-group"), Authorized: headerEdits(t, nil, nil, "X-User", "X-Group")}
	}
	p.setRoutes(
		route.Route{Path: "/", Service: p.service, Actions: actions("http://"+server, patience)},
		route.Route{Path: "/silent", Service: p.service, Actions: actions("http://"+server, 20*time.Millisecond)},
		route.Route{Path: "/gone", Service: p.service, Actions: actions("http://"+nowhere[0], patience)},
	)
	// These are about what the peer has. An authentication server that knows them would deny
	// the request.
	conditions := []string{
		"If-None-Match: *", `If-Match: "1"`, "If-Modified-Since: Wed, 01 Jan 2025 00:00:00 GMT",
		"If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT", "Range: bytes=1000-",
	}
	fields := append([]string{"X-User: forged", "x-group: forged", "X-Forwarded-Uri: /allowed", "X-Forwarded-For: 192.0.2.1", "Cookie: c=d"}, conditions...)
	for _, front := range p.fronts() {
		for _, test := range []struct {
			method, target, body string
			status               int
			reason, want         string // want: a line for the peer, a field, or the body
		}{
			{"GET", "/allowed?q", "", 200, "", "X-User: ann"},
			{"POST", "/allowed", "body", 200, "", "X-Group: b"},
			{"POST", "/allowed", strings.Repeat("x", 300_000), 200, "", "X-User: ann"},
			{"GET", "/nobody", "", 200, "", ""},
			{"GET", "/x?q=1", "", 403, "auth_denied", "X-Asked: GET GET shop.example/x?q=1 127.0.0.1 0 c=d"},
			{"POST", "/x", strings.Repeat("x", 300_000), 403, "auth_denied", "no"},
			{"HEAD", "/x", "", 403, "auth_denied", ""},
			{"GET", "/login", "", 302, "auth_denied", "Location: https://login.example/"},
			{"GET", "/silent", "", 503, "auth_unavailable", ""},
			{"GET", "/long", "", 503, "auth_unavailable", ""},
			{"GET", "/cut", "", 503, "auth_unavailable", ""},
			{"GET", "/gone", "", 503, "auth_unavailable", ""},
		} {
			for range 2 {
				before := served.Load()
				response, body := front.ask(t, test.method, test.target, test.body, fields...)
				what := fmt.Sprintf("%s: %s %s", front.name, test.method, test.target)
				verify.That(t, response.StatusCode == test.status && response.Header.Get("X-Sluice-Reason") == test.reason,
					"%s: got %d %q, want %d %q", what, response.StatusCode, response.Header.Get("X-Sluice-Reason"), test.status, test.reason)
				verify.Equal(t, served.Load() > before, (test.status == 200), "%s: the peer was asked", what)
				verify.That(t, !strings.Contains(strings.ToLower(body), "-user: forged") && !strings.Contains(body, "-Group: forged") && !strings.Contains(body, "X-Other"), "%s: the peer got\n%s", what, body)
				for _, condition := range conditions {
					verify.That(t, test.status != 200 || strings.Contains(body, "\n"+condition+"\n"), "%s: the peer did not get %s", what, condition)
				}
				name, value, _ := strings.Cut(cmp.Or(test.want, ": "), ": ")
				got := response.Header.Get(name)
				verify.That(t, got == value || strings.Contains(body, test.want), "%s: no %q in\n%v\n%s", what, test.want, response.Header, body)
			}
		}
	}
	p.address = p.serveWith(ListenerOptions{StrictTransportSecurity: "max-age=1"})
	answer := p.raw("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	verify.That(t, strings.Count(answer, "\r\nStrict-Transport-Security: max-age=1\r\n") == 1, "a denial at a listener with HSTS: got %q", answer)
}

// An authentication server learns the target that the peer gets, also of a URL without a path: some
// take an empty one for their own.
func TestForwardAuthLearnsTheTarget(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	asks := asking(t, func(_ http.ResponseWriter, r *http.Request) { asked <- r.Header.Get("X-Forwarded-Uri") })
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	p.setActions(&route.Actions{ForwardAuth: asks})
	for sent, want := range map[string]string{
		"GET http://a": "/", "GET http://a?b=c": "/?b=c", "GET http://a/d?b": "/d?b", "GET /d": "/d", "OPTIONS http://a": "*", "OPTIONS *": "*",
	} {
		before := len(origin.got())
		p.expect(sent+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200")
		verify.Equal(t, <-asked, want, "%s: the authentication server was asked about", sent)
		method, _, _ := strings.Cut(sent, " ")
		verify.Contains(t, origin.got()[before:], method+" "+want+" HTTP/1.1\r\n", "%s: the peer", sent)
	}
}
