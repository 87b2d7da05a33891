package proxy

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/route"
	"sluice/test/verify"
)

// isUUID7 is what sluice makes.
var isUUID7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString

func TestAppendRequestID(t *testing.T) {
	now := time.UnixMilli(0x0123456789ab)
	verify.Equal(t, string(appendRequestID([]byte("x"), now, 0xffff_ffff_ffff_fabc, 0xffff_0000_1234_5678)), "x01234567-89ab-7abc-bfff-000012345678", "result")
	got := string(appendRequestID(nil, now, 0, 0))
	verify.That(t, got == "01234567-89ab-7000-8000-000000000000" && len(got) == requestIDBytes, "got %s", got)
}

func TestIsRequestID(t *testing.T) {
	for id, want := range map[string]bool{
		"a": true, "0190a1b2-c3d4-7abc-8def-0123456789ab": true, "Root=1-67891233-abc": true, "a.b_c~d:e+f/g@h": true,
		strings.Repeat("a", maxRequestIDBytes): true, strings.Repeat("a", maxRequestIDBytes+1): false,
		"": false, "a b": false, "a,b": false, "a;b": false, `a"b`: false, "a\tb": false, "é": false, "a\\b": false, "<a>": false,
	} {
		verify.Equal(t, isRequestID([]byte(id)), want, "%q", id)
	}
}

// throughProtocols calls f for each protocol of clients and peers. The peers answer as handler
// does.
func throughProtocols(t *testing.T, o Options, handler http.HandlerFunc, f func(t *testing.T, p *testProxy, front testFront)) {
	for _, http2 := range []bool{false, true} {
		for n := range 4 { // fronts
			t.Run(fmt.Sprintf("front %d, HTTP/2 to peers %v", n, http2), func(t *testing.T) {
				t.Parallel()
				p := startProxyTo(t, http2, o, handler)
				f(t, p, p.fronts()[n])
			})
		}
	}
}

// valuesOf returns the values of a field that a peer got, as echoRequest says.
func valuesOf(name, echoed string) (values []string) {
	for line := range strings.Lines(echoed) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

// The peer and the client get the same id, which a trusted client may choose.
func TestRequestID(t *testing.T) {
	t.Parallel()
	echo := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "of-the-peer")
		echoRequest(w, r)
	}
	type test struct {
		options Options
		sent    []string
		want    string // "": a new one
	}
	eachCase(t, map[string]test{
		"made":                           {Options{Switches: Switches{RequestID: true}}, nil, ""},
		"of an untrusted client":         {Options{Switches: Switches{RequestID: true}}, []string{"a-1"}, ""},
		"of a trusted client":            {Options{TrustedProxies: loopback, Switches: Switches{RequestID: true}}, []string{"a-1"}, "a-1"},
		"of a trusted client, malformed": {Options{TrustedProxies: loopback, Switches: Switches{RequestID: true}}, []string{"a b"}, ""},
		"of a trusted client, twice":     {Options{TrustedProxies: loopback, Switches: Switches{RequestID: true}}, []string{"a-1", "a-1"}, ""},
	}, func(t *testing.T, test test) {
		var mu sync.Mutex
		seen := make(map[string]bool)
		throughProtocols(t, test.options, echo, func(t *testing.T, p *testProxy, front testFront) {
			var fields []string
			for _, id := range test.sent {
				fields = append(fields, "X-Request-Id: "+id)
			}
			for range 2 {
				response, echoed := front.ask(t, "GET", "/", "", fields...)
				got := valuesOf("X-Request-Id", echoed)
				verify.Require(t, len(got) == 1 && slices.Equal(response.Header.Values("X-Request-Id"), got), "the peer got %q, the client %q", got, response.Header.Values("X-Request-Id"))
				mu.Lock()
				if test.want != "" && got[0] != test.want || test.want == "" && (!isUUID7(got[0]) || seen[got[0]]) {
					t.Errorf("got the id %s, want %q", got[0], test.want)
				}
				seen[got[0]] = true
				mu.Unlock()
				// The client can name the request that was not answered by a peer too.
				p.setRoutes()
				response, _ = front.ask(t, "GET", "/", "", fields...)
				id := response.Header.Get("X-Request-Id")
				verify.That(t, response.StatusCode == 404 && id != "" && (test.want == "" || id == test.want), "got %d with the id %q", response.StatusCode, id)
				p.setRoutes(route.Route{Path: "/", Service: p.service})
			}
		})
	})
	throughProtocols(t, Options{TrustedProxies: loopback}, echo, func(t *testing.T, _ *testProxy, front testFront) {
		response, echoed := front.ask(t, "GET", "/", "", "X-Request-Id: a b")
		if got := valuesOf("X-Request-Id", echoed); !slices.Equal(got, []string{"a b"}) || response.Header.Get("X-Request-Id") != "of-the-peer" {
			t.Errorf("off: the peer got %q, the client %q", got, response.Header.Get("X-Request-Id"))
		}
	})
}

// What is sent to other places has the id of the request.
func TestRequestIDElsewhere(t *testing.T) {
	t.Parallel()
	p := startLogged(t, Options{TrustedProxies: loopback, Switches: Switches{RequestID: true}}, nowhere[0], answersOK(t))
	p.setActions(&route.Actions{ResponseHeaders: headerEdits(t, map[string]string{"X-Id": "<$request_id>"}, nil)})
	for range 2 {
		p.expect("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a-1\r\nConnection: close\r\n\r\n", "200", "\r\nX-Id: <a-1>\r\n")
	}
	for _, l := range p.lines() {
		verify.Equal(t, l.RequestID, "a-1", "logged %+v", l)
	}
}
