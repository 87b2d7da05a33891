package routes

import (
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/config"
	"sluice/config/units"
	"sluice/discovery/locality"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// built returns the routes of a configuration whose service web has a chain: requests for /admin go
// to web@admin, the others to web@v1 and web.
func built(t *testing.T, text string) *Routes {
	t.Helper()
	c := configtest.Must(t, text)
	long, attempts, short := 5*time.Minute, 4, 3*time.Second
	branches := []config.Branch{
		{Route: config.Route{Path: "/admin", Service: "web@admin", Actions: config.Actions{
			Timeouts:       &config.RouteTimeouts{ResponseHeader: &long, Idle: &short},
			Retry:          &config.RouteRetry{Attempts: &attempts},
			RequestHeaders: &config.HeaderEdits{Set: map[string]config.Secret{"X-Admin": units.NewSecret("1")}},
		}}, PrefixRewrite: "/", Origin: "service-router web, route 1"},
		{Route: config.Route{Path: "/", Parts: []config.Part{
			{Route: config.Route{Service: "web@v1", Actions: config.Actions{RequestHeaders: &config.HeaderEdits{Set: map[string]config.Secret{"X-V1": units.NewSecret("1")}}}}, Share: .1},
			{Route: config.Route{Service: "web"}, Share: .9},
		}}, Splitter: "web", Origin: "service-router web, route 2"},
	}
	for i := range branches {
		verify.NoError(t, branches[i].Check())
	}
	web := c.Services["web"]
	derived := web
	web.Chain = branches
	c.Services["web"] = web
	c, conflicts := config.Merge(c, config.Addition{Services: map[string]config.Service{"web@v1": derived, "web@admin": derived}})
	verify.Require(t, len(conflicts) == 0, "conflicts %v", conflicts)
	return verify.Result(build(t, c)).Must(t)
}

func build(t *testing.T, c *config.Config) (*Routes, error) {
	t.Helper()
	return buildAfter(t, c, nil)
}

// buildAfter is build of a configuration that comes after another one.
func buildAfter(t *testing.T, c *config.Config, before *Routes) (*Routes, error) {
	t.Helper()
	services := make(map[string]*route.Service)
	for name, s := range c.Services {
		pool := balancer.NewPool(name, balancertest.Complete(balancer.Options{Groups: []balancer.GroupSelector{{Name: "canary"}}}))
		t.Cleanup(pool.Close)
		services[name] = Service(name, pool, s)
	}
	r, err := Build(c, services, locality.New(), nil, nil, before)
	t.Cleanup(func() { r.Close(nil, 0) })
	return r, err
}

const chainedServices = `services:
  web: { peers: ["127.0.0.1:1"], groups: { canary: { tags: [x] } } }
  other: { peers: ["127.0.0.1:2"] }
`

// find returns the route for a path.
func find(t *testing.T, r *Routes, path string) *route.Route {
	t.Helper()
	found := r.Table.Match([]byte("a"), []byte(path), nil)
	verify.Require(t, found != nil, "no route for %s", path)
	return found
}

func TestRoutesToAServiceWithAChain(t *testing.T) {
	r := built(t, chainedServices+`routes:
  - { path: /plain, service: web }
  - { path: /plain2, service: web }
  - { path: /own, service: web, strip_prefix: /own, rate_limit: { rate: 1 }, allow: [10.0.0.0/8], timeouts: { idle: 7s }, mirror: { service: other, share: 10% } }
  - { path: /edits, service: web, strip_prefix: /edits }
  - { path: /group, service: web, group: canary }
  - { path: /split, service: web, split: { canary: 5% } }
  - { path: /other, service: other }
  - { path: /shared, services: { web: 50%, other: 50% } }
`)
	plain, own := find(t, r, "/plain"), find(t, r, "/own")
	verify.That(t, plain.Router != nil && plain.Router == find(t, r, "/plain2").Router, "routes without settings of their own have routers of their own")
	edits := find(t, r, "/edits")
	verify.That(t, edits.Actions != nil && edits.Router.Ways[1].Weighted.Targets[1].Route.Actions == edits.Actions, "a route with actions has the router of the others")
	for _, path := range []string{"/group", "/split", "/other"} {
		verify.That(t, find(t, r, path).Router == nil, "%s has a chain", path)
	}
	for _, target := range find(t, r, "/shared").Weighted.Targets {
		verify.Equal(t, target.Route.Router != nil, target.Route.Service.Name == "web", "the chain of %s", target.Route.Service.Name)
	}
	verify.That(t, own.Router != plain.Router && own.Router.Chain == plain.Router.Chain, "the chain is compiled twice")

	admin, shared := own.Router.Ways[0], own.Router.Ways[1].Weighted
	verify.That(t, admin.Service.Name == "web@admin" && admin.Service.Pool.Name == "web@admin", "service %s", admin.Service.Name)
	verify.That(t, admin.Service.Timeouts.ResponseHeader == 5*time.Minute && admin.Service.Timeouts.Idle == 7*time.Second && admin.Service.Retry.Attempts == 4,
		"timeouts and retries %+v, %+v", admin.Service.Timeouts, admin.Service.Retry)
	verify.That(t, plain.Router.Ways[0].Service.Timeouts.Idle == 3*time.Second, "idle %s", plain.Router.Ways[0].Service.Timeouts.Idle)
	verify.That(t, shared.Key == route.SplitKey{} && shared.Seed == "splitter web" && !shared.ByPeers, "splitter %+v", shared)
	v1, self := shared.Targets[0].Route, shared.Targets[1].Route
	verify.DeepEqual(t, admin.Actions.RequestHeaders.Dropped, []string{"x-admin"}, "edits of the branch")
	verify.DeepEqual(t, v1.Actions.RequestHeaders.Dropped, []string{"x-v1"}, "edits of the part")
	for _, way := range []*route.Route{&admin, v1, self} {
		verify.That(t, way.Actions.RateLimit == own.Actions.RateLimit && way.Actions.Access == own.Actions.Access && way.Actions.Restricts(), "%s: %+v", way.Service.Name, way.Actions)
		verify.That(t, way.Mirror.Copies == own.Mirror.Copies && way.Mirror.Service.Name == "other", "%s: the mirror counts for itself", way.Service.Name)
		verify.That(t, way.Router == nil && way.Service.Timeouts.Idle == 7*time.Second, "%s: %+v", way.Service.Name, way)
	}
	verify.That(t, plain.Router.Ways[1].Weighted.Targets[1].Route.Actions == nil, "a route without actions has some")
	b := own.Router.Chain.Branches()[0]
	verify.That(t, b.Route.Origin == "service-router web, route 1" && !b.Rewrite.Empty(), "branch %+v", b)
}

func TestChainToAServiceThatIsMissing(t *testing.T) {
	c := configtest.Must(t, chainedServices+"routes: [{ service: web }]")
	web := c.Services["web"]
	web.Chain = []config.Branch{{Route: config.Route{Path: "/", Service: "web@v1"}, Origin: "service-router web, route 1"}}
	c.Services["web"] = web
	_, err := build(t, c)
	verify.That(t, err != nil && strings.Contains(err.Error(), `discovery chain of service "web": service-router web, route 1: there is no service "web@v1"`), "error %v", err)
}
