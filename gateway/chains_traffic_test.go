package gateway

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/meshtest"
	"sluice/test/verify"
)

// startVersions runs the services web, with an instance of each of two versions, and api, in a mesh
// with ACLs, and sluice before web, with the token of docs/mesh.md.
func startVersions(t *testing.T) (*meshtest.Mesh, *running) {
	t.Helper()
	m := meshtest.Start(t, consultest.Options{ACLs: true})
	for _, s := range []meshtest.Service{
		{Name: "web", ID: "web-1", Meta: map[string]string{"version": "1"}}, {Name: "web", ID: "web-2", Meta: map[string]string{"version": "2"}},
		{Name: "api", ID: "api-1"},
	} {
		m.Native(t, s)
	}
	for _, service := range []string{"web", "api"} {
		m.SetProtocol(t, service, "http")
		m.Intend(t, service, meshtest.Allow("sluice"))
	}
	_, token, err := m.NewToken("sluice", verify.Result(consultest.DocumentedPolicy("../docs/mesh.md", "## ACLs")).Must(t))
	verify.NoError(t, err)
	r := start(t, preamble+"consul: { addresses: ["+m.URL()+"], token: "+token.SecretID+" }\nservices: { web: { consul: { connect: true }, timeouts: { connect: 10s } } }\nroutes: [{ service: web }]\n")
	return m, r
}

// asked are the fields of an answer.
type asked struct{ http.Header }

func (a asked) instance() string { return a.Get(meshtest.InstanceHeader) }

// ask sends a GET by a connection of its own.
func (r *running) ask(path string, header ...string) asked {
	r.t.Helper()
	return asked{r.do(r.request(http.MethodGet, r.url("web")+path, nil, header...)).Header}
}

// Every kind of entry moves the requests as soon as Consul has it, and its deletion moves them
// back. No request fails.
func TestEntriesMoveTraffic(t *testing.T) {
	t.Parallel()
	m, r := startVersions(t)
	stop := r.load("web")
	defer stop()
	moves := func(what string, change func(), moved func() bool) {
		t.Helper()
		change()
		r.await(what, moved)
	}
	goesTo := func(path string, want ...string) func() bool {
		return func() bool {
			for range 8 {
				if !slices.Contains(want, r.ask(path).instance()) {
					return false
				}
			}
			return true
		}
	}
	subsets := func(change ...func(*api.ServiceResolverConfigEntry)) func() {
		e := &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web", Subsets: map[string]api.ServiceResolverSubset{
			"v1": {Filter: `Service.Meta.version == "1"`}, "v2": {Filter: `Service.Meta.version == "2"`}, "v9": {Filter: `Service.Meta.version == "9"`},
		}}
		for _, c := range change {
			c(e)
		}
		return func() { m.Write(t, e) }
	}
	moves("a default subset", subsets(func(e *api.ServiceResolverConfigEntry) { e.DefaultSubset = "v2" }), goesTo("/", "web-2"))
	moves("a failover", subsets(func(e *api.ServiceResolverConfigEntry) {
		e.DefaultSubset = "v9"
		e.Failover = map[string]api.ServiceResolverFailover{"*": {Targets: []api.ServiceResolverFailoverTarget{{Service: "api"}}}}
	}), goesTo("/", "api-1"))
	moves("no failover", subsets(), goesTo("/", "web-1", "web-2"))
	split := func(v1, v2 float32) func() {
		return func() {
			m.Write(t, &api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "web", Splits: []api.ServiceSplit{
				{Weight: v1, ServiceSubset: "v1", ResponseHeaders: &api.HTTPHeaderModifiers{Set: map[string]string{"X-Side": "one"}}}, {Weight: v2, ServiceSubset: "v2"},
			}})
		}
	}
	moves("a splitter", split(100, 0), func() bool { return goesTo("/", "web-1")() && r.ask("/").Get("X-Side") == "one" })
	moves("a splitter with other weights", split(0, 100), func() bool { return goesTo("/", "web-2")() && r.ask("/").Get("X-Side") == "" })
	moves("a router", func() {
		m.Write(t, &api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: "web", Routes: []api.ServiceRoute{{
			Match: &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathPrefix: "/api", Header: []api.ServiceRouteHTTPMatchHeader{{Name: "X-Try", Suffix: "yes"}}}},
			Destination: &api.ServiceRouteDestination{Service: "api", PrefixRewrite: "/v1", RequestHeaders: &api.HTTPHeaderModifiers{
				Set: map[string]string{"X-Set": "$1 100%%"}, Remove: []string{"X-Try"},
			}},
		}}})
	}, func() bool { return r.ask("/api/x", "X-Try", "o yes").instance() == "api-1" })
	got := r.ask("/api/x?q=1", "X-Try", "yes")
	verify.That(t, got.instance() == "api-1" && got.Get("Got-Path") == "/v1/x?q=1" && got.Get("Got-X-Set") == "$1 100%" && got.Get("Got-X-Try") == "", "the router: %v", got.Header)
	verify.That(t, r.ask("/api/x").instance() == "web-2", "a request without the field takes the route")

	moves("the deletion of the router", func() { m.Delete(t, api.ServiceRouter, "web") }, func() bool { return r.ask("/api/x", "X-Try", "yes").instance() == "web-2" })
	moves("the deletion of the splitter", func() { m.Delete(t, api.ServiceSplitter, "web") }, func() bool { return r.pooled("web") == "web=[web-1 web-2]" })
	moves("a redirect", func() {
		m.Write(t, &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web", Redirect: &api.ServiceResolverRedirect{Service: "api"}})
	}, goesTo("/", "api-1"))
	moves("the deletion of the resolver", func() { m.Delete(t, api.ServiceResolver, "web") }, func() bool { return goesTo("/", "web-1", "web-2")() })
}

// echo opens a WebSocket to the service web, until the test ends, and returns a function that
// reports whether it still echoes.
func (r *running) echo() (echoes func() bool) {
	r.t.Helper()
	c, _, err := websocket.Dial(r.t.Context(), strings.Replace(r.url("web"), "http", "ws", 1), nil)
	verify.NoError(r.t, err)
	r.t.Cleanup(func() { c.CloseNow() })
	echoes = func() bool {
		ctx, end := context.WithTimeout(r.t.Context(), consultest.Patience)
		defer end()
		if c.Write(ctx, websocket.MessageText, []byte("hello")) != nil {
			return false
		}
		_, _, err := c.Read(ctx)
		return err == nil
	}
	verify.Require(r.t, echoes(), "the WebSocket does not echo")
	return echoes
}

// draining returns the configuration of r with a service whose former peers drain for long.
func (r *running) draining() string {
	text := string(verify.Result(os.ReadFile(r.file)).Must(r.t))
	return strings.Replace(text, "timeouts: { connect: 10s }", "drain: { timeout: 1h }, timeouts: { connect: 10s }", 1)
}

// A service that a chain has dropped has draining peers: their connections end when an intention
// begins to deny the service, also those that an old process finishes after an upgrade. Those to
// the service that stands in for it do not.
func TestConnectionsToADroppedServiceEndWithADenial(t *testing.T) {
	t.Parallel()
	m, r := startVersions(t)
	text := r.draining()
	r.replace(text)
	former := r.echo()
	next := r.upgrade(text, nil)
	dropped := next.echo()
	verify.That(t, former(), "the WebSocket has ended with the upgrade")
	m.Write(t, &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web", Redirect: &api.ServiceResolverRedirect{Service: "api"}})
	next.await("api stands in for web", func() bool { return next.ask("/").instance() == "api-1" })
	m.SetProtocol(t, "other", "http") // what else is written changes nothing
	stays := next.echo()
	verify.That(t, dropped(), "the WebSocket does not echo")

	m.Intend(t, "web", meshtest.Deny("sluice"))
	next.await("the connection to web ends", func() bool { return !dropped() })
	r.await("the connection of the old process ends", func() bool { return !former() })
	verify.That(t, stays(), "the connection to api has ended")
}

// So do those to a service that was the last one in the mesh, after a reload that has moved it out
// of the mesh, and sluice with it.
func TestConnectionsToTheMeshEndWithADenialAfterItIsLeft(t *testing.T) {
	t.Parallel()
	m, r := startVersions(t)
	text := strings.Replace(r.draining(), "consul: { addresses", "consul: { connect: { service: sluice }, register: { service: other }, addresses", 1)
	r.replace(text)
	echoes := r.echo()
	plain := strings.TrimPrefix(origin(t, "plain"), "http://")
	text = strings.Replace(text, "consul: { connect: true }", "peers: ["+plain+"]", 1)
	r.replace(strings.Replace(text, "connect: { service: sluice }, ", "", 1)) // the name of before counts
	r.gets("/", "plain")
	r.replace(text)
	verify.That(t, echoes(), "the WebSocket has ended with the reload")
	m.Intend(t, "web", meshtest.Deny("sluice"))
	r.await("the connection ends", func() bool { return !echoes() })
}
