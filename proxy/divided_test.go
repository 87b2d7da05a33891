package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/route/places"
	"sluice/route/ratelimit"
	"sluice/test/verify"
)

// emptying is asking where s loses its peers before the answer.
func emptying(t *testing.T, s *route.Service) *route.ForwardAuth {
	t.Helper()
	return asking(t, func(http.ResponseWriter, *http.Request) { s.Pool.Apply(nil) })
}

// firstOf returns a route that chooses its first target, practically always; where that has no
// peers, the second, and so on.
func firstOf(targets ...*route.Route) route.Route {
	w := new(route.Weighted)
	for share, i := 1.0, 0; i < len(targets); share, i = share*1e-20, i+1 {
		w.Targets = append(w.Targets, route.Target{Share: share, Route: targets[i]})
	}
	return route.Route{Path: "/", Weighted: w}
}

// A target that loses its last peer after it was chosen gives the request to another one, as if
// that had been chosen at once: what the route asks for is done for that one, and nothing twice.
func TestTargetLosesItsPeersMeanwhile(t *testing.T) {
	t.Parallel()
	type test struct {
		chain    bool // the splitter of a chain chooses
		refused  bool // by the other target
		streamed bool // the body is too long to be kept
		late     bool // the peer leaves while the body arrives, not while the authentication server is asked
	}
	eachCase(t, map[string]test{
		"asking":                             {},
		"asking, a stream":                   {streamed: true},
		"asking, refused":                    {refused: true},
		"asking, a stream, refused":          {refused: true, streamed: true},
		"body arrives":                       {late: true},
		"body arrives, refused":              {late: true, refused: true},
		"body arrives, the splitter chooses": {late: true, chain: true},
	}, func(t *testing.T, test test) {
		p := startProxy(t, Options{})
		for _, front := range p.fronts() {
			a, b := p.echoing(t, "a"), p.echoing(t, "b")
			asked := 0
			forward := asking(t, func(w http.ResponseWriter, r *http.Request) {
				if asked++; asked == 1 && !test.late {
					a.Pool.Apply(nil)
				}
				w.Header().Set("X-Role", fmt.Sprint("guest ", asked))
			})
			forward.Copied = []string{"x-role"}
			limiter := ratelimit.New(1, time.Hour, 1)
			actions := func() *route.Actions {
				return &route.Actions{
					RateLimit:   &route.RateLimit{Limiter: limiter, PerRoute: true},
					Path:        pathEdits(t, route.PathOptions{Strip: "/shop"}),
					ForwardAuth: forward,
					Authorized:  headerEdits(t, nil, nil, "X-Role"),
				}
			}
			w := &route.Weighted{Key: route.SplitKey{Source: route.SplitHeader, Header: "x-user"}, Seed: "seed"}
			targets := map[*route.Service]*route.Route{}
			for _, s := range []*route.Service{a, b} {
				s.WaitForPeer = time.Hour // for nothing, while the other one has peers
				if !test.streamed {
					s.Retry.BodyBytes = 100 << 10
				}
				targets[s] = &route.Route{Service: s, Actions: actions()}
				w.Targets = append(w.Targets, route.Target{Route: targets[s], Share: .5})
			}
			if test.refused {
				targets[b].Actions.BodyLimit = 1
			}
			path := "/shop/x"
			divided := route.Route{Path: "/", Weighted: w}
			if test.chain {
				path = "/shop/v1/x"
				divided = route.Route{Path: "/", Service: p.echoing(t, "web"), Actions: actions(), Router: chained(t, []route.Branch{
					{Route: route.Route{Path: "/"}, Rewrite: pathEdits(t, route.PathOptions{Strip: "/v1"})},
				}, route.Route{Weighted: w})}
			}
			p.setRoutes(divided)
			user := 0
			for w.Choose(fmt.Append(nil, user)).Route != targets[a] {
				user++
			}
			// Else the peers of a would leave before the request comes.
			eventually(t, "nothing is kept of the request before", func() bool { return p.keptBodies.Taken() == 0 })
			const length = 50 << 10
			body := io.MultiReader(strings.NewReader(strings.Repeat("b", length-1)), &lateBody{func() {
				if test.late {
					eventually(t, "a part of the body is kept", func() bool { return p.keptBodies.Taken() > 0 })
					a.Pool.Apply(nil)
				}
			}, 'b'})
			response, text := front.send(t, "POST", path, body, length, fmt.Sprint("X-User: ", user))
			if test.refused {
				verify.Equal(t, response.StatusCode, http.StatusRequestEntityTooLarge, "%s: status, with %s", front.name, text)
				continue
			}
			verify.Require(t, response.StatusCode == http.StatusOK, "%s: %d %s", front.name, response.StatusCode, text)
			verify.That(t, strings.HasPrefix(text, "b POST /x\n"), "%s: the peer got %s", front.name, text)
			verify.That(t, strings.Count(text, "X-Role: ") == 1 && strings.Contains(text, "X-Role: guest 2\n"), "%s: the peer got %s", front.name, text)
			verify.Contains(t, text, fmt.Sprintf("Content-Length: %d\n", length), "%s", front.name)
		}
	})
}

// The target that gets the request decides how much of the body is kept, so that it can be sent
// again.
func TestTargetDecidesAboutTheKeptBody(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	for _, front := range p.fronts() {
		var sent atomic.Int32
		peer := func(w http.ResponseWriter, r *http.Request) {
			body := verify.Result(io.ReadAll(r.Body)).Must(t)
			if sent.Add(1) == 1 {
				panic(http.ErrAbortHandler)
			}
			fmt.Fprint(w, len(body))
		}
		first := p.echoing(t, "first")
		second := p.newService("second", balancer.Options{NewTransport: p.NewTransport(someTransport)}, startServer(t, peer), startServer(t, peer))
		second.Retry = route.Retry{Attempts: 2, BodyBytes: 100 << 10}
		asks := &route.Actions{ForwardAuth: emptying(t, first)}
		p.setRoutes(firstOf(&route.Route{Service: first, Actions: asks}, &route.Route{Service: second}))
		const length = 50 << 10
		response, text := front.send(t, "PUT", "/", strings.NewReader(strings.Repeat("b", length)), length)
		verify.That(t, response.StatusCode == http.StatusOK && text == fmt.Sprint(length), "%s: %d %s", front.name, response.StatusCode, text)
	}
}

// A body of which only a part was kept for a target that has lost its peers arrives whole at
// another one.
func TestTargetGetsABodyThatIsKeptInPart(t *testing.T) {
	t.Parallel()
	const size = 300_000
	p := startProxy(t, Options{Limits: Limits{KeptBodyBytes: 8 * socket.RelayBufferBytes}}) // an eighth for this client
	whole := make([]byte, size)
	for i := range whole {
		whole[i] = byte(i * i >> 5)
	}
	peer := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, bytes.Equal(verify.Result(io.ReadAll(r.Body)).Must(t), whole))
	})
	for _, front := range p.fronts() {
		first := p.echoing(t, "first")
		second := p.newService("second", balancer.Options{NewTransport: p.NewTransport(someTransport)}, peer)
		first.Retry.BodyBytes, second.Retry.BodyBytes = size, size
		p.setRoutes(firstOf(&route.Route{Service: first}, &route.Route{Service: second}))
		const early = 10 << 10
		body := io.MultiReader(bytes.NewReader(whole[:early]), &lateBody{func() {
			eventually(t, "a part of the body is kept", func() bool { return p.keptBodies.Taken() > 0 })
			first.Pool.Apply(nil)
		}, whole[early]}, bytes.NewReader(whole[early+1:]))
		response, text := front.send(t, "POST", "/", body, size)
		verify.That(t, response.StatusCode == http.StatusOK && text == "true", "%s: %d %s", front.name, response.StatusCode, text)
		eventually(t, "the memory is given back", func() bool { return p.keptBodies.Taken() == 0 })
	}
}

// A rate limit counts a request once, also if another limit counts it in between: by tags, some
// targets have the same one.
func TestRateLimitsOfTargetsCountOnce(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	shared, own := ratelimit.New(1, time.Hour, 1), ratelimit.New(1, time.Hour, 1)
	first, second, third := p.echoing(t, "first"), p.echoing(t, "second"), p.echoing(t, "third")
	leaving := []*route.Service{first, second}
	forward := asking(t, func(http.ResponseWriter, *http.Request) {
		if len(leaving) > 0 {
			leaving[0].Pool.Apply(nil)
			leaving = leaving[1:]
		}
	})
	target := func(s *route.Service, limiter *ratelimit.Limiter) *route.Route {
		return &route.Route{Service: s, Actions: &route.Actions{RateLimit: &route.RateLimit{Limiter: limiter, PerRoute: true}, ForwardAuth: forward}}
	}
	p.setRoutes(firstOf(target(first, shared), target(second, own), target(third, shared)))
	front := p.fronts()[0]
	for n, want := range []int{http.StatusOK, http.StatusTooManyRequests} {
		response, text := front.ask(t, "GET", "/", "")
		verify.That(t, response.StatusCode == want && (n > 0 || strings.HasPrefix(text, "third ")), "request %d: %d %s", n+1, response.StatusCode, text)
	}
}

// The service that a call of gRPC gets decides whether it has a deadline, which only peers with
// HTTP/2 have: not the target that was chosen first, nor the one with the discovery chain.
func TestTargetDecidesAboutTheDeadline(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	modern := p.newService("modern", balancer.Options{NewTransport: p.NewHTTP2Transport(someTransport)}, startServer(t, echoRequest))
	modern.HTTP2 = true
	for _, front := range []string{"target", "chain"} {
		for _, to := range []*route.Service{modern, p.echoing(t, "old")} {
			first := p.newService("first", balancer.Options{}, "127.0.0.1:1")
			first.HTTP2 = !to.HTTP2
			asks := &route.Actions{ForwardAuth: emptying(t, first)}
			routes := map[string]route.Route{
				"target": firstOf(&route.Route{Service: first, Actions: asks}, &route.Route{Service: to}),
				"chain":  {Path: "/", Service: first, Router: chained(t, []route.Branch{{Route: route.Route{Path: "/"}}}, route.Route{Service: to})},
			}
			p.setRoutes(routes[front])
			c := p.dialFrames()
			c.request(1, grpcPost+"|grpc-timeout=100H", true)
			r := c.response(1)
			verify.That(t, r.status == "200" && strings.Contains(r.body, "Grpc-Timeout: ") && strings.Contains(r.body, "Grpc-Timeout: 100H\n") == !to.HTTP2,
				"%s, to %s: the peer got %+v", front, to.Name, r)
			if to.HTTP2 {
				c.request(3, grpcPost+"|grpc-timeout=x", true)
				r = c.response(3)
				verify.Equal(t, r.grpc("x-sluice-reason"), "bad_grpc_timeout", "%s: reason", front)
			}
		}
	}
}

// A request stays with the branch of its target's chain that has peers, although no other request
// would find any there.
func TestRequestStaysWithABranchThatHasPeers(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	usual, canary, other := p.echoing(t, "usual"), p.echoing(t, "canary"), p.echoing(t, "other")
	asked := 0
	actions := &route.Actions{ForwardAuth: asking(t, func(http.ResponseWriter, *http.Request) {
		asked++
		usual.Pool.Apply(nil)
	})}
	router := chained(t, []route.Branch{
		{Route: route.Route{Path: "/", Conditions: route.Conditions{Headers: []route.Value{{Name: "x-canary", Text: "1"}}}}}, {Route: route.Route{Path: "/"}},
	}, route.Route{Service: canary, Actions: actions}, route.Route{Service: usual, Actions: actions})
	p.setRoutes(firstOf(&route.Route{Service: usual, Router: router, Actions: actions}, &route.Route{Service: other, Actions: actions}))
	_, text := p.fronts()[0].ask(t, "GET", "/", "", "X-Canary: 1")
	verify.That(t, strings.HasPrefix(text, "canary ") && asked == 1, "asked %d times: %s", asked, text)
}

// A request that waits for a peer goes to another target as soon as that has one, or its own target
// is removed, unless the client has left.
func TestAnotherTargetGetsAPeerMeanwhile(t *testing.T) {
	t.Parallel()
	type test struct{ chain, removed, kept, left bool }
	eachCase(t, map[string]test{
		"a peer": {}, "a peer of a chain": {chain: true}, "a peer, for who may be gone": {kept: true},
		"a peer, and the service is removed": {removed: true}, "the client has left": {left: true},
	}, func(t *testing.T, test test) {
		p := startProxy(t, Options{Switches: Switches{KeepForGoneClients: test.kept}})
		a, b := p.newService("a", balancer.Options{}), p.echoing(t, "b")
		address := b.Pool.Snapshot().All[0].Address()
		b.Pool.Apply(nil)
		a.WaitForPeer = time.Hour
		divided := firstOf(&route.Route{Service: a}, &route.Route{Service: b})
		if test.chain {
			divided = route.Route{Path: "/", Service: p.echoing(t, "web"), Router: chained(t, []route.Branch{{Route: route.Route{Path: "/"}}}, divided)}
		}
		p.setRoutes(divided)
		conn := p.dial()
		verify.Result(io.WriteString(conn, getRequest)).Must(t)
		eventually(t, "the request waits", func() bool { return a.Pool.Admission.Pending() == 1 })
		if test.left {
			client := p.onlyClient()
			verify.NoError(t, conn.Close())
			eventually(t, "the proxy may know it", func() bool { return client.IsGone() || client.client.Gone.Load() })
		}
		b.Pool.Apply(instancesAt(t, address))
		if test.removed {
			a.Pool.Retire(time.Hour)
		}
		if !test.left {
			expectResponse(t, conn, 200)
		}
		eventually(t, "the request is counted", func() bool {
			ofA, ofB := a.Pool.Requests.Snapshot(), b.Pool.Requests.Snapshot()
			return test.left && ofA.Total() == 1 && ofB.Total() == 0 || !test.left && ofA.Total() == 0 && ofB.Total() == 1
		})
	})
}

// If that target has a shorter time, which is over by then, the request does not begin to wait
// there.
func TestAnotherTargetHasAPeerTooShortly(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	a, b := p.newService("a", balancer.Options{}), p.newService("b", balancer.Options{Limits: balancer.Limits{Pending: 1}}, "127.0.0.1:1")
	peers := instancesAt(t, b.Pool.Snapshot().All[0].Address())
	b.Pool.Apply(nil)
	a.WaitForPeer, b.WaitForPeer = time.Hour, time.Millisecond // less than it takes to see that b has a peer
	emptied, full := make(chan struct{}), make(chan struct{})
	asks := &route.Actions{ForwardAuth: asking(t, func(http.ResponseWriter, *http.Request) {
		b.Pool.Apply(nil)
		close(emptied)
		<-full
	})}
	p.setRoutes(firstOf(&route.Route{Service: a}, &route.Route{Service: b, Actions: asks}))
	conn := p.dial()
	verify.Result(io.WriteString(conn, getRequest)).Must(t)
	eventually(t, "the request waits", func() bool { return a.Pool.Admission.Pending() == 1 })
	b.Pool.Apply(peers)
	<-emptied
	ctx, cancel := context.WithCancel(t.Context())
	var other sync.WaitGroup
	other.Go(func() {
		_, _ = b.Pool.Await(ctx, places.Many, func() (balancer.Token, error) { return b.Pool.Pick(new(balancer.Query)) })
	})
	eventually(t, "nobody else may wait", func() bool { return b.Pool.Admission.Pending() == 1 })
	close(full)
	response := verify.Result(http.ReadResponse(bufio.NewReader(conn), nil)).Must(t)
	verify.Equal(t, response.Header.Get("X-Sluice-Reason"), "no_peers", "reason")
	cancel()
	other.Wait()
}

// A copy that a mirror was to get while the body is forwarded is sent also if the body is kept for
// another target.
func TestMirrorOfATargetThatChanges(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	for _, front := range p.fronts() {
		a, b := p.echoing(t, "a"), p.echoing(t, "b")
		peers := instancesAt(t, b.Pool.Snapshot().All[0].Address())
		a.Pool.Apply(nil)
		b.Pool.Apply(nil)
		a.WaitForPeer, b.Retry.BodyBytes = time.Hour, 100<<10
		copied := make(chan int, 1)
		next := p.newService("next", balancer.Options{NewTransport: p.NewTransport(someTransport)}, startServer(t, func(_ http.ResponseWriter, r *http.Request) {
			copied <- len(verify.Result(io.ReadAll(r.Body)).Must(t))
		}))
		copies := route.NewCopies("star", "next", "")
		mirror := &route.Mirror{
			Share: 1, InFlight: 1, BodyBytes: 1 << 20, Service: route.MirrorService(next), Copies: copies, Actions: route.MirrorActions(nil, "star"),
		}
		p.setRoutes(firstOf(&route.Route{Service: a, Mirror: mirror}, &route.Route{Service: b, Mirror: mirror}))
		const length = 50 << 10
		var client sync.WaitGroup
		client.Go(func() {
			response, text := front.send(t, "PUT", "/", strings.NewReader(strings.Repeat("b", length)), length)
			verify.That(t, response.StatusCode == http.StatusOK, "%s: %d %s", front.name, response.StatusCode, text)
		})
		eventually(t, "the request waits", func() bool { return a.Pool.Admission.Pending() == 1 })
		b.Pool.Apply(peers)
		client.Wait()
		select {
		case got := <-copied:
			verify.Equal(t, got, length, "%s: bytes of the copy", front.name)
		case <-time.After(patience):
			t.Errorf("%s: no copy; dropped %v", front.name, copies.Dropped())
		}
	}
}

// A lateBody is a byte, before which something is done.
type lateBody struct {
	before func()
	body   byte
}

func (b *lateBody) Read(p []byte) (int, error) {
	if b.before == nil {
		return 0, io.EOF
	}
	b.before()
	b.before, p[0] = nil, b.body
	return 1, nil
}
