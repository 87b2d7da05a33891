package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/route"
	"sluice/test/verify"
)

func TestRedirectToHTTPS(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	for _, test := range []struct {
		port          int
		request, want string // want: the Location, or the reason of another answer
	}{
		{443, "GET /a?b=c HTTP/1.1\r\nHost: a.example\r\n", "https://a.example/a?b=c"},
		{443, "GET / HTTP/1.1\r\nHost: a.example:8080\r\n", "https://a.example/"},
		{8443, "POST /a HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 0\r\n", "https://[::1]:8443/a"},
		{443, "GET /a HTTP/1.1\r\nHost: [::1]\r\n", "https://[::1]/a"},
		{443, "GET http://b.example?x HTTP/1.1\r\nHost: b.example\r\n", "https://b.example/?x"},
		{443, "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n", "https://a.example/"},
		{443, "GET // HTTP/1.1\r\nHost: a.example\r\n", "https://a.example//"},
		{443, "GET /a HTTP/1.0\r\n", "no_host"},
	} {
		p.address = p.serveWith(ListenerOptions{Name: "plain", HTTPSPort: test.port})
		if strings.HasPrefix(test.want, "https") {
			p.expect(test.request+"Connection: close\r\n\r\n", "308", "\r\nLocation: "+test.want+"\r\n")
		} else {
			expectReason(t, p.raw(test.request+"Connection: close\r\n\r\n"), "400", test.want)
		}
	}
	verify.Equal(t, origin.got(), "", "the peer")
}

// A target without a path, which the peer gets as / or *, is the root of its host also in URLs that
// a route makes of it.
func TestURLsOfTargetsWithoutAPath(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, answersOK(t))
	for _, to := range []*route.Redirect{redirect(t, "https://new.example$path", 302), redirectByPattern(t, "^http://[^/]*(/.*)", "https://new.example$1")} {
		p.setRoutes(route.Route{Path: "/", Service: p.service, Actions: &route.Actions{Redirect: to}})
		for target, want := range map[string]string{"OPTIONS *": "/", "GET http://a.example": "/", "GET http://a.example?q=1": "/?q=1", "GET /x": "/x"} {
			p.expect(target+" HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", "302", "\r\nLocation: https://new.example"+want+"\r\n")
		}
	}
	p.setRoutes(route.Route{Path: "/", Service: p.service, Actions: &route.Actions{Redirect: redirect(t, "http://a.example$path", 308)}})
	for _, target := range []string{"OPTIONS *", "GET http://a.example", "GET http://a.example?q=1", "GET /x"} { // redirects to themselves
		p.expect(target+" HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", "200")
	}
}

// A trusted proxy that terminates TLS is not redirected, since its clients would come
// back for ever. Others cannot avoid the redirect.
func TestRequestsOverTLSToATrustedProxyAreNotRedirected(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, answersOK(t))
	p.address = p.serveWith(ListenerOptions{Name: "plain", HTTPSPort: 443})
	for _, test := range []struct {
		trusted, protocol string
		status            string
	}{
		{"127.0.0.0/8", "X-Forwarded-Proto: https\r\n", "200"},
		{"127.0.0.0/8", "X-Forwarded-Proto: HTTPS\r\n", "200"},
		{"127.0.0.0/8", "X-Forwarded-Proto: https, http\r\n", "200"},
		{"127.0.0.0/8", "X-Forwarded-Proto: http\r\n", "308"},
		{"127.0.0.0/8", "X-Forwarded-Proto: http, https\r\n", "308"},
		{"127.0.0.0/8", "X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n", "308"},
		{"127.0.0.0/8", "X-Forwarded-Proto: https2\r\n", "308"},
		{"127.0.0.0/8", "X-Forwarded-Proto:\r\n", "308"},
		{"127.0.0.0/8", "", "308"},
		{"192.0.2.0/24", "X-Forwarded-Proto: https\r\n", "308"},
	} {
		p.change(func(o *Options) { o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(test.trusted)} })
		p.expect("GET / HTTP/1.1\r\nHost: a.example\r\n"+test.protocol+"Connection: close\r\n\r\n", test.status)
	}
}

// Every final response has the configured field once, instead of the peer's.
func TestStrictTransportSecurity(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, answering("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 2\r\n\r\nok")).address())
	const line = "Strict-Transport-Security: max-age=31536000\r\n"
	answer := p.raw(closingRequest)
	verify.That(t, strings.Count(answer, "Strict-Transport-Security: max-age=1\r\n") == 1, "without the setting: got %q", answer)
	p.address = p.serveWith(ListenerOptions{Name: "hsts", StrictTransportSecurity: "max-age=31536000"})
	answer = p.raw(closingRequest)
	_, final, _ := strings.Cut(answer, "\r\n\r\n")
	verify.That(t, strings.Count(answer, "Strict-") == 1 && strings.Contains(final, line), "with the setting: got %q", answer)
	p.setPeers()
	answer = p.raw(closingRequest)
	verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 503 ") && strings.Count(answer, line) == 1, "an own answer: got %q", answer)
}

// A handler gets the target and the fields that a peer would get, and the client its whole answer.
func TestHandlerAnswers(t *testing.T) {
	p := startProxyTo(t, false, Options{}, echoRequest)
	long := strings.Repeat("0123456789", 100<<10)
	path := route.PathOptions{Strip: "/sluice"}
	p.setRoutes(route.Route{Path: "/sluice", PathMatch: route.PathPrefix, Actions: &route.Actions{
		Path: verify.Result(route.NewPathEdits(path)).Must(t),
		Handler: route.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if r.URL.Path == "/long" {
				fmt.Fprint(w, long)
				return
			}
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprint(w, r.Method, " ", r.URL, " ", r.Host, " ", r.RemoteAddr, " ", r.Header.Get("X-A"), r.Header.Get("If-None-Match"), " ", len(body), err)
		})),
	}})
	p.answered("GET", "/sluice/long", 200, "admin_api", long)
	p.answered("HEAD", "/sluice/long", 200, "admin_api", "")
	p.answered("POST", "/sluice/x?y=%20z", 418, "admin_api", "POST /x?y=%20z shop.example 127.0.0.1 b 0 <nil>", "X-A: b", "If-None-Match: c")
	p.expectNothingCounted()
}

// A client whose answers take long, or who does not read them, leaves places to others.
func TestAClientLeavesPlacesOfAHandler(t *testing.T) {
	p := startProxyTo(t, false, Options{}, echoRequest)
	var held atomic.Int64
	release := make(chan struct{})
	p.setActions(&route.Actions{Handler: route.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			held.Add(1)
			<-release
		}
	}))})
	const request = "GET /held HTTP/1.1\r\nHost: a\r\n\r\n"
	for range 20 {
		defer p.sendFrom("127.0.0.2", []byte(request)).Close()
	}
	eventually(t, "the share of a client is used up", func() bool { return held.Load() == 4 })
	verify.Succeeds(t, get200(p.dialFrom("127.0.0.1")))
	verify.Equal(t, held.Load(), 4, "answers that the other client waits for")
	close(release)
	eventually(t, "the client has places again", func() bool { return get200(p.dialFrom("127.0.0.2")) == nil })
}
