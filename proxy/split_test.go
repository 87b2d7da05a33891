package proxy

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"sluice/balancer"
	"sluice/observe/metrics"
	"sluice/proxy/accesslog"
	"sluice/route"
	"sluice/test/verify"
)

// startSplit starts a proxy with two peers that answer with their number. Peer 0 is the
// canary, which has this share, and peer 1 the rest.
func startSplit(t testing.TB, s route.Split, canary float64) (p *testProxy, origins [2]*origin) {
	t.Helper()
	var addresses []string
	for i := range origins {
		origins[i] = startOrigin(t, answering(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", i)))
		addresses = append(addresses, origins[i].address())
	}
	p = startProxy(t, Options{}, addresses...)
	p.reconfigure(balancer.Options{Groups: []balancer.GroupSelector{{
		Name: "canary", Selector: balancer.Selector{Tags: addresses[:1]},
	}}})
	p.setSplit(s, canary)
	return p, origins
}

// setSplit routes all requests by s, with this share of the canary.
func (p *testProxy) setSplit(s route.Split, canary float64) {
	p.t.Helper()
	s.Shares = []route.Share{{Group: p.pool.Group("canary"), Size: canary}}
	s.Rest, s.Seed = p.pool.Group("rest"), "star"
	p.setRoutes(route.Route{Path: "/", Service: p.service, Split: &s})
}

var newClientCookie = regexp.MustCompile(`^sluice_client=([0-9a-z]{1,13}); Path=/; HttpOnly; SameSite=Lax(?:; Secure)?$`)

// newClients sends requests of 40 clients without a cookie, each of which gets one, and returns the
// cookies by the answer: of each of two peers, or services.
func (f *testFront) newClients(t *testing.T) (clients map[string][]string) {
	t.Helper()
	clients = make(map[string][]string)
	for range 40 {
		response, answer := f.ask(t, "GET", "/", "")
		set := response.Header["Set-Cookie"]
		verify.Require(t, len(set) == 1 && newClientCookie.MatchString(set[0]), "the cookies %q", set)
		clients[answer] = append(clients[answer], newClientCookie.FindStringSubmatch(set[0])[1])
	}
	// By chance one has none of 40 clients once in 5·10¹¹ runs.
	verify.That(t, len(clients) == 2, "all clients got the same answer: %v", clients)
	return clients
}

// expectClients checks that clients with these cookies get that answer, and no new cookie.
func (f *testFront) expectClients(t *testing.T, clients []string, want string) {
	t.Helper()
	for _, client := range clients {
		response, answer := f.ask(t, "GET", "/", "", "Cookie: a=b; sluice_client="+client)
		verify.That(t, answer == want && response.Header["Set-Cookie"] == nil, "%s: got %s, %v, want %s", f.name, answer, response.Header, want)
	}
}

// A client without the cookie gets one, and with it stays in its group while shares
// grow; each group has clients.
func TestSplitByCookie(t *testing.T) {
	t.Parallel()
	p, _ := startSplit(t, route.Split{}, .5)
	fronts := p.fronts()
	for _, front := range []testFront{fronts[0], fronts[2]} { // HTTP/1 and HTTP/2
		p.setSplit(route.Split{}, .5)
		clients := front.newClients(t)
		for peer := range clients {
			front.expectClients(t, clients[peer], peer)
		}
		p.setSplit(route.Split{}, .8)
		front.expectClients(t, clients["0"], "0")
		p.setSplit(route.Split{}, 0)
		front.expectClients(t, clients["0"], "1")
	}
}

func TestSplitByOtherKeys(t *testing.T) {
	byUser := verify.Result(route.ParseSplitKey("header X-User")).Must(t)
	p, _ := startSplit(t, route.Split{Key: byUser}, .5)
	reached := make(map[string]bool)
	for user := range 60 {
		field := fmt.Sprintf("X-User: %d", user)
		answer, peer := p.get("/", field)
		_, again := p.get("/", field)
		verify.That(t, again == peer && !strings.Contains(answer, "Set-Cookie"), "user %d: peer %s, then %s; %q", user, peer, again, answer)
		reached[peer] = true
	}
	verify.Equal(t, len(reached), 2, "peers %v were reached", reached)
	p.setSplit(route.Split{Key: route.SplitKey{Source: route.SplitClientAddress}}, .5)
	_, first := p.get("/")
	for range 20 {
		_, peer := p.get("/")
		verify.Require(t, peer == first, "the same address is in two groups")
	}
	p.setSplit(route.Split{Key: route.SplitKey{Source: route.SplitNone}}, .5)
	clear(reached)
	eventually(t, "both peers are reached", func() bool { // the draw is not seeded
		_, peer := p.get("/")
		reached[peer] = true
		return len(reached) == 2
	})
}

// A request for a group without a usable peer fails with a reason of its own, unless
// there is a fallback, which also gets the retry after the group's only peer failed.
func TestEmptyGroup(t *testing.T) {
	t.Parallel()
	p, origins := startSplit(t, route.Split{}, 1)
	canary := p.pool.Group("canary")
	fallback := route.Split{Fallback: p.pool.Group("rest")}
	origins[0].leave()
	p.setSplit(fallback, 1)
	for range 10 {
		_, peer := p.get("/")
		verify.That(t, peer == "1", "the peer that is gone has answered")
	}
	// The peer may have had a connection that it closes, which is no failure.
	attempts := canary.Attempts().Snapshot()
	if failed := attempts.Class(metrics.Class5xx); failed == 0 || failed != attempts.Total() || canary.Fallbacks() != 10 {
		t.Errorf("%d of %d attempts failed and %d fell back; want all, and 10", failed, attempts.Total(), canary.Fallbacks())
	}
	p.setPeers(origins[1].address())
	for range 10 {
		p.get("/")
	}
	verify.Equal(t, canary.Fallbacks(), 20, "fallbacks")
	p.setSplit(route.Split{}, 1)
	expectReason(t, p.raw(closingRequest), "503", "group_empty")
	p.setSplit(route.Split{}, 0)
	p.get("/")
}

func TestAccessLogNamesTheGroup(t *testing.T) {
	t.Parallel()
	p, _ := startSplit(t, route.Split{}, 1)
	logged := p.logged(accesslog.Options{Sample: 1})
	p.get("/")
	verify.Equal(t, logged.lines()[0].Group, "canary", "the group")
}

// startWeighted starts a proxy with a route to two services, each with the peer of its name: "a"
// has a share of one half, and "b" a split by the cookie.
func startWeighted(t *testing.T, key route.SplitKey, peer func(service string) (address string)) *testProxy {
	t.Helper()
	p := startProxy(t, Options{})
	w := &route.Weighted{Key: key, Seed: "a b"}
	for _, name := range []string{"a", "b"} {
		service := p.newService(name, balancer.Options{
			NewTransport: p.NewTransport(transportOf(t)),
			Groups:       []balancer.GroupSelector{{Name: "canary"}},
		}, peer(name))
		w.Targets = append(w.Targets, route.Target{Route: &route.Route{Service: service}, Share: .5})
	}
	of := w.Targets[1].Route
	of.Split = &route.Split{Shares: []route.Share{{Group: of.Service.Pool.Group("canary"), Size: 1}}, Rest: of.Service.Pool.Group("rest"), Seed: "b"}
	p.setRoutes(route.Route{Path: "/", Weighted: w})
	return p
}

// A client stays with its service by one cookie, which also decides its group there. With a key
// that is not the cookie, only a split of the chosen service sets one.
func TestServicesByKey(t *testing.T) {
	t.Parallel()
	named := func(service string) string {
		return startOrigin(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"+service)).address()
	}
	front := startWeighted(t, route.SplitKey{}, named).fronts()[0]
	clients := front.newClients(t)
	for service := range clients {
		front.expectClients(t, clients[service], service)
	}

	p := startWeighted(t, route.SplitKey{Source: route.SplitClientAddress}, named)
	answer, service := p.get("/")
	for range 10 {
		_, again := p.get("/")
		verify.Require(t, again == service, "service %s, then %s", service, again)
	}
	verify.Equal(t, strings.Contains(answer, "Set-Cookie"), (service == "b"), "service %s: %q", service, answer)
}
