package proxy

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/balancer"
	"sluice/observe/metrics"
	"sluice/proxy/accesslog"
	"sluice/proxy/http1"
	"sluice/route"
	"sluice/route/places"
	"sluice/test/verify"
)

// startAffine is startProxy with three peers that each answer with their number.
func startAffine(t *testing.T, o Options, policy balancer.Policy, a *route.Affinity) *testProxy {
	t.Helper()
	var addresses []string
	for i := range 3 {
		addresses = append(addresses, startOrigin(t, answering(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", i))).address())
	}
	p := startProxy(t, o, addresses...)
	p.setAffinity(policy, a)
	return p
}

func (p *testProxy) setAffinity(policy balancer.Policy, a *route.Affinity) {
	p.t.Helper()
	p.setPolicy(policy)
	p.setService(route.Service{Retry: route.Retry{Attempts: 2}, Affinity: a})
}

func (p *testProxy) setPolicy(policy balancer.Policy) {
	p.t.Helper()
	p.reconfigure(balancer.Options{Policy: policy})
}

// get returns the answer to a request for target with these header lines, and
// what the only byte of its body is.
func (p *testProxy) get(target string, lines ...string) (answer, peer string) {
	p.t.Helper()
	answer = p.raw("GET " + target + " HTTP/1.1\r\nHost: a\r\n" + strings.Join(append(lines, "Connection: close"), "\r\n") + "\r\n\r\n")
	verify.Require(p.t, strings.HasPrefix(answer, "HTTP/1.1 200 "), "got %q", answer)
	return answer, answer[len(answer)-1:]
}

// manyValues reach all of three peers, but once in 10³⁵ times.
const manyValues = 200

// Requests that agree in the first key that they have go to one peer, others to all. A request
// without a key is kept nowhere.
func TestRequestsWithHashKeys(t *testing.T) {
	t.Parallel()
	keys := []route.HashKey{{Source: route.HashHeader, Name: "x-user"}, {Source: route.HashQuery, Name: "u"}}
	p := startAffine(t, Options{}, balancer.PolicyHash, &route.Affinity{Keys: keys})
	reached, without := make(map[string]bool), make(map[string]bool)
	// Where a value leads depends on the addresses of the peers, which differ from
	// run to run: so there are as many values as it takes.
	for n := 0; n < 10 || min(len(reached), len(without)) < 3 && n < manyValues; n++ {
		_, peer := p.get("/?u=", "X-User:")
		without[peer] = true
		_, peer = p.get(fmt.Sprint("/?u=", n))
		reached[peer] = true
		_, again := p.get(fmt.Sprint("/x?u=", n), "X-Other: 1")
		// It is the same value of another key.
		_, byHeader := p.get(fmt.Sprint("/?u=", n+1), fmt.Sprint("X-User: ", n))
		verify.That(t, again == peer && byHeader == peer, "value %d was answered by peers %s, %s and %s", n, peer, again, byHeader)
	}
	verify.That(t, len(reached) == 3 && len(without) == 3, "%d values reach %d of 3 peers, and as many requests without one %d", manyValues, len(reached), len(without))
}

// received returns a request with that head from the trusted proxy 10.0.0.1.
func received(t testing.TB, target string, lines ...string) *request {
	t.Helper()
	head := []byte("GET " + target + " HTTP/1.1\r\nHost: a\r\n" + strings.Join(append(lines, ""), "\r\n") + "\r\n")
	x := &request{in: head, headLength: len(head), end: len(head)}
	x.client = &client{listener: new(listener), remote: netip.MustParseAddr("10.0.0.1"), address: "10.0.0.1", proxied: true, options: &Options{
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
	}}
	x.head.Reset(1000, http1.UsualFields)
	n, err := x.head.Scan(head)
	verify.Require(t, n == len(head) && err == nil, "%d, %v", n, err)
	x.decide()
	return x
}

func TestHashKeysOfRequests(t *testing.T) {
	for _, test := range []struct{ key, target, line, want string }{
		{"path", "/item/1?q", "A: b", "/item/1"},
		{"header X-User", "/", "A: b\r\nx-uSER:  user-1 ", "user-1"},
		{"cookie sid", "/", "Cookie: xsid=1; sidx=2\r\nCookie: a=b;  sid=s1; SID=3", "s1"},
		{"query user", "/?xuser=1&user=u1&user=2", "A: b", "u1"},
		{"client_address", "/", "X-Forwarded-For: 198.51.100.1", "198.51.100.1"},
		{"client_address", "/", "X-Forwarded-For: unknown", ""},
	} {
		key := verify.Result(route.ParseHashKey(test.key)).Must(t)
		x := received(t, test.target, test.line)
		verify.Equal(t, string(hashKey(x, &key, x.bytes())), test.want, "%s of %s with %q", test.key, test.target, test.line)
	}
}

func TestClientAddressBehindProxies(t *testing.T) {
	f := func(trusted bool, want string, lines ...string) {
		t.Helper()
		x := received(t, "/", lines...)
		x.client.proxied = trusted
		x.decide()
		verify.Equal(t, string(x.clientAddress()), want, "trusted %v, %q", trusted, lines)
		shares := places.Many
		if address, err := netip.ParseAddr(want); err == nil && !contains(x.client.options.TrustedProxies, address) {
			shares = places.BlockOf(address)
		}
		verify.Equal(t, x.block(), shares, "whose share it is: trusted %v, %q", trusted, lines)
	}
	f(true, "10.0.0.1")
	f(false, "10.0.0.1", "X-Forwarded-For: 192.0.2.1")
	f(true, "192.0.2.1", "X-Forwarded-For: 192.0.2.1")
	f(true, "192.0.2.2", "X-Forwarded-For: 192.0.2.1, 192.0.2.2")
	f(true, "192.0.2.2", "X-Forwarded-For: 192.0.2.1,\t192.0.2.2 , 10.1.2.3,fd00::1")
	f(true, "192.0.2.2", "X-Forwarded-For: 192.0.2.1, 192.0.2.2", "X-Forwarded-For: 10.1.2.3")
	f(true, "2001:db8::1", "X-Forwarded-For: 2001:db8::1")
	f(true, "10.1.2.3", "X-Forwarded-For: 10.1.2.3")
	f(true, "10.0.0.1", "X-Forwarded-For: ,")
	f(true, "192.0.2.2", "X-Forwarded-For: nonsense, 192.0.2.2, ,10.1.2.3,")
	f(true, "192.0.2.1", "X-Real-IP: 192.0.2.1")
	f(true, "192.0.2.1", "X-Real-IP: 192.0.2.9", "X-Forwarded-For: 192.0.2.1")
	for text, want := range map[string]string{
		"192.0.2.1:1234": "192.0.2.1", `"192.0.2.1"`: "192.0.2.1", `"192.0.2.1:80"`: "192.0.2.1", "[2001:db8::1]:80": "2001:db8::1", "[2001:DB8::1]": "2001:db8::1",
		`"[2001:db8::1]:1"`: "2001:db8::1", "2001:db8::1%eth0": "2001:db8::1", "::ffff:192.0.2.1": "192.0.2.1", "[::ffff:192.0.2.1]:9": "192.0.2.1",
		"nonsense": "unknown", "unknown": "unknown", "_hidden": "unknown", "192.0.2.1:": "unknown", "192.0.2.1:x": "unknown", "192.0.2.1:123456": "unknown",
		"192.0.2.1:1:2": "unknown", "[192.0.2.1]:80": "unknown", "[2001:db8::1": "unknown", "[2001:db8::1]80": "unknown", "[]": "unknown", "\"": "unknown",
		"192.0.2.1, nonsense": "unknown", "192.0.2.1, unknown, 10.1.2.3": "unknown", "192.0.2.1 10.1.2.3": "unknown",
	} {
		f(true, want, "X-Forwarded-For: "+text)
		f(false, "10.0.0.1", "X-Forwarded-For: "+text)
		if !strings.Contains(text, ",") {
			f(true, want, "X-Real-IP: "+text)
		}
	}
	f(true, "unknown", "X-Real-IP: 192.0.2.1", "X-Real-IP: 192.0.2.2")
}

var setCookie = regexp.MustCompile("\r\nSet-Cookie: peer=([0-9a-z]+); Path=/; HttpOnly(?:; Secure)?\r\n")

func TestStickyCookie(t *testing.T) {
	t.Parallel()
	a := &route.Affinity{Cookie: "peer", CookieAttributes: "; Path=/; HttpOnly"}
	p := startAffine(t, Options{}, balancer.PolicySticky, a)
	values := make(map[string]string) // by peer
	for n := 0; n < 10 || len(values) < 3 && n < manyValues; n++ {
		answer, peer := p.get("/")
		m := setCookie.FindStringSubmatch(answer)
		verify.Require(t, m != nil, "no cookie in %q", answer)
		before, known := values[peer]
		verify.That(t, !known || before == m[1], "peer %s has two names", peer)
		values[peer] = m[1]
	}
	verify.Equal(t, len(values), 3, "requests without a cookie reach of 3 peers")
	for peer, value := range values {
		for range 5 {
			answer, again := p.get("/", "Cookie: other=1; peer="+value)
			verify.That(t, again == peer && !strings.Contains(answer, "Set-Cookie"), "the cookie of peer %s leads to %s: %q", peer, again, answer)
		}
		// Services at other paths have cookies of the same name, and may be the first ones.
		answer, again := p.get("/", "Cookie: peer=1; peer=x; peer="+value, "Cookie: peer=2")
		verify.That(t, again == peer && !strings.Contains(answer, "Set-Cookie"), "beside other cookies, that of peer %s leads to %s: %q", peer, again, answer)
		// The peer is out: another one answers, and is the one from then on.
		id := verify.Result(parseStickyID([]byte(value))).Must(t)
		all := p.pool.Snapshot().All
		out := all[slices.IndexFunc(all, func(candidate *balancer.Peer) bool { return candidate.StickyID() == id })]
		p.pool.SetReasons(balancer.ReasonEjected, balancer.Verdict{Peer: out, Down: true})
		answer, other := p.get("/", "Cookie: peer="+value)
		m := setCookie.FindStringSubmatch(answer)
		verify.That(t, other != peer && m != nil && m[1] == values[other], "without peer %s: answered by %s: %q", peer, other, answer)
		p.pool.SetReasons(balancer.ReasonEjected, balancer.Verdict{Peer: out})
	}
	for _, value := range []string{"", "zzzzzzzzzzzzzzzzzzzzz", "-1", "ö", "0", `"1"`} {
		answer, _ := p.get("/", "Cookie: peer="+value)
		verify.That(t, setCookie.FindString(answer) != "", "cookie %q is not replaced: %q", value, answer)
	}
	refreshing := *a
	refreshing.RefreshCookie = true
	p.setAffinity(balancer.PolicySticky, &refreshing)
	answer, peer := p.get("/", "Cookie: peer="+values["1"])
	verify.That(t, peer == "1" && setCookie.FindString(answer) != "", "the cookie is not refreshed: %q", answer)
	// An answer that sluice gives by itself comes from no peer.
	p.setPeers()
	answer = p.expect(closingRequest, "503")
	verify.That(t, !strings.Contains(answer, "Set-Cookie"), "got %q", answer)
}

// Cookies for clients with HTTPS are for HTTPS only; behind a trusted proxy, who says so.
func TestCookiesAreSecureOverTLS(t *testing.T) {
	t.Parallel()
	p, _ := startSplit(t, route.Split{}, .5)
	for _, always := range []bool{false, true} {
		p.setAffinity(balancer.PolicySticky, &route.Affinity{Cookie: "peer", CookieAttributes: "; Path=/", SecureCookie: always})
		p.setSplit(route.Split{}, .5)
		for _, trusted := range [][]netip.Prefix{nil, loopback} {
			p.change(func(o *Options) { o.TrustedProxies = trusted })
			for _, front := range p.fronts() {
				response, _ := front.ask(t, "GET", "/", "", "X-Forwarded-Proto: https")
				secure := strings.HasPrefix(front.url, "https") || trusted != nil
				cookies := response.Cookies()
				verify.Require(t, len(cookies) == 2, "%s: got %v", front.name, response.Header)
				for _, cookie := range cookies {
					verify.Equal(t, cookie.Secure, secure || always && cookie.Name == "peer", "%s, trusted %v, always %v: got %q", front.name, trusted, always, cookie)
				}
			}
		}
	}
}

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
