package config

import (
	"reflect"
	"strings"
	"testing"
)

func TestTheFirstFragmentHasPrecedence(t *testing.T) {
	c := mustParse(t, "services: { star: { peers: [\"127.0.0.1:80\"] } }\nroutes: [{ host: a.example, service: star }]")
	before := mustParse(t, "services: { star: { peers: [\"127.0.0.1:80\"] } }\nroutes: [{ host: a.example, service: star }]")
	sun, moon := c.Services["star"], c.Services["star"]
	sun.Peers, moon.Peers = []string{"127.0.0.1:81"}, []string{"127.0.0.1:82"}
	merged, conflicts := Merge(c,
		Fragment{Origin: "one", Services: map[string]Service{"star": sun, "sun": sun}, Routes: []Route{
			{Host: "A.example", Path: "/", Service: "sun"}, {Host: "b.example", Path: "/", Service: "moon"},
		}},
		Fragment{Origin: "two", Services: map[string]Service{"moon": moon, "sun": moon}, Routes: []Route{
			{Host: "b.example", Path: "/", Service: "star"}, {Path: "/", Service: "mars"}, {Path: "x", Service: "sun"}, {Path: "/g", Service: "sun", Group: "canary"},
		}})
	if want := map[string]Service{"star": c.Services["star"], "sun": sun, "moon": moon}; !reflect.DeepEqual(merged.Services, want) {
		t.Errorf("services %v", merged.Services)
	}
	if want := append(c.Routes, Route{Host: "b.example", Path: "/", Service: "moon", Origin: "one"}); !reflect.DeepEqual(merged.Routes, want) {
		t.Errorf("routes %v", merged.Routes)
	}
	for i, want := range []string{
		"one: services.star: ignored: the file has",
		"two: services.sun: ignored: one has",
		"one: routes[0]: ignored: the file has",
		"two: routes[0]: ignored: one has",
		`two: routes[1]: ignored: there is no service "mars"`,
		"two: routes[2]: ",
		`two: routes[3]: ignored: the service "sun" has no group "canary"`,
	} {
		if i >= len(conflicts) || !strings.HasPrefix(conflicts[i].Error(), want) {
			t.Fatalf("conflicts %v: want at %d %q", conflicts, i, want)
		}
	}
	if !reflect.DeepEqual(c, before) {
		t.Error("Merge changed its argument")
	}
}

func TestMergeComparesWhatRoutesMatch(t *testing.T) {
	c := mustParse(t, "services: { star: { peers: [\"127.0.0.1:80\"] } }\nlisteners: [{ name: web, address: ':80' }]\nroutes: [{ path: /a, service: star }]")
	star := func(r Route) Route {
		r.Path, r.Service = "/a", "star"
		return r
	}
	merged, conflicts := Merge(c, Fragment{Origin: "one", Routes: []Route{
		star(Route{Match: "exact"}),
		star(Route{Methods: []string{"GET"}}),
		star(Route{When: &Conditions{Scheme: "https"}}),
		star(Route{Listeners: []string{"web"}}),
		star(Route{HostRegexp: "^a"}),
		star(Route{Priority: 1, Dialect: DialectTraefik, Origin: "star, tag 3"}),
		star(Route{Listeners: []string{"web", "internal"}}),
		star(Route{When: new(Conditions)}),
	}})
	if len(merged.Routes) != 6 {
		t.Errorf("routes %+v", merged.Routes)
	}
	want := []string{
		"one: routes[5]: ignored: the file has a route for the same requests",
		`one: routes[6].listeners: ignored: listener "internal": no such listener (known: web)`,
		"one: routes[7]: ignored: the file has a route for the same requests",
	}
	diffLines(t, conflicts, want)
}
