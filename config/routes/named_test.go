package routes

import (
	"fmt"
	"strings"
	"testing"

	"sluice/config"
	"sluice/discovery/locality"
	"sluice/observe/metrics"
	"sluice/route"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// The counters of a named route go on in the next configuration. There are as many as fit.
func TestNamedRoutes(t *testing.T) {
	var text strings.Builder
	text.WriteString(`services: { a: { peers: ["127.0.0.1:1"] }, b: { peers: ["127.0.0.1:2"] } }
routes:
  - { path: /a, service: a, name: one }
  - { path: /b, service: b, name: one }
  - { path: /c, service: a, name: one }
  - { path: /d, services: { a: 50%, b: 50% }, name: two }
  - { path: /e, service: a }
`)
	for n := range maxNamedRoutes {
		fmt.Fprintf(&text, "  - { path: /n/%d, service: a, name: n%[1]d }\n", n)
	}
	c := configtest.Must(t, text.String())
	r := verify.Result(build(t, c)).Must(t)
	at := func(path string) *metrics.Requests { return find(t, r, path).Requests }
	verify.That(t, at("/a") != nil && at("/a") == at("/c") && at("/b") != nil && at("/a") != at("/b"), "routes share counters otherwise")
	verify.That(t, at("/e") == nil && find(t, r, "/e").Name == "", "a route without a name is counted")
	divided := find(t, r, "/d")
	verify.That(t, divided.Requests == nil, "a divided route has counters of its own")
	for _, target := range divided.Weighted.Targets {
		verify.That(t, target.Route.Name == "two" && target.Route.Requests != nil, "target %+v", target)
	}
	last := fmt.Sprintf("/n/%d", maxNamedRoutes-1)
	verify.That(t, len(r.named) == maxNamedRoutes && at(last) == nil && find(t, r, last).Name != "", "%d are counted", len(r.named))

	services := map[string]*route.Service{"a": find(t, r, "/a").Service, "b": find(t, r, "/b").Service}
	one := at("/a")
	r = verify.Result(Build(c, services, locality.New(), nil, nil, r)).Must(t)
	verify.That(t, at("/a") == one, "the counters begin anew")
}

// The tags of one service name a thousand routes. Those of another one, which come later, are
// counted all the same.
func TestATagsServiceNamesFewRoutes(t *testing.T) {
	c := configtest.Must(t, `services: { greedy: { peers: ["127.0.0.1:1"] }, modest: { peers: ["127.0.0.1:2"] } }
routes: [{ service: modest }]
`)
	for n := range 2 * maxNamedRoutes {
		c.Routes = append(c.Routes, config.Route{Path: fmt.Sprintf("/n/%d", n), Service: "greedy", Name: fmt.Sprintf("n%d", n), Dialect: "native"})
	}
	c.Routes = append(c.Routes, config.Route{Path: "/modest", Service: "modest", Name: "one", Dialect: "native"})
	r := verify.Result(build(t, c)).Must(t)
	verify.Equal(t, len(r.named), maxNamedByTags+1, "names that are counted")
	verify.That(t, find(t, r, "/modest").Requests != nil, "the route of the other service is not counted")
}
