package proxy

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/proxy/http1"
	"sluice/route"
	"sluice/route/ratelimit"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// text returns the ends as "status reason", or the service with the ids of its peers; what they
// depend on follows.
func (e Explanation) text() string {
	var all []string
	for _, end := range e.Ends {
		s := end.Service
		if end.Group != "" {
			s += "/" + end.Group
		}
		for _, p := range end.Peers {
			s += " " + p.Instance().ID
		}
		if a := end.Answer; a != nil {
			s = strings.TrimSpace(fmt.Sprint(a.Status, " ", a.Reason, " ", a.Location))
		}
		if len(e.Ends) > 1 {
			s = fmt.Sprintf("%.2f ", end.Share) + s
		}
		for _, d := range end.Depends {
			s += fmt.Sprintf(" | %d %s", d.Status, d.Reason)
		}
		all = append(all, s)
	}
	return strings.Join(all, "; ")
}

// Each end of a request is told by the phases that serve it, with what it depends on in their
// order.
func TestExplain(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}, "10.0.0.1:1", "10.0.0.2:1")
	pool := func(name string, addresses ...string) *balancer.Pool {
		return p.newService(name, balancer.Options{}, addresses...).Pool
	}
	unknown := balancer.NewPool("unknown", balancertest.Complete(balancer.Options{}))
	t.Cleanup(unknown.Close)
	repaired := pool("repaired", "10.0.0.3:1")
	repaired.Maintenance.Store(&balancer.Maintenance{Why: "new disks", Except: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	closed := pool("closed", "10.0.0.4:1")
	closed.Maintenance.Store(&balancer.Maintenance{})
	limited := pool("limited", "10.0.0.5:1")
	limited.Reconfigure(balancertest.Complete(balancer.Options{Limits: balancer.Limits{Requests: 5, PeerRequests: 2}}))
	lame := pool("lame", "10.0.0.6:1")
	lame.SetReasons(balancer.ReasonActive, balancer.Verdict{Peer: lame.Snapshot().All[0], Down: true, Why: "503"})
	service := func(p *balancer.Pool) *route.Service { return &route.Service{Name: p.Name, Pool: p} }
	password := annsPassword(t)
	office := access("192.0.2.0/24", "")
	limit := &route.RateLimit{Limiter: ratelimit.New(1, 24*time.Hour, 1), PerRoute: true}
	web := verify.Result(route.NewChain([]route.Branch{{Route: route.Route{Path: "/chain/closed"}}})).Must(t)
	part := func(s *route.Service, a *route.Actions) route.Target {
		return route.Target{Route: &route.Route{Service: s, Actions: a}, Share: .5}
	}
	p.setRoutes(
		route.Route{Path: "/peers", Service: p.service},
		route.Route{Path: "/office", Service: p.service, Actions: &route.Actions{Access: office, BodyLimit: 10}},
		route.Route{Path: "/user", Service: p.service, Actions: &route.Actions{Access: office, BasicAuth: password, RateLimit: limit}},
		route.Route{Path: "/certificate", Service: p.service, Actions: &route.Actions{ClientCertificate: true}},
		route.Route{Path: "/old", Actions: &route.Actions{Redirect: redirect(t, "https://new.example$path", 308)}},
		route.Route{Path: "/fixed", Actions: &route.Actions{Access: access("", "198.51.100.0/24"), DirectResponse: &route.DirectResponse{Status: 410}}},
		route.Route{Path: "/repaired", Service: service(repaired), Actions: &route.Actions{BasicAuth: password}},
		route.Route{Path: "/limited", Service: service(limited)},
		route.Route{Path: "/lame", Service: service(lame)},
		route.Route{Path: "/empty", Service: service(pool("empty"))},
		route.Route{Path: "/unknown", Service: service(unknown)},
		route.Route{Path: "/chain", Service: p.service, Router: &route.Router{Chain: web, Ways: []route.Route{{Service: service(closed)}}}},
		route.Route{Path: "/half", Weighted: &route.Weighted{Seed: "half", Targets: []route.Target{part(p.service, &route.Actions{Access: office}), part(service(limited), nil)}}},
		route.Route{Path: "/secure", Service: p.service, Conditions: route.Conditions{Scheme: "https"}},
	)
	plain := ListenerOptions{Name: "web"}
	secure := ListenerOptions{Name: "secure", TLS: &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven}}
	strict := ListenerOptions{Name: "strict", TLS: &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert}, nil
	}}}
	challenged := ListenerOptions{Challenge: func(string, string) ([]byte, bool) {
		t.Error("a question looks for the answer to a challenge, which may be a query of Consul")
		return nil, false
	}}
	const peers = "star 10.0.0.1:1 10.0.0.2:1"
	for _, test := range []struct {
		at     ListenerOptions
		client string
		lines  string // the request line without the version, then fields
		want   string
	}{
		{plain, "", "GET /peers", peers},
		{plain, "", "GET /nothing", "404 no_route"},
		{challenged, "", "GET /.well-known/acme-challenge/x", "404 no_route | 200 acme_challenge"},
		{secure, "", "GET /secure", peers},
		{plain, "10.9.0.1", "GET /secure|X-Forwarded-Proto: https", peers},
		{plain, "10.8.0.1", "GET /secure|X-Forwarded-Proto: https", "404 no_route"},
		{ListenerOptions{HTTPSPort: 8443}, "", "GET /peers?a=b", "308 https_redirect https://a.example:8443/peers?a=b"},
		{plain, "10.9.0.1", "GET /office|X-Forwarded-For: 192.0.2.1", peers},
		{plain, "", "GET /office", peers + " | 403 client_denied"},
		{plain, "192.0.2.1", "POST /office", peers + " | 413 body_too_long"},
		{plain, "192.0.2.1", "POST /office|Content-Length: 11", "413 body_too_long"},
		{plain, "192.0.2.1", "POST /office|Content-Length: 9", peers},
		{plain, "", "GET /user", peers + " | 403 client_denied | 429 rate_limited | 401 unauthorized"},
		{plain, "198.51.100.1", "GET /user", "403 client_denied"},
		{plain, "", "GET /certificate", "403 certificate_required"},
		{secure, "", "GET /certificate", peers + " | 403 certificate_required"},
		{strict, "", "GET /peers", peers + " | 0 tls_handshake_failed"},
		{plain, "", "GET /old/x", "308 redirect https://new.example/old/x"},
		{plain, "192.0.2.1", "GET /fixed", "410 direct_response"},
		{plain, "", "GET /fixed", "410 direct_response | 403 client_denied"},
		{plain, "192.0.2.1", "GET /repaired", "repaired 10.0.0.3:1 | 401 unauthorized"},
		{plain, "198.51.100.1", "GET /repaired", "503 maintenance"},
		{plain, "", "GET /repaired", "repaired 10.0.0.3:1 | 503 maintenance | 401 unauthorized"},
		{plain, "", "GET /limited", "limited 10.0.0.5:1 | 503 too_many_requests | 503 peers_saturated"},
		{plain, "", "GET /lame", "503 no_eligible_peer"},
		{plain, "", "GET /empty", "503 no_peers"},
		{plain, "", "GET /unknown", "503 no_peers"},
		{plain, "", "GET /chain/closed", "503 maintenance"},
		{plain, "", "GET /chain/x", peers},
		{plain, "198.51.100.1", "GET /half", "0.50 403 client_denied; 0.50 limited 10.0.0.5:1 | 503 too_many_requests | 503 peers_saturated"},
		{plain, "", "GET /peers/x/..", "400 unsafe_path"},
		{plain, "", "GET /peers|Via: 1 sluice, 1 sluice, 1 sluice, 1 sluice, 1 sluice", "400 loop"},
		{plain, "", "G=T /peers", "400 " + http1.ErrMethod.Reason},
	} {
		q := Question{Listener: test.at, Head: []byte(strings.ReplaceAll(test.lines, "|", "\r\n") + "\r\n\r\n")}
		q.Head = []byte(strings.Replace(string(q.Head), "\r\n", " HTTP/1.1\r\nHost: a.example\r\n", 1))
		if test.client != "" {
			q.Client = netip.MustParseAddr(test.client)
		}
		for range 2 { // the question changes nothing
			e := p.Explain(q)
			verify.Equal(t, e.text(), test.want, "%s, %s from %q", test.at.Name, test.lines, test.client)
			verify.Equal(t, e.Ends[0].Matched != nil, !strings.Contains(test.want, "no_route") && !strings.Contains(test.want, "https_") && e.Routes.Verdicts != nil, "%s: its route is shown", test.lines)
		}
	}
	verify.Equal(t, limit.Take(nil, time.Now()), 0, "the wait after questions, which take no place")
	verify.Equal(t, p.inflight(), 0, "in flight")
}

// Of a request only what conditions of routes read is kept, and no credentials. A client that sends
// many leaves the other routes their room.
func TestRecentRequests(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, answering("HTTP/1.1 204 No Content\r\n\r\n")).address())
	conditions := route.Conditions{
		Headers: []route.Value{{Name: "X-Env", Kind: route.ValuePresent}, {Name: "Authorization", Kind: route.ValuePresent}},
		Queries: []route.Value{{Name: "v", Kind: route.ValuePresent}}, Cookies: []route.Value{{Name: "beta", Kind: route.ValuePresent}},
	}
	p.setRoutes(
		route.Route{Path: "/a", Service: p.service, Conditions: conditions}, route.Route{Path: "/a", Service: p.service},
		route.Route{Path: "/b", Service: p.service},
	)
	send := func(target string, fields ...string) {
		t.Helper()
		p.raw("GET " + target + " HTTP/1.1\r\nHost: h.example\r\n" + strings.Join(append(fields, "Connection: close"), "\r\n") + "\r\n\r\n")
	}
	send("/a/x?token=secret&v=1&%76=2", "X-Env: canary", "X-Key: secret", "Authorization: Bearer secret", "Cookie: session=secret; beta=1")
	for i := range 50 {
		send(fmt.Sprint("/a/", i))
	}
	send("/b/x")
	send("/nothing")
	var heads []string
	for _, r := range p.Recent(time.Time{}) {
		heads = append(heads, strings.TrimSuffix(string(r.Head), "\r\n\r\n"))
		verify.That(t, r.Client.IsLoopback() && time.Since(r.Time) < time.Hour, "%+v", r)
	}
	all := "\n" + strings.ReplaceAll(strings.Join(heads, "\n"), "\r\n", "|") + "\n"
	const host = " HTTP/1.1|Host: h.example"
	for _, want := range []string{"/a/x?v=1&%76=2" + host + "|X-Env: canary|Cookie: beta=1", "/a/0" + host, "/b/x" + host, "/nothing" + host} {
		verify.Contains(t, all, "\nGET "+want+"\n", "the heads")
	}
	verify.That(t, !strings.Contains(all, "secret"), "a secret is kept: %s", all)
	// One of each route, and another one if five seconds have passed.
	verify.That(t, len(heads) < 40, "%d requests are kept", len(heads))
}
