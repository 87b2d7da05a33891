package proxy

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/config/units"
	"sluice/route"
	"sluice/route/auth"
	"sluice/route/ratelimit"
	"sluice/test/verify"
)

// namedPeer returns a service with a peer that answers with the name and the target, sets a cookie
// and says that nobody keeps the answer.
func (p *testProxy) namedPeer(t testing.TB, name string) *route.Service {
	t.Helper()
	return p.newService(name, balancer.Options{NewTransport: p.NewTransport(transportOf(t))}, startServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "peer="+name)
		w.Header().Set("Cache-Control", "no-store")
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, name, " ", r.RequestURI)
	}))
}

// answeringAsAsked answers questions with the fields that the request has behind "Want-".
func answeringAsAsked(w http.ResponseWriter, r *http.Request) {
	for name, values := range r.Header {
		if name, wanted := strings.CutPrefix(name, "Want-"); wanted {
			w.Header()[name] = values
		}
	}
}

// What an authentication server decides is done if the route lets it, within what the route has.
func TestAuthServerDecides(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	a, b := p.namedPeer(t, "a"), p.namedPeer(t, "b")
	fixing := new(balancer.Maintenance)
	forward := asking(t, answeringAsAsked)
	forward.ToClients = []string{"cache-control", "set-cookie", "x-sluice-reason"}
	free := *forward
	free.DecidesService, free.DecidesPath = true, true
	divided := func(f *route.ForwardAuth) route.Route {
		actions := &route.Actions{ErrorPages: route.ErrorPages{pageOf(t, "404", "missing", true)}, ForwardAuth: f, Path: pathEdits(t, route.PathOptions{Strip: "/shop"})}
		return route.Route{Weighted: &route.Weighted{Key: route.SplitKey{Source: route.SplitNone}, Targets: []route.Target{
			{Share: 1, Route: &route.Route{Service: a, Actions: actions}}, {Share: 0, Route: &route.Route{Service: b, Actions: actions}},
		}}}
	}
	bound, unbound, alone := divided(forward), divided(&free), route.Route{Path: "/alone", Service: p.newService("none", balancer.Options{}), Actions: &route.Actions{ForwardAuth: &free}}
	free.DecidesService = true
	bound.Path, unbound.Path = "/bound", "/"
	alone.Actions.ForwardAuth = forward
	p.setRoutes(bound, unbound, alone)
	for _, front := range p.fronts() {
		for _, test := range []struct {
			target string
			fields []string
			status int
			want   string // the answer, or the reason
		}{
			{"/shop/x?q", nil, 200, "a /x?q"},
			{"/shop/x?q", []string{"Want-X-Sluice-Service: b"}, 200, "b /x?q"},
			{"/shop/x?q", []string{"Want-X-Sluice-Service: a"}, 200, "a /x?q"},
			{"/shop/x?q", []string{"Want-X-Sluice-Service: c"}, 503, "auth_unavailable"},
			{"/shop/x?q", []string{"Want-X-Sluice-Path: /y"}, 200, "a /y?q"},
			{"/shop/x?q", []string{"Want-X-Sluice-Path: /y?r"}, 200, "a /y?r"},
			{"/shop/x?q", []string{"Want-X-Sluice-Path: /y?"}, 200, "a /y"},
			{"/shop/x", []string{"Want-X-Sluice-Path: /y", "Want-X-Sluice-Service: b"}, 200, "b /y"},
			{"/shop/x", []string{"Want-X-Sluice-Path: /y/../z"}, 503, "auth_unavailable"},
			{"/shop/x", []string{"Want-X-Sluice-Path: /y/%2e%2e/z"}, 503, "auth_unavailable"},
			{"/shop/x", []string{"Want-X-Sluice-Path: /y z"}, 503, "auth_unavailable"},
			{"/shop/x", []string{"Want-X-Sluice-Path: http://c/"}, 503, "auth_unavailable"},
			{"/shop/x", []string{"Want-X-Sluice-Group: canary"}, 200, "a /x"},
			{"/bound/x", []string{"Want-X-Sluice-Service: b", "Want-X-Sluice-Path: /y"}, 200, "a /bound/x"},
			{"/bound/x", []string{"X-Sluice-Service: b", "X-Sluice-Path: /y"}, 200, "a /bound/x"},
			{"/alone", nil, 503, "no_peers"},
			{"/missing", nil, 404, "error_page"},
		} {
			response, body := front.ask(t, "GET", test.target, "", append([]string{"Want-Set-Cookie: auth=1", "Want-Cache-Control: private", "Want-X-Sluice-Reason: none"}, test.fields...)...)
			what := fmt.Sprint(front.name, ": ", test.target, " ", test.fields)
			verify.Equal(t, response.StatusCode, test.status, "%s: the status, with %s", what, body)
			cookies, cached := response.Header.Values("Set-Cookie"), response.Header.Values("Cache-Control")
			switch reason := response.Header.Get("X-Sluice-Reason"); {
			case test.status == 200:
				verify.Equal(t, body, test.want, "%s: the answer", what)
				verify.Equal(t, fmt.Sprint(cookies, cached, reason), fmt.Sprint([]string{"peer=" + test.want[:1], "auth=1"}, []string{"private"}), "%s: the fields", what)
			default:
				verify.Equal(t, reason, test.want, "%s: the reason", what)
				verify.Equal(t, fmt.Sprint(cookies[len(cookies)-1:], cached), "[auth=1] [private]", "%s: the fields of sluice's own answer", what)
			}
		}
		// Operators who work on the usual service keep nobody from the one that is chosen.
		a.Pool.Maintenance.Store(fixing)
		response, _ := front.ask(t, "GET", "/", "")
		verify.Equal(t, response.Header.Get("X-Sluice-Reason"), "maintenance", "%s: nothing is chosen", front.name)
		_, body := front.ask(t, "GET", "/", "", "Want-X-Sluice-Service: b")
		verify.Equal(t, body, "b /", "%s: the other one is chosen", front.name)
		a.Pool.Maintenance.Store(nil)
		b.Pool.Maintenance.Store(fixing)
		response, _ = front.ask(t, "GET", "/", "", "Want-X-Sluice-Service: b")
		verify.Equal(t, response.Header.Get("X-Sluice-Reason"), "maintenance", "%s: the chosen one", front.name)
		b.Pool.Maintenance.Store(nil)
	}
}

// The service that an authentication server has chosen keeps the request, also where it loses its
// last peer meanwhile and another one would be there: it may belong to another customer.
func TestChosenServiceKeepsTheRequest(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	a, b := p.namedPeer(t, "a"), p.namedPeer(t, "b")
	forward := asking(t, func(w http.ResponseWriter, r *http.Request) {
		answeringAsAsked(w, r)
		b.Pool.Apply(nil)
	})
	forward.DecidesService = true
	actions := &route.Actions{ForwardAuth: forward}
	p.setRoutes(route.Route{Path: "/", Weighted: &route.Weighted{Targets: []route.Target{
		{Share: .5, Route: &route.Route{Service: a, Actions: actions}}, {Share: .5, Route: &route.Route{Service: b, Actions: actions}},
	}}})
	front := p.fronts()[0]
	for range 10 {
		response, body := front.ask(t, "GET", "/", "", "Want-X-Sluice-Service: b")
		verify.Equal(t, response.Header.Get("X-Sluice-Reason"), "no_peers", "the answer of %s", body)
	}
}

// An authentication server chooses a group of those that the split of the service has.
func TestAuthServerChoosesAGroup(t *testing.T) {
	t.Parallel()
	p, _ := startSplit(t, route.Split{}, 0)
	forward := asking(t, answeringAsAsked)
	forward.DecidesGroup = true
	split := &route.Split{Shares: []route.Share{{Group: p.pool.Group("canary")}}, Rest: p.pool.Group("rest"), Seed: "star"}
	actions := &route.Actions{ForwardAuth: forward}
	p.setRoutes(
		route.Route{Path: "/", Service: p.service, Split: split, Actions: actions},
		route.Route{Path: "/whole", Service: p.service, Actions: actions},
	)
	for _, front := range p.fronts() {
		for _, test := range [][3]string{
			{"/", "canary", "0"}, {"/", "rest", "1"}, {"/", "", "1"}, {"/", "other", "auth_unavailable"}, {"/whole", "canary", "auth_unavailable"},
		} {
			response, body := front.ask(t, "GET", test[0], "", "Want-X-Sluice-Group: "+test[1])
			got := response.Header.Get("X-Sluice-Reason")
			if got == "" {
				got = body
			}
			verify.Equal(t, got, test[2], "%s: group %q of %s", front.name, test[1], test[0])
			verify.That(t, test[1] == "" || response.Header["Set-Cookie"] == nil, "%s: a chosen client has a cookie: %v", front.name, response.Header)
		}
	}
}

// A tenant over its limit, as the authentication server names it, holds back nobody else.
func TestRateLimitByTheAnswer(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	limiter := ratelimit.New(1, time.Hour, 2)
	p.setRoutes(route.Route{Path: "/", Service: p.namedPeer(t, "a"), Actions: &route.Actions{
		ForwardAuth: asking(t, answeringAsAsked),
		RateLimit:   &route.RateLimit{Limiter: limiter, Key: route.HashKey{Source: route.HashAnswer, Name: "X-Tenant"}},
	}})
	front := p.fronts()[0]
	for i, want := range []int{200, 200, 429, 429} {
		response, _ := front.ask(t, "GET", "/", "", "Want-X-Tenant: greedy")
		verify.Equal(t, response.StatusCode, want, "request %d of a greedy tenant", i)
	}
	response, _ := front.ask(t, "GET", "/", "", "Want-X-Tenant: other")
	verify.Equal(t, response.StatusCode, 200, "another tenant")
}

// The first bytes of a body go with the question, and the peer gets all of it, whatever the ways of
// the body are, also with another peer's failure, and so does a mirror.
func TestBodyOfQuestions(t *testing.T) {
	t.Parallel()
	const most = 1000
	sum := func(text []byte) string { return fmt.Sprintf("%d %x", len(text), sha256.Sum256(text)) }
	var asked sync.Map // what a question had, by the id of its request
	server := func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		asked.Store(r.Header.Get("Id"), fmt.Sprint(r.Method, " ", r.Header.Get("X-Forwarded-Method"), " ", r.Header.Get("X-Sluice-Body"), " ", sum(text)))
		if r.Header.Get("Deny") != "" {
			w.WriteHeader(403)
		}
	}
	mirrored := make(chan string, 100)
	origin := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		fmt.Fprint(w, sum(text), err)
	})
	mirror := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		mirrored <- sum(text)
	})
	p := startProxy(t, Options{})
	p.usePeers(false, someTransport, balancer.Options{Policy: balancer.PolicyRoundRobin, RetryBudget: &balancer.RetryBudget{Ratio: 10}}, origin, nowhere[0])
	forward := asking(t, server)
	forward.BodyBytes = most
	actions := &route.Actions{ForwardAuth: forward, BodyLimit: 1 << 20}
	for _, kept := range []units.Size{0, 5000, 200_000} {
		service := *p.service
		service.Retry.BodyBytes, service.Retry.Attempts = kept, 3
		to := service
		to.Pool = p.newService("copy", balancer.Options{NewTransport: p.NewTransport(transportOf(t))}, mirror).Pool
		p.setRoutes(route.Route{Path: "/", Service: &service, Actions: actions, Mirror: &route.Mirror{
			Service: &to, Share: 1, BodyBytes: 1 << 20, InFlight: 1000, Actions: new(route.Actions), Copies: route.NewCopies("a", "copy", ""),
		}})
		for _, front := range p.fronts() {
			for i, length := range []int{0, 1, most - 1, most, most + 1, 5000, 5001, 20_000, 70_000, 300_000, 1<<20 + 1} {
				for _, known := range []bool{true, false} {
					for _, expects := range []string{"", "100-continue"} {
						body := make([]byte, length)
						for j := range body {
							body[j] = byte(rand.Uint32())
						}
						n := int64(-1)
						if known {
							n = int64(length)
						}
						id := fmt.Sprint(front.name, kept, i, known, expects)
						what := fmt.Sprintf("%s: %d bytes, announced %v, expect %q, %d kept", front.name, length, known, expects, kept)
						fields := []string{"Id: " + id}
						if expects != "" && length > 0 {
							fields = append(fields, "Expect: "+expects)
						}
						response, text := front.send(t, "POST", "/x", &piecewise{body}, n, fields...)
						if length > 1<<20 {
							verify.Equal(t, response.StatusCode, 413, "%s: the status", what)
							continue
						}
						verify.Equal(t, text, sum(body)+"<nil>", "%s: status %d, the peer got", what, response.StatusCode)
						part := "whole"
						if length > most {
							part = "partial"
						}
						got, _ := asked.Load(id)
						verify.Equal(t, got, any(fmt.Sprint("POST POST ", part, " ", sum(body[:min(most, length)]))), "%s: the question", what)
						select {
						case copied := <-mirrored:
							verify.Equal(t, copied, sum(body), "%s: the mirror got", what)
						case <-time.After(patience):
							t.Fatalf("%s: no copy", what)
						}
						response, _ = front.send(t, "POST", "/x", &piecewise{body}, n, append(fields, "Deny: 1")...)
						verify.Equal(t, response.StatusCode, 403, "%s: the status of a denial", what)
					}
				}
			}
		}
	}
	eventually(t, "the memory of bodies is given back", func() bool { return p.keptBodies.Taken() == 0 })
}

// The client is asked for a body of which a question needs the first bytes, also by a route that has
// no service.
func TestBodyOfAQuestionWithoutService(t *testing.T) {
	t.Parallel()
	forward := asking(t, func(http.ResponseWriter, *http.Request) {})
	forward.BodyBytes = 1000
	p := startProxy(t, Options{})
	p.setRoutes(route.Route{Path: "/", Actions: &route.Actions{ForwardAuth: forward, DirectResponse: &route.DirectResponse{Status: 204}}})
	for _, front := range p.fronts() {
		response, _ := front.send(t, "POST", "/", &piecewise{make([]byte, 20_000)}, -1, "Expect: 100-continue")
		verify.Equal(t, response.StatusCode, 204, "%s: the status", front.name)
	}
}

// A body that is read whole for a question keeps its trailer.
func TestTrailerOfABodyOfAQuestion(t *testing.T) {
	t.Parallel()
	forward := asking(t, func(http.ResponseWriter, *http.Request) {})
	forward.BodyBytes = 1000
	p := startProxyTo(t, false, Options{}, func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		fmt.Fprint(w, len(text), err, r.Trailer.Get("X-Sum"))
	})
	for _, kept := range []units.Size{0, 5000} {
		service := *p.service
		service.Retry.BodyBytes = kept
		p.setRoutes(route.Route{Path: "/", Service: &service, Actions: &route.Actions{ForwardAuth: forward}})
		for _, front := range p.fronts() {
			for _, length := range []int{1, 900, 3000, 30_000} {
				request := verify.Result(http.NewRequest("POST", front.url+"/", &piecewise{make([]byte, length)})).Must(t)
				request.Trailer = http.Header{"X-Sum": {"right"}}
				response := verify.Result(front.client.Do(request)).Must(t)
				text := verify.Result(io.ReadAll(response.Body)).Must(t)
				response.Body.Close()
				verify.Equal(t, string(text), fmt.Sprint(length, " <nil>right"), "%s: %d bytes, %d kept: the peer got", front.name, length, kept)
			}
		}
	}
}

// piecewise is a body that is read in pieces of 700 bytes.
type piecewise struct{ left []byte }

func (p *piecewise) Read(out []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(out, p.left[:min(700, len(p.left))])
	p.left = p.left[n:]
	return n, nil
}

// An answer is asked for once while it counts, for each value of the fields on which it depends.
func TestAnswersAreKept(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	forward := asking(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		answeringAsAsked(w, r)
		w.Header().Set("X-Number", fmt.Sprint(asked.Load()))
		if r.Header.Get("Authorization") == "bad" {
			w.WriteHeader(401)
		}
	})
	forward.Copied, forward.Answers = []string{"x-number"}, auth.NewAnswers([]string{"authorization", "X-Forwarded-Uri"})
	p := startProxyTo(t, false, Options{}, echoRequest)
	p.setActions(&route.Actions{ForwardAuth: forward, Authorized: headerEdits(t, nil, nil, "X-Number")})
	for _, front := range p.fronts() {
		for _, test := range []struct {
			name, path, user string
			fields           []string
			again            bool // the server is asked again
		}{
			{"kept", "/a", "ann", []string{"Want-Cache-Control: max-age=600"}, false},
			{"another path", "/b", "ann", []string{"Want-Cache-Control: private, max-age=600"}, false},
			{"another user", "/a", "bob", []string{"Want-Cache-Control: max-age=600", "Want-Vary: authorization"}, false},
			{"denied", "/a", "bad", []string{"Want-Cache-Control: max-age=600"}, true},
			{"no age", "/c", "ann", nil, true},
			{"not to be kept", "/d", "ann", []string{"Want-Cache-Control: max-age=600, no-store"}, true},
			{"old", "/e", "ann", []string{"Want-Cache-Control: max-age=600", "Want-Age: 600"}, true},
			{"a cookie", "/f", "ann", []string{"Want-Cache-Control: max-age=600", "Want-Set-Cookie: a=b"}, true},
			{"depends on more", "/g", "ann", []string{"Want-Cache-Control: max-age=600", "Want-Vary: X-Real-Ip"}, true},
			{"long", "/h", "ann", []string{"Want-Cache-Control: max-age=600", "Want-Long: " + strings.Repeat("x", 3000)}, true},
		} {
			fields := append([]string{"Authorization: " + test.user + front.name[:0]}, test.fields...)
			path := test.path + "?" + strings.ReplaceAll(front.name, " ", "")
			before := asked.Load()
			var numbers []string
			for range 3 {
				_, body := front.ask(t, "GET", path, "", fields...)
				_, number, _ := strings.Cut(body, "\nX-Number: ")
				numbers = append(numbers, strings.TrimSpace(number[:min(3, len(number))]))
			}
			want := int64(1)
			if test.again {
				want = 3
			}
			verify.Equal(t, asked.Load()-before, want, "%s, %s: the questions", front.name, test.name)
			verify.That(t, test.again || numbers[0] != "" && numbers[0] == numbers[2], "%s, %s: the peer got %q", front.name, test.name, numbers)
		}
	}
}
