package proxy

import (
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// startWeighted starts a proxy with a route to two services, each with the peer of its name: "a" has a share of one half, and "b" a split by the cookie.
func startWeighted(t *testing.T, key route.SplitKey, peer func(service string) (address string)) *testProxy {
	t.Helper()
	p := startProxy(t, Options{})
	w := &route.Weighted{Key: key, Seed: "a b"}
	for _, name := range []string{"a", "b"} {
		pool, err := balancer.NewPool(name, balancertest.Complete(balancer.Options{
			NewTransport: p.NewTransport(transportOf(t)),
			Groups:       []balancer.GroupSelector{{Name: "canary", Match: func(*discovery.Instance) bool { return true }}},
		}))
		verify.NoError(t, err)
		t.Cleanup(pool.Close)
		host, port, _ := net.SplitHostPort(peer(name))
		n, _ := strconv.Atoi(port)
		pool.Apply([]discovery.Instance{{Service: name, ID: name, Address: host, Port: n, Weight: 1}})
		service := *p.service
		service.Name, service.Pool = name, pool
		w.Targets = append(w.Targets, route.Target{Route: &route.Route{Service: &service}, Share: .5})
	}
	of := w.Targets[1].Route
	of.Split = &route.Split{Shares: []route.Share{{Group: of.Service.Pool.Group("canary"), Size: 1}}, Rest: of.Service.Pool.Group("rest"), Seed: "b"}
	p.setRoutes(route.Route{Path: "/", Weighted: w})
	return p
}

// named returns a peer that answers with the name of its service.
func named(t *testing.T) func(service string) (address string) {
	return func(service string) string {
		return startOrigin(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"+service)).address()
	}
}

var anyClientCookie = regexp.MustCompile(`\r\nSet-Cookie: sluice_client=[^\r]*\r\n`)

// A client stays with its service by one cookie, which also decides its group there.
func TestServicesByCookie(t *testing.T) {
	p := startWeighted(t, route.SplitKey{}, named(t))
	clients := make(map[string][]string)
	for range 60 {
		answer, service := p.get("/")
		cookies := anyClientCookie.FindAllString(answer, -1)
		verify.Require(t, len(cookies) == 1, "the cookies %q in %q", cookies, answer)
		clients[service] = append(clients[service], newClientCookie.FindStringSubmatch(answer)[1])
	}
	// By chance a service has none of 60 clients once in 10¹⁷ runs.
	verify.That(t, len(clients["a"]) != 0 && len(clients["b"]) != 0, "%d and %d clients", len(clients["a"]), len(clients["b"]))
	for service, ids := range clients {
		for _, id := range ids {
			answer, got := p.get("/", "Cookie: sluice_client="+id)
			verify.That(t, got == service && !strings.Contains(answer, "Set-Cookie"), "a client of %s got %q", service, answer)
		}
	}
}

// With a key that is not the cookie, only a split of the chosen service sets one.
func TestServicesByAddress(t *testing.T) {
	t.Parallel()
	p := startWeighted(t, route.SplitKey{Source: route.SplitClientAddress}, named(t))
	answer, service := p.get("/")
	for range 10 {
		_, again := p.get("/")
		verify.Require(t, again == service, "service %s, then %s", service, again)
	}
	verify.Equal(t, strings.Contains(answer, "Set-Cookie"), (service == "b"), "service %s: %q", service, answer)
}
