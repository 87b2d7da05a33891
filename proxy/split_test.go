package proxy

import (
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/metrics"
	"sluice/proxy/accesslog"
	"sluice/route"
	"sluice/test/balancertest"
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
	verify.NoError(t, p.pool.Reconfigure(balancertest.Complete(balancer.Options{
		NewTransport: p.NewTransport(transportOf(t)),
		Groups: []balancer.GroupSelector{{
			Name: "canary", Match: func(i *discovery.Instance) bool { return i.HostPort() == addresses[0] },
		}},
	})))
	p.setSplit(s, canary)
	return p, origins
}

// setSplit routes all requests by s, with this share of the canary.
func (p *testProxy) setSplit(s route.Split, canary float64) {
	p.t.Helper()
	s.Shares = []route.Share{{Group: p.pool.Group("canary"), Size: canary}}
	s.Rest, s.Seed = p.pool.Group("rest"), "star"
	table := verify.Result(route.NewTable([]route.Route{{Path: "/", Service: p.service, Split: &s}})).Must(p.t)
	p.SetTable(table)
}

var newClientCookie = regexp.MustCompile(`\r\nSet-Cookie: sluice_client=([0-9a-z]{1,13}); Path=/; HttpOnly; SameSite=Lax(?:; Secure)?\r\n`)

// A client without the cookie gets one, and with it stays in its group while shares
// grow; each group has clients.
func TestSplitByCookie(t *testing.T) {
	p, _ := startSplit(t, route.Split{}, .5)
	inGroup := make(map[string][]string) // cookies by peer
	for range 60 {
		answer, peer := p.get("/")
		cookie := newClientCookie.FindStringSubmatch(answer)
		verify.Require(t, cookie != nil, "no new cookie in %q", answer)
		inGroup[peer] = append(inGroup[peer], cookie[1])
	}
	// By chance a group has none of 60 clients once in 10¹⁷ runs.
	verify.That(t, len(inGroup["0"]) != 0 && len(inGroup["1"]) != 0, "%d and %d clients", len(inGroup["0"]), len(inGroup["1"]))
	expect := func(client, want string) {
		t.Helper()
		answer, peer := p.get("/", "Cookie: a=b; sluice_client="+client)
		verify.That(t, peer == want && !strings.Contains(answer, "Set-Cookie"), "client of peer %s: got %q", want, answer)
	}
	for peer, clients := range inGroup {
		for _, client := range clients {
			expect(client, peer)
		}
	}
	p.setSplit(route.Split{}, .8)
	for _, client := range inGroup["0"] {
		expect(client, "0")
	}
	p.setSplit(route.Split{}, 0)
	for _, client := range inGroup["0"] {
		expect(client, "1")
	}
}

// The same holds for clients with HTTP/2.
func TestSplitByCookieOverHTTP2(t *testing.T) {
	p, _ := startSplit(t, route.Split{}, .5)
	for range 10 {
		jar, _ := cookiejar.New(nil)
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetUnencryptedHTTP2(true)
		client := &http.Client{Transport: transport, Jar: jar}
		var first string
		for i := range 10 {
			response := verify.Result(client.Get("http://" + p.address + "/")).Must(t)
			body := make([]byte, 1)
			response.Body.Read(body)
			response.Body.Close()
			if i == 0 {
				first = string(body)
			}
			got := len(response.Cookies())
			verify.Require(t, response.ProtoMajor == 2 && string(body) == first && (got == 1) == (i == 0), "request %d: HTTP/%d, peer %s, %d new cookies; the first one had peer %s", i, response.ProtoMajor, body, got, first)
		}
		transport.CloseIdleConnections()
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
	expectReason(t, p.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), "503", "group_empty")
	p.setSplit(route.Split{}, 0)
	p.get("/")
}

func TestAccessLogNamesTheGroup(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	log := verify.Result(accesslog.New(accesslog.Options{Path: path, Sample: 1})).Must(t)
	p, _ := startSplit(t, route.Split{}, 1)
	o := *p.options.Load()
	o.AccessLog = log
	p.Configure(o)
	p.get("/")
	eventually(t, "the request is logged, and its connection closed", func() bool { return p.Connections() == 0 })
	verify.NoError(t, log.Close())
	line, err := os.ReadFile(path)
	verify.That(t, err == nil && strings.Contains(string(line), `,"group":"canary",`), "got %s, %v", line, err)
}
