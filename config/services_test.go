package config

import (
	"strings"
	"testing"

	"sluice/route"
	"sluice/test/verify"
)

// withServices is two services and a route with these keys, in flow style.
func withServices(route string) string {
	return "services: { a: { peers: [127.0.0.1:1] }, b: { peers: [127.0.0.1:2] } }\nroutes: [{ " + route + " }]"
}

func TestServicesOfARoute(t *testing.T) {
	c := mustParse(t, withServices("services: { b: 80%, a: 0.2, key: header X-User }, strip_prefix: /x, mirror: { service: b }"))
	r := c.Routes[0]
	verify.Equal(t, r.Services.Key(), route.SplitKey{Source: route.SplitHeader, Header: "x-user"}, "key")
	verify.DeepEqual(t, RoutedServices(c.Routes), map[string]bool{"": true, "a": true, "b": true}, "services")
	for i, want := range []Share{{"a", .2}, {"b", .8}} {
		part := r.Divided()[i]
		verify.That(t, part.Share == want.Size && part.Route.Service == want.Group && part.Route.StripPrefix == "/x" && len(part.Route.Divided()) == 0, "part %d is %+v, want %v", i, part, want)
	}
	c = mustParse(t, withServices("services: { a: 100%, b: 0% }"))
	verify.Equal(t, c.Routes[0].Services.Key(), route.SplitKey{}, "key")
	verify.Contains(t, string(verify.Result(c.MarshalJSON()).Must(t)), `"services":{"a":"100%","b":"0%"}`, "as JSON")
}

func TestWrongServicesOfARoute(t *testing.T) {
	for _, test := range []struct{ route, want string }{
		{"services: { a: 20%, b: 70% }", "routes[0].services: the shares add up to 90%, want 100%"},
		{"services: { a: 60%, b: 70% }", "routes[0].services: the shares add up to 130%, want 100%"},
		{"services: { key: cookie }", "routes[0].services: the shares add up to 0%, want 100%"},
		{"services: { a: 1, c: 0 }", `routes[0].services.c: value "c": no such service, did you mean "a"? (known: a, b)`},
		{"services: { a: 5, b: 1 }", `routes[0].services.a: value "5": want a number from 0 to 1, or a percentage`},
		{"services: { a: 100%, key: path }", `routes[0].services.key: value "path": want cookie`},
		{"services: { a: 100%, fallback: b }", `routes[0].services.fallback: value "b": not here: a service without usable peers`},
		{"services: { a: 100% }, service: b", `routes[0].service: value "b": not with services`},
		{"services: { a: 100% }, group: g", `routes[0].group: value "g": not with services`},
		{"services: { a: 100% }, split: { g: 5% }", `routes[0].split: not with services`},
		{"services: { a: 100% }, mirror: { group: g }", `routes[0].mirror.group: value "g": only with mirror.service`},
		{"services: { 'a b': 100% }", `the name of a service with its share`},
		{"services: {}", `routes[0].service: required`},
	} {
		refuses(t, withServices(test.route), test.want)
	}
}

// A route whose services are not all there is left out of a merged configuration.
func TestMergeOfSeveralServices(t *testing.T) {
	c := mustParse(t, withServices("services: { a: 20%, b: 80% }"))
	merged, conflicts := Merge(c)
	verify.That(t, len(merged.Routes) == 1 && len(conflicts) == 0, "%d routes, %v", len(merged.Routes), conflicts)
	delete(c.Services, "b")
	merged, conflicts = Merge(c)
	want := `routes[0]: ignored: there is no service "b"`
	verify.That(t, len(merged.Routes) == 0 && len(conflicts) == 1 && strings.Contains(conflicts[0].Error(), want), "%d routes, %v, want %s", len(merged.Routes), conflicts, want)
}

func TestLeader(t *testing.T) {
	service := func(leader string) string {
		return "listeners: [{ address: ':1', protocol: tcp, service: db }]\nservices:\n  db:\n    consul:\n      leader: " + leader + "\n"
	}
	for text, cuts := range map[string]bool{"{ tag: primary }": true, "{ key: service/db/leader, on_demotion: drain }": false, "{ passing: true, on_demotion: cut }": true} {
		db := mustParse(t, service(text)).Services["db"]
		verify.That(t, db.Leader() != nil && db.Leader().CutsDemoted() == cuts, "%s: %+v", text, db.Leader())
	}
	const want = "want one of tag, passing: true and key, which says how Consul names the leader"
	for text, wrong := range map[string]string{
		"{}":                            "sluice.yaml:5: services.db.consul.leader: " + want,
		"{ on_demotion: cut }":          "sluice.yaml:5: services.db.consul.leader: " + want,
		"{ tag: a, key: b }":            "sluice.yaml:5: services.db.consul.leader: " + want,
		"{ tag: a, on_demotion: drop }": `sluice.yaml:5: services.db.consul.leader.on_demotion: value "drop": want one of cut, drain`,
	} {
		_, err := Parse("sluice.yaml", []byte(service(text)))
		diffLines(t, err, []string{wrong})
	}
	db := mustParse(t, "services: { db: { peers: ['127.0.0.1:1'] } }\nroutes: [{ service: db }]").Services["db"]
	verify.That(t, db.Leader() == nil && !db.Leader().CutsDemoted(), "without a leader: %+v", db.Leader())
}
