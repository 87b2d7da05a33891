package config

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"sluice/config/units"
	"sluice/route"
	"sluice/test/verify"
)

func TestBranchesOfChains(t *testing.T) {
	edits := func(name string) Actions {
		return Actions{RequestHeaders: &HeaderEdits{Set: map[string]Secret{name: units.NewSecret("1")}}}
	}
	part := func(share float64, a Actions) Part {
		return Part{Route: Route{Service: "a", Actions: a}, Share: share}
	}
	for _, test := range []struct {
		b    Branch
		want string // what the error contains; empty: none
	}{
		{Branch{Route: Route{Path: "/", Service: "a"}}, ""},
		{Branch{Route: Route{Path: "/x", Match: "string_prefix", Service: "a", Actions: edits("x-a")}, PrefixRewrite: "/", IgnoreCase: true}, ""},
		{Branch{Route: Route{Path: "/", Parts: []Part{part(.1, edits("x-b")), part(.9, Actions{})}}}, ""},
		{Branch{Route: Route{Path: "x", Service: "a"}}, `path: value "x": must start with a slash`},
		{Branch{Route: Route{Path: "(", Match: "regexp", Service: "a"}}, "not a regular expression"},
		{Branch{Route: Route{Path: "a", Match: "regexp", Service: "a"}, PrefixRewrite: "/"}, "prefix_rewrite: "},
		{Branch{Route: Route{Path: "a", Match: "regexp", Service: "a"}, IgnoreCase: true}, "(?i)"},
		{Branch{Route: Route{Path: "/x", Service: "a"}, PrefixRewrite: "y"}, `prefix_rewrite: value "y"`},
		{Branch{Route: Route{Path: "/", Service: "a", Actions: edits("host")}}, "request_headers.set.host"},
		{Branch{Route: Route{Path: "/", Parts: []Part{part(.5, Actions{}), part(.5, edits("via"))}}}, "parts[1].request_headers.set.via"},
		{Branch{Route: Route{Path: "/", Parts: []Part{part(.5, Actions{})}}}, "add up to 50%"},
		{Branch{Route: Route{Path: "/", Service: "a", When: &Conditions{More: &route.Conditions{Headers: []route.Value{{Name: "x", Kind: route.ValueMatches, Text: "["}}}}}}, "when.header.x"},
	} {
		err := test.b.Check()
		verify.That(t, (err == nil) == (test.want == "") && (err == nil || strings.Contains(err.Error(), test.want)), "%+v: %v, want %q", test.b, err, test.want)
	}
}

func TestChainsOfRoutedServices(t *testing.T) {
	c := mustParse(t, `services: { a: { peers: ["127.0.0.1:1"] }, b: { peers: ["127.0.0.1:2"] }, c: { peers: ["127.0.0.1:2"] } }
routes: [{ service: a }]`)
	a, c3 := c.Services["a"], c.Services["c"]
	a.Chain = []Branch{
		{Route: Route{Path: "/x", Service: "a@v1"}},
		{Route: Route{Path: "/", Parts: []Part{{Route: Route{Service: "b"}}, {Route: Route{Service: "a@v2"}}}}},
	}
	c3.Chain = []Branch{{Route: Route{Path: "/", Service: "c@v1"}}} // no route leads to it
	c.Services["a"], c.Services["c"] = a, c3
	verify.DeepEqual(t, slices.Sorted(maps.Keys(c.RoutedServices())), []string{"a", "a@v1", "a@v2", "b"}, "services")
	other := *c
	other.Services = maps.Clone(c.Services)
	a.Chain = a.Chain[:1]
	other.Services["a"] = a
	verify.That(t, !Identical(&other, c), "another chain makes the same configuration")
}
