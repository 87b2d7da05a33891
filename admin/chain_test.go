package admin

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"sluice/config"
	"sluice/proxy"
	"sluice/route"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// A route shows the discovery chain of its service, and a request the branch that it takes, by the
// path and the fields that the route sends.
func TestRouteShowsTheChain(t *testing.T) {
	own := &route.Actions{
		Path:           verify.Result(route.NewPathEdits(route.PathOptions{Strip: "/shop"})).Must(t),
		RequestHeaders: verify.Result(route.NewHeaderEdits(map[string]string{"X-Env": "$method"}, nil, []string{"X-Internal"})).Must(t),
	}
	header := func(name, value string) route.Conditions {
		return route.Conditions{Headers: []route.Value{{Name: name, Text: value}}}
	}
	chain := verify.Result(route.NewChain([]route.Branch{
		{Route: route.Route{Path: "/", Conditions: header("x-internal", "1"), Origin: "service-router web, route 1"}},
		{Route: route.Route{Path: "/admin", Conditions: header("x-env", "GET"), Origin: "service-router web, route 2"}, IgnoreCase: true,
			Rewrite: verify.Result(route.NewPathEdits(route.PathOptions{Strip: "/admin", Replacement: "/", IgnoreCase: true})).Must(t)},
		{Route: route.Route{Path: "/x", Origin: "service-router web, route 3"}},
	})).Must(t)
	service := func(name string) *route.Service {
		return &route.Service{Name: name, Pool: newPool(t, name, instance(name, "a", "10.0.0.1"))}
	}
	w := &route.Weighted{Key: route.SplitKey{Source: route.SplitHeader, Header: "x-user"}, Seed: "splitter web", Targets: []route.Target{
		{Route: &route.Route{Service: service("web@v1"), Origin: "service-splitter web, split 1"}, Share: .1}, {Route: &route.Route{Service: service("web")}, Share: .9},
	}}
	router := &route.Router{Chain: chain, Ways: []route.Route{{Service: service("web@internal")}, {Service: service("web@admin")}, {Weighted: w}}}
	table := verify.Result(route.NewTable([]route.Route{
		{Path: "/shop", Service: service("web"), Actions: own, Origin: "sluice.yaml:1", Router: router},
		{Path: "/a", Service: service("web"), Origin: "sluice.yaml:2", Router: router},
		{Path: "/", Weighted: &route.Weighted{Key: w.Key, Targets: []route.Target{
			{Route: &route.Route{Service: service("web"), Router: router}, Share: .5}, {Route: &route.Route{Service: service("plain")}, Share: .5},
		}}, Origin: "sluice.yaml:3"},
	})).Must(t)
	effective := configtest.Must(t, `services: { web: { peers: ["127.0.0.1:1"] } }
routes: [{ path: /shop, service: web }]`)
	branches := make([]config.Branch, 3)
	branches[1].Route.RequestHeaders = &config.HeaderEdits{Remove: []string{"X-A"}}
	web := effective.Services["web"]
	web.Chain = branches
	effective.Services["web"] = web
	h := handlerOf(Options{Routes: explaining(t, table, effective, proxy.Switches{}, "web")})
	for query, want := range map[string]struct{ origin, service, refused string }{
		"url=http://a/shop":                                 {"", "web", ""},
		"url=http://a/shop&header=X-Internal:+1":            {"", "web", ""},
		"url=http://a/shop/Admin/x":                         {"service-router web, route 2", "web@admin", ""},
		"url=http://a/shop/admin&method=POST":               {"", "web", ""},
		"url=http://a/shop/x":                               {"service-router web, route 3", "web@v1 0.1, web 0.9", ""},
		"url=http://a/shop/x&header=X-User:+7":              {"service-router web, route 3", w.Choose([]byte("7")).Route.Service.Name, ""},
		"url=" + url.QueryEscape("http://a/shop/../shop/x"): {"", "web", "unsafe_path"},
		"url=" + url.QueryEscape("http://a/sh%6Fp/x"):       {"", "web", "unsafe_path"},
		// Nobody edits it.
		"url=" + url.QueryEscape("http://a/a/../x/y"):       {"service-router web, route 3", "web@v1 0.05, web 0.45, plain 0.5", ""},
		"url=" + url.QueryEscape("http://a/shop/%61dmin/x"): {"", "web", "unsafe_path"},
	} {
		answer := getJSON[RouteAnswer](t, h, "/api/route?"+query)
		got := want
		got.origin, got.service, got.refused = "", "", ""
		var services []string
		for _, e := range answer.Ends {
			if services = append(services, e.Service); len(answer.Ends) > 1 {
				services[len(services)-1] += fmt.Sprint(" ", e.Share)
			}
			if e.Branch != nil {
				got.origin = e.Branch.Origin
			}
			if e.Answer != nil {
				got.refused = e.Answer.Reason
			}
		}
		got.service = strings.Join(services, ", ")
		verify.Equal(t, got, want, "%s", query)
	}
	routes := getJSON[[]Route](t, h, "/api/routes")
	all := routes[0].Chain
	verify.Require(t, len(all) == 3, "chain %+v", all)
	b := all[1]
	verify.That(t, b.Path == "/admin" && b.IgnoreCase && b.PrefixRewrite == "/" && b.Service == "web@admin" && len(b.Conditions) == 1 && b.Conditions[0] == `header x-env is "GET"`, "branch %+v", b)
	verify.Contains(t, string(b.Actions), `"X-A"`, "actions")
	verify.That(t, all[2].Service == "" && len(all[2].Weighted.Targets) == 2 && all[2].Weighted.Targets[0].Origin == "service-splitter web, split 1", "splitter %+v", all[2].Weighted)
	verify.That(t, routes[1].Chain == nil && routes[1].ChainOf == "web", "another route to the service: %+v", routes[1].RouteChain)
	targets := routes[2].Weighted.Targets
	verify.That(t, targets[0].Chain == nil && targets[0].ChainOf == "web" && targets[1].ChainOf == "", "the targets of a third route: %+v", targets)
}
