package claim

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"sluice/config"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// sharedLines returns the parts of the routes as "HOST/PATH: SERVICE TAGS-OF-THE-GROUP weight …".
func sharedLines(r Result) (list []string) {
	for _, route := range r.Routes {
		line := route.Host + route.Path + ":"
		for _, part := range route.Divided() {
			line += " " + part.Route.Service
			if group := part.Route.Group; group != "" {
				line += fmt.Sprint(r.Groups[part.Route.Service][group].Tags)
			}
			if part.Route.StripPrefix != "" {
				line += " strip=" + part.Route.StripPrefix
			}
			line += fmt.Sprintf(" %v,", part.Share)
		}
		list = append(list, line+route.Service)
	}
	slices.Sort(list)
	return list
}

// Which services share a route, and with what weights.
func TestShare(t *testing.T) {
	share := allRules()
	share.Share = true
	claims := share
	claims.Claims = []config.Claim{{Service: "[ab]", Hosts: []string{"h"}}}
	divided := share
	divided.HasGroups = map[string]bool{"a": true}
	a, b := service("a", instance("a", "a1", 1, "urlprefix-h/")), service("b", instance("b", "b1", 1, "urlprefix-h/"))
	own, router := service("c", instance("c", "c1", 1, "sluice.route=h")), service("c", instance("c", "c1", 1, "traefik.enable=true", "traefik.http.routers.r.rule=Host(`h`)"))
	for _, test := range []struct {
		name     string
		rules    Rules
		holders  map[string]string
		services []Service
		routes   []string
		lost     []string // services with a problem
		after    string   // holders of the route
	}{
		{name: "not allowed", rules: allRules(), services: []Service{a, b}, routes: []string{"h/:a"}, lost: []string{"b"}, after: "a"},
		{name: "two services", rules: share, services: []Service{a, b}, routes: []string{"h/: a 0, b 0,"}, after: "a b"},
		{name: "one service", rules: share, services: []Service{a}, routes: []string{"h/:a"}, after: "a"},
		{name: "a weight alone", rules: share, services: []Service{service("a", instance("a", "a1", 1, "urlprefix-h/ weight=0.1"))}, routes: []string{"h/:a"}, after: "a"},
		{name: "a weight, and other options", rules: share,
			services: []Service{a, service("b", instance("b", "b1", 1, "urlprefix-h/ weight=0.2 strip=/x"), instance("b", "b2", 1, "urlprefix-h/ weight=0.2 strip=/x"))},
			routes:   []string{"h/: a 0, b strip=/x 0.2,"}, after: "a b"},
		{name: "weights of one service", rules: share,
			services: []Service{service("a", instance("a", "a1", 1, "urlprefix-h/"), instance("a", "a2", 1, "urlprefix-h/"), instance("a", "a3", 1, "urlprefix-h/ weight=0.1"))},
			routes:   []string{"h/: a[urlprefix-h/ weight=0.1] 0.1, a[urlprefix-h/] 0,"}, after: "a"},
		{name: "weights of one service, with groups of the file", rules: divided,
			services: []Service{service("a", instance("a", "a1", 1, "urlprefix-h/"), instance("a", "a3", 1, "urlprefix-h/ weight=0.1"))},
			routes:   []string{"h/:a"}, lost: []string{"a"}, after: "a"},
		{name: "instances of one service without the tag", rules: share,
			services: []Service{service("a", instance("a", "a1", 1, "urlprefix-h/"), instance("a", "a2", 1)), b},
			routes:   []string{"h/: a[urlprefix-h/] 0, b 0,"}, after: "a b"},
		{name: "sluice's own tag loses", rules: share, services: []Service{a, b, own}, routes: []string{"h/: a 0, b 0,"}, lost: []string{"c"}, after: "a b"},
		{name: "Traefik's tag is first", rules: share, holders: map[string]string{"h/": "c"}, services: []Service{a, b, router}, routes: []string{"h/:c"}, lost: []string{"a", "b"}, after: "c"},
		{name: "a holder has gone", rules: share, holders: map[string]string{"h/": "a0 b"}, services: []Service{service("a", instance("a", "a1", 1, "sluice.route=h")), b}, routes: []string{"h/:b"}, lost: []string{"a"}, after: "b"},
		{name: "a claim for two of three", rules: claims, services: []Service{a, b, service("c", instance("c", "c1", 1, "urlprefix-h/"))}, routes: []string{"h/: a 0, b 0,"}, lost: []string{"c"}, after: "a b"},
	} {
		r := Resolve(test.services, test.rules, test.holders)
		verify.Slices(t, sharedLines(r), test.routes, "%s: the routes", test.name)
		var lost []string
		for _, p := range r.Problems {
			lost = append(lost, p.Service)
		}
		slices.Sort(lost)
		verify.Slices(t, lost, test.lost, "%s: problems of: %+v", test.name, r.Problems)
		want := map[string]string{"h/": test.after}
		verify.That(t, maps.Equal(r.Holders, want), "%s: the holders are %q, want %q", test.name, r.Holders, want)
		verify.DeepEqual(t, Resolve(test.services, test.rules, r.Holders), r, "%s: resolved again", test.name)
	}
}

// A shared route says which tags of which services it is of.
func TestClaimsOfASharedRoute(t *testing.T) {
	rules := allRules()
	rules.Share = true
	r := Resolve([]Service{
		service("b", instance("b", "b1", 1, "urlprefix-h/ weight=0.2")), service("a", instance("a", "a1", 1, "urlprefix-h/ strip=/x")),
		service("c", instance("c", "c1", 1, "sluice.route=h")),
	}, rules, nil)
	got := r.Routes[0]
	claims := []Claim{
		{Ask{"a", []Named{{"a1", "n"}}, "fabio", "urlprefix-h/ strip=/x"}, []string{"urlprefix-h/ strip=/x"}},
		{Ask{"b", []Named{{"b1", "n"}}, "fabio", "urlprefix-h/ weight=0.2"}, []string{"urlprefix-h/ weight=0.2"}},
	}
	verify.DeepEqual(t, got.Claims(), claims, "claims")
	verify.That(t, len(got.Over) == 1 && got.Over[0].Service == "c", "the route is over %+v", got.Over)
	verify.That(t, got.StripPrefix == "" && got.Parts[0].Route.StripPrefix == "/x" && got.Parts[1].Route.Origin == "tag urlprefix-h/ weight=0.2 of b1", "the route %+v", got.Route)
}

// As it is by default, without claims: who may register a service takes nothing of a route that
// another one has, by whatever weight, and it is shown. Claims that allow both say that they share.
func TestWithoutClaimsTheHolderKeepsItsRouteOfFabio(t *testing.T) {
	c := configtest.Must(t, "catalog: { tags: [fabio] }")
	holder := service("shop", instance("shop", "v", 1, "urlprefix-shop.example.com/"))
	for _, tag := range []string{"urlprefix-shop.example.com/", "urlprefix-shop.example.com/ weight=1", "urlprefix-SHOP.example.com./ weight=0.5"} {
		other := service("aaa", instance("aaa", "e", 1, tag))
		for _, claimed := range []bool{false, true} {
			if c.Catalog.Claims = nil; claimed {
				c.Catalog.Claims = []config.Claim{{Service: "*", Hosts: []string{"*"}}}
			}
			rules := NewRules(c)
			rules.Upstream = nil
			before := Resolve([]Service{holder}, rules, nil)
			r := Resolve([]Service{holder, other}, rules, before.Holders)
			verify.Require(t, len(r.Routes) == 1, "%s: %d routes", tag, len(r.Routes))
			shares := len(r.Routes[0].Parts) > 0
			verify.Equal(t, shares, claimed, "%s, claimed %t: shared", tag, claimed)
			if !claimed {
				verify.Equal(t, r.Routes[0].Service, "shop", "%s: the service of the route", tag)
				p := r.Problems
				verify.That(t, len(p) == 1 && p[0].Service == "aaa" && p[0].Kind == KindConflict && p[0].Winner.Service == "shop", "%s: the problem is not shown: %+v", tag, p)
			}
		}
	}
}

// Of two routers of Traefik with the same rule, the one with the higher priority has it, also if it
// comes later, where claims allow the rule to both services. Without claims a priority takes
// nothing from the service that has it.
func TestPriorityOfTraefikBetweenServices(t *testing.T) {
	asking := func(name, priority string) Service {
		asked := []string{"traefik.enable=true", "traefik.http.routers." + name + ".rule=Host(`h`)"}
		if priority != "" {
			asked = append(asked, "traefik.http.routers."+name+".priority="+priority)
		}
		return service(name, instance(name, name+"1", 1, asked...))
	}
	shop, maintenance := asking("shop", "10"), asking("maintenance", "1000")
	claims := allRules()
	claims.Claims = []config.Claim{{Service: "*", Hosts: []string{"*"}}}
	open := allRules()
	open.Claims = nil
	for _, test := range []struct {
		name   string
		rules  Rules
		other  Service
		winner string
	}{
		{"a higher one", claims, maintenance, "maintenance"},
		{"a lower one", claims, asking("maintenance", "9"), "shop"},
		{"the same", claims, asking("maintenance", "10"), "shop"},
		{"a longer rule", claims, service("maintenance", instance("maintenance", "m1", 1, "traefik.enable=true",
			"traefik.http.routers.maintenance.rule=Host(`h`) && PathPrefix(`/`)")), "shop"},
		{"without claims", open, maintenance, "shop"},
		{"of another dialect", claims, service("maintenance", instance("maintenance", "m1", 1, "sluice.route=h priority=1000")), "shop"},
	} {
		before := Resolve([]Service{shop}, test.rules, nil)
		r := Resolve([]Service{shop, test.other}, test.rules, before.Holders)
		verify.That(t, len(r.Routes) == 1 && r.Routes[0].Service == test.winner, "%s: %+v", test.name, r.Routes)
		verify.That(t, len(r.Problems) > 0 && r.Problems[len(r.Problems)-1].Winner.Service == test.winner, "%s: the other one has no problem: %+v", test.name, r.Problems)
		again := Resolve([]Service{shop}, test.rules, r.Holders)
		verify.Equal(t, again.Routes[0].Service, "shop", "%s: when the other one has gone", test.name)
	}
}
