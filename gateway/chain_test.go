package gateway

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/admin"
	"sluice/config"
	"sluice/config/units"
	"sluice/test/verify"
)

// withChain returns c with a discovery chain of the service web: /admin goes to web@admin, the rest
// to web@v1 by its share and to web.
func withChain(t *testing.T, c *config.Config, adminPeer, v1Peer string, share float64) *config.Config {
	t.Helper()
	branches := []config.Branch{
		{Route: config.Route{Path: "/admin", Match: "string_prefix", Service: "web@admin", Actions: config.Actions{
			ResponseHeaders: &config.HeaderEdits{Set: map[string]config.Secret{"X-Branch": units.NewSecret("admin")}},
		}}, PrefixRewrite: "/", Origin: "service-router web, route 1"},
		{Route: config.Route{Path: "/", Parts: []config.Part{
			{Route: config.Route{Service: "web@v1", Origin: "service-splitter web, split 1"}, Share: share},
			{Route: config.Route{Service: "web", Origin: "service-splitter web, split 2"}, Share: 1 - share},
		}}, Splitter: "web", Origin: "service-router web, its default route"},
	}
	for i := range branches {
		verify.NoError(t, branches[i].Check())
	}
	changed := *c
	changed.Services = maps.Clone(c.Services)
	web := c.Services["web"]
	derived := func(peer string) config.Service {
		s := web
		s.Peers = []config.Peer{{Text: peer, Value: web.Peers[0].Value}}
		s.Peers[0].Value.Address, s.Peers[0].Value.Port = "127.0.0.1", port(t, peer)
		return s
	}
	fragment := config.Addition{Origin: "chains", Services: map[string]config.Service{"web@admin": derived(adminPeer), "web@v1": derived(v1Peer)}}
	web.Chain = branches
	changed.Services["web"] = web
	merged, conflicts := config.Merge(&changed, fragment)
	verify.Require(t, len(conflicts) == 0, "conflicts %v", conflicts)
	return merged
}

// A discovery chain comes, changes its shares and goes without a failed request. Its branches keep
// what the route does, each client stays on its side, and a listener for TCP has the service's own
// peers.
func TestDiscoveryChain(t *testing.T) {
	t.Parallel()
	named := func(name string) string {
		return serveOrigin(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name+" "+r.URL.Path) })
	}
	web, v1, adminPeer := named("web"), named("v1"), named("admin")
	// The chain has the percentage that the idle timeout of clients is above 100 s; 0: there is
	// none.
	text := func(percent int) string {
		return fmt.Sprintf(`
listeners: [{ name: web, address: "127.0.0.1:0" }, { name: tcp, address: "127.0.0.1:0", protocol: tcp, service: bytes }]
admin: { address: "127.0.0.1:0" }
access_log: { path: "off" }
discovery: { allow_local: true }
client: { timeouts: { idle: %ds } }
services: { web: { peers: [%q] }, bytes: { peers: [%[2]q] } }
routes:
  - { path: /, service: web }
  - { path: /shop, service: web, strip_prefix: /shop, response_headers: { set: { X-Route: shop } } }
  - { path: /limited, service: web, strip_prefix: /limited, rate_limit: { rate: 2, per: 24h } }
`, 100+percent, web)
	}
	r := start(t, text(0), func(g *Gateway) {
		chained := func(c *config.Config) *config.Config {
			percent := int(c.Client.Timeouts.Idle/time.Second) - 100
			if percent == 0 {
				return c
			}
			return withChain(t, c, adminPeer, v1, float64(percent)/100)
		}
		o := g.documentOptions()
		apply, again := o.Apply, o.Again
		o.Apply = func(ctx context.Context, c *config.Config) (*config.Config, error) { return apply(ctx, chained(c)) }
		o.Again = func(ctx context.Context, c *config.Config) bool { return again(ctx, chained(c)) }
		g.documents.Connect(o)
	})
	stop := r.load("web")
	get := func(path, client string) (*http.Response, string) {
		t.Helper()
		request := verify.Result(http.NewRequestWithContext(t.Context(), http.MethodGet, r.url("web")+path, nil)).Must(t)
		if client != "" {
			request.Header.Set("Cookie", "sluice_client="+client)
		}
		response := verify.Result(r.client.Do(request)).Must(t)
		defer response.Body.Close()
		return response, string(verify.Result(io.ReadAll(response.Body)).Must(t))
	}
	sides := func() (side map[string]string) {
		side = make(map[string]string)
		for i := range 50 {
			client := fmt.Sprintf("client%d", i)
			response, answer := get("/shop/x", client)
			verify.Require(t, response.StatusCode == 200 && response.Header.Get("X-Route") == "shop", "%d: %s", response.StatusCode, answer)
			side[client] = strings.TrimSuffix(answer, " /x")
		}
		return side
	}

	r.replace(text(20))
	response, answer := get("/shop/admin/users", "")
	verify.That(t, answer == "admin /users" && response.Header.Get("X-Route") == "shop" && response.Header.Get("X-Branch") == "admin", "%q, %v", answer, response.Header)
	_, answer = get("/administrator", "")
	verify.Equal(t, answer, "admin /istrator", "a prefix within a segment") // as Envoy, but for the slash
	first := sides()
	r.replace(text(60))
	second := sides()
	count := make(map[string]int)
	for client, side := range first {
		count[side]++
		count["then "+second[client]]++
		verify.That(t, side != "v1" || second[client] == "v1", "%s has left v1, whose share grew", client)
		explained := fetch[admin.RouteAnswer](r, "/api/route?url=http://x/shop/x&header=Cookie:+sluice_client="+client).Ends[0]
		verify.That(t, explained.Branch != nil && explained.Service == "web"+map[string]string{"v1": "@v1"}[second[client]], "%s: /api/route says %q, and it is at %s", client, explained.Service, second[client])
	}
	// The hash of these clients is always the same.
	verify.DeepEqual(t, count, map[string]int{"v1": 15, "web": 35, "then v1": 35, "then web": 15}, "clients")

	codes := make(map[int]int)
	for i := range 4 { // one bucket for all branches
		response, _ := get([]string{"/limited/admin", "/limited/x"}[i%2], "")
		codes[response.StatusCode]++
	}
	verify.DeepEqual(t, codes, map[int]int{200: 2, 429: 2}, "statuses")
	verify.Contains(t, r.metrics(), `sluice_chain_share{branch="service-router web, its default route",service="web",target="web@v1"} 0.6`, "metrics")
	connection := verify.Result(net.Dial("tcp", strings.TrimPrefix(r.url("tcp"), "http://"))).Must(t)
	fmt.Fprint(connection, "GET /admin HTTP/1.0\r\n\r\n")
	forwarded := verify.Result(io.ReadAll(connection)).Must(t)
	connection.Close()
	verify.Contains(t, string(forwarded), "web /admin", "a connection")

	r.replace(text(0))
	_, answer = get("/shop/admin/users", "")
	verify.Equal(t, answer, "web /admin/users", "without the chain")
	verify.That(t, stop() != 0, "no requests")
}
