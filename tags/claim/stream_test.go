package claim

import (
	"fmt"
	"slices"
	"testing"

	"sluice/config"
	"sluice/tags"
	"sluice/test/verify"
)

// router returns the tags of a router for TCP.
func router(options ...string) []string {
	tags := []string{"traefik.enable=true"}
	for _, option := range options {
		tags = append(tags, "traefik.tcp.routers.r."+option)
	}
	return tags
}

// stream returns the tags of a router for TLS with a rule, and more of it.
func stream(rule string, more ...string) []string {
	return router(append(more, "rule="+rule, "tls.passthrough=true")...)
}

// plain returns the tags of a router for all connections, and more of it.
func plain(more ...string) []string { return router(append(more, "rule=HostSNI(`*`)")...) }

// TestStreams shows which routes of connections are used. Each listener has its own.
func TestStreams(t *testing.T) {
	key := func(protocol, listener, host string) string {
		return config.Route{Protocol: protocol, Host: host, Path: "/"}.StreamKey(listener)
	}
	change := func(f func(*Rules)) Rules {
		rules := allRules()
		f(&rules)
		return rules
	}
	claims := func(list ...config.Claim) Rules { return change(func(r *Rules) { r.Claims = list }) }
	everything := config.Claim{Service: "*", Hosts: []string{AnyHost}}
	ends := change(func(r *Rules) { r.Claims, r.EndsTLS = []config.Claim{everything}, map[string]bool{"tls": true} })
	one := func(tags []string) []Service { return []Service{service("a", instance("a", "1", 1, tags...))} }
	for _, test := range []struct {
		name     string
		rules    Rules
		holders  map[string]string
		services []Service
		routes   []string
		problems []string // SERVICE KIND: REASON
	}{
		{name: "an exact name is free, at every listener", rules: allRules(), services: one(stream("HostSNI(`H`)")),
			routes: []string{"a tls://h priority=12 at [db]", "a tls://h priority=12 at [tls]"}},
		{name: "a listener", rules: allRules(), services: one(stream("HostSNI(`h`) || HostSNI(`g`)", "entrypoints=tls")),
			routes: []string{"a tls://g priority=28 at [tls]", "a tls://h priority=28 at [tls]"}},
		{name: "no such listener", rules: allRules(), services: one(stream("HostSNI(`h`)", "entrypoints=web")),
			problems: []string{"a refused: no listener with protocol: tcp for tags has the name web: want db or tls"}},
		{name: "one listener of two", rules: allRules(), services: one(stream("HostSNI(`h`)", "entrypoints=web,db")),
			routes:   []string{"a tls://h priority=12 at [db]"},
			problems: []string{"a refused: no listener with protocol: tcp for tags has the name web: want db or tls"}},
		{name: "no listener for tags", rules: Rules{AllListeners: true}, services: one(stream("HostSNI(`h`)")),
			problems: []string{"a refused: the file has no listener with protocol: tcp for tags"}},
		{name: "TLS ends at listeners with it", rules: ends, services: one(router("rule=HostSNI(`h`)", "tls=true")),
			routes: []string{"a tls_ended://h priority=12 at [tls]"}},
		{name: "TLS that would end at a listener without it", rules: ends, services: one(router("rule=HostSNI(`h`)", "tls=true", "entrypoints=db")),
			problems: []string{"a refused: no listener with protocol: tcp and tls for tags has the name db: want tls"}},
		{name: "without TLS at a listener with it", rules: ends, services: one(plain("entrypoints=tls")),
			problems: []string{"a refused: no listener with protocol: tcp, without tls, for tags has the name tls: want db"}},
		{name: "all connections need a claim", rules: allRules(), services: one(plain("entrypoints=db")),
			problems: []string{"a refused: a route without an exact host could take requests of other services: want an entry of catalog.claims, such as { service: a, hosts: ['*'] }"}},
		{name: "all connections with a claim", rules: claims(everything), services: one(plain("entrypoints=db")),
			routes: []string{"a tcp:// priority=-1 at [db]"}},
		{name: "a port of fabio's tags", rules: change(func(r *Rules) {
			r.Claims, r.StreamPorts = []config.Claim{everything}, map[string][]string{"5432": {"db"}}
		}),
			services: []Service{service("a", instance("a", "1", 1, "urlprefix-:5432 proto=tcp allow=ip:10.0.0.0/8", "urlprefix-:1 proto=tcp"))},
			routes:   []string{"a tcp:// at [db] restricted"},
			problems: []string{"a refused: a tag opens no port: want a listener for TCP in the file, { address: ':1', protocol: tcp }"}},
		{name: "a PROXY header by fabio's tags", rules: change(func(r *Rules) {
			r.Claims, r.StreamPorts = []config.Claim{everything}, map[string][]string{"5432": {"db"}}
			r.Upstream = new(config.Config{Catalog: new(config.Catalog)}).CheckTagUpstream
		}),
			services: one([]string{"urlprefix-:5432 proto=tcp", "urlprefix-:5432 proto=tcp pxyproto=true"}),
			routes:   []string{"a tcp:// at [db]"}},
		{name: "a port of fabio's tags without a claim", rules: change(func(r *Rules) { r.StreamPorts = map[string][]string{"5432": {"db"}} }),
			services: one([]string{"urlprefix-:5432 proto=tcp"}),
			problems: []string{"a refused: a route without an exact host could take requests of other services: want an entry of catalog.claims, such as { service: a, hosts: ['*'] }"}},
		{name: "a claim with paths", rules: claims(config.Claim{Service: "a", Hosts: []string{"h"}, Paths: []string{"/x"}}), services: one(stream("HostSNI(`h`)")),
			problems: []string{"a refused: the service has no claim to this: want an entry of catalog.claims for the host and the path"}},
		{name: "a name of a listener of the file", rules: change(func(r *Rules) { r.ReservedNames = map[string]bool{"h": true} }),
			services: one(append(stream("HostSNI(`h`)", "entrypoints=db"), "urlprefix-h/")), routes: []string{`a h/`},
			problems: []string{"a refused: the host h belongs to the operator's own routes: want an entry of catalog.claims that names it"}},
		{name: "the file has the connections", services: one(append(plain(), "urlprefix-h/")), rules: change(func(r *Rules) {
			r.Claims, r.Taken = []config.Claim{everything}, map[string]string{key(tags.ProtocolTCP, "db", ""): "the listener db"}
		}),
			routes:   []string{"a h/", "a tcp:// priority=-1 at [tls]"},
			problems: []string{"a conflict: the operator has a route for the same requests: the listener db"}},
		{name: "a service that needs requests", rules: change(func(r *Rules) { r.Requests = map[string]string{"a": "upstream.protocol h2c"} }),
			services: one(append(stream("HostSNI(`h`)"), "urlprefix-h/")), routes: []string{"a h/"},
			problems: []string{"a refused: the service has upstream.protocol h2c in the file, which connections for TCP cannot have"}},
		{name: "a service that needs requests, and a list of who may connect", rules: change(func(r *Rules) { r.Requests = map[string]string{"a": "upstream.protocol h2c"} }),
			services: one(append(stream("HostSNI(`h`)", "entrypoints=db", "middlewares=list"), "traefik.tcp.middlewares.list.ipallowlist.sourcerange=10.0.0.1")),
			routes:   []string{"a tls://h priority=12 at [db] restricted"},
			problems: []string{"a refused: the service has upstream.protocol h2c in the file, which connections for TCP cannot have; the route denies every request"}},
		{name: "named actions, which may need requests", rules: change(func(r *Rules) {
			r.Config = &config.Config{Actions: map[string]config.NamedActions{"a": {OfferedTo: []string{"tags"}}}}
		}),
			services: one(stream("HostSNI(`h`)", "entrypoints=db", "middlewares=a@file")),
			routes:   []string{"a tls://h priority=12 at [db] denies restricted"},
			problems: []string{"a bad: named actions are for requests, and not for connections; the route denies every request"}},
		{name: "two services: the holder, at each listener", rules: allRules(), holders: map[string]string{key(tags.ProtocolTLS, "tls", "h"): "b"},
			services: []Service{service("a", instance("a", "1", 1, stream("HostSNI(`h`)")...)), service("b", instance("b", "1", 1, stream("HostSNI(`h`)")...))},
			routes:   []string{"a tls://h priority=12 at [db]", "b tls://h priority=12 at [tls]"}, problems: []string{
				"a conflict: the service b has a route for the same requests, and keeps it",
				"b conflict: the service a has a route for the same requests, and keeps it",
			}},
		{name: "TLS and all connections are no conflict", rules: claims(everything),
			services: []Service{service("a", instance("a", "1", 1, plain("entrypoints=db")...)), service("b", instance("b", "1", 1, stream("HostSNI(`*`)", "entrypoints=db")...))},
			routes:   []string{"a tcp:// priority=-1 at [db]", "b tls:// priority=-1 at [db]"}},
		{
			name: "only some of the instances", rules: allRules(),
			services: []Service{service("a", instance("a", "1", 1, stream("HostSNI(`h`)", "entrypoints=db")...), instance("a", "2", 1))},
			routes: []string{"a tls://h priority=12 at [db] [\"traefik.enable=true\" \"traefik.tcp.routers.r.entrypoints=db\" " +
				"\"traefik.tcp.routers.r.rule=HostSNI(`h`)\" \"traefik.tcp.routers.r.tls.passthrough=true\"]"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := Resolve(test.services, test.rules, test.holders)
			verify.Slices(t, lines(r), test.routes, "the routes")
			var problems []string
			for _, p := range r.Problems {
				problems = append(problems, fmt.Sprintf("%s %s: %s", p.Service, p.Kind, p.Reason))
			}
			slices.Sort(problems)
			verify.Slices(t, problems, test.problems, "the problems")
		})
	}
}
