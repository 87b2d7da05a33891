package config

import (
	"fmt"
	"strings"
	"testing"

	"sluice/test/verify"
)

const mirrorServices = "services: { star: { peers: [\"127.0.0.1:1\"], " + twoGroups + " }, next: { peers: [\"127.0.0.1:2\"] } }\n"

func TestMirrors(t *testing.T) {
	c := mustParse(t, mirrorServices+"routes: [{ service: star, mirror: { service: next } }, { path: /a, service: next, mirror: { service: star, group: rest, share: 5%, body: 1MiB, in_flight: 7 } }, { path: /b, service: star, mirror: { group: canary, share: 0 } }]")
	for i, want := range []Mirror{
		{Service: "next", Share: 1, Body: 64 << 10, InFlight: 100},
		{Service: "star", Group: "rest", Share: .05, Body: 1 << 20, InFlight: 7},
		{Group: "canary", Share: 0, Body: 64 << 10, InFlight: 100},
	} {
		verify.DeepEqual(t, *c.Routes[i].Mirror, want, "mirror %d", i)
	}
}

func TestWrongMirrors(t *testing.T) {
	for _, test := range []struct{ route, want string }{
		{"service: star, mirror: {}", "routes[0].mirror: want the service or the group that gets the copies"},
		{"service: star, mirror: { share: 5% }", "routes[0].mirror: want the service or the group"},
		{"service: star, mirror: { service: nxt }", `routes[0].mirror.service: value "nxt": no such service, did you mean "next"?`},
		{"service: star, mirror: { service: next, group: canary }", `routes[0].mirror.group: value "canary": the service has no groups`},
		{"service: star, mirror: { group: gamma }", `routes[0].mirror.group: value "gamma": no such group (known: beta, canary, rest)`},
		{"service: star, mirror: { service: next, share: 101% }", `routes[0].mirror.share: value "101%": want a number from 0 to 1, or a percentage`},
		{"service: star, mirror: { service: next, body: 1GiB }", `routes[0].mirror.body: value "1GiB": want`},
		{"service: star, mirror: { service: next, in_flight: 0 }", `routes[0].mirror.in_flight: value "0": want a whole number from 1`},
		{"redirect: { to: 'https://$host/' }, mirror: { service: next }", "routes[0].mirror: only with a service"},
		{"service: mars, mirror: { group: a }", `routes[0].service: value "mars": no such service`},
	} {
		err := refuses(t, mirrorServices+"routes: [{ "+test.route+" }]", test.want)
		verify.That(t, !strings.Contains(fmt.Sprint(err), "\n"), "%s: several errors: %v", test.route, err)
	}
}

// A mirror whose service or group is not there does not take the route with it.
func TestMergeOmitsMirrors(t *testing.T) {
	c := mustParse(t, mirrorServices+"routes: [{ service: star }]")
	merged, conflicts := Merge(c, Addition{Origin: "one", Routes: []Route{
		{Path: "/a", Service: "star", Mirror: &Mirror{Service: "mars"}},
		{Path: "/b", Service: "star", Mirror: &Mirror{Group: "gamma"}},
		{Path: "/c", Service: "star", Mirror: &Mirror{Group: "rest"}},
	}})
	verify.That(t, len(merged.Routes) == 4 && merged.Routes[1].Mirror == nil && merged.Routes[2].Mirror == nil && merged.Routes[3].Mirror != nil, "routes %+v", merged.Routes)
	diffLines(t, conflicts, []string{
		`one: routes[0].mirror: ignored: there is no service "mars"`,
		`one: routes[1].mirror: ignored: the service "star" has no group "gamma"`,
	})
}

// With a catalog, a service that only a mirror names is one of Consul's, and a route that only
// redirects needs none.
func TestCatalogHasServicesOfMirrors(t *testing.T) {
	c := mustParse(t, "catalog: {}\nservices: { star: { peers: [\"127.0.0.1:1\"] } }\nroutes: [{ service: star, mirror: { service: next } }, { path: /old, redirect: { to: 'https://$host/new' } }]")
	f, _ := c.Found(nil, "")
	_, ok := f.Services["next"]
	verify.That(t, ok && len(f.Services) == 1, "services %v", f.Services)
}
