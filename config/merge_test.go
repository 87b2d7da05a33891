package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sluice/tags"
	"sluice/test/verify"
)

func TestTheFirstFragmentHasPrecedence(t *testing.T) {
	c := mustParse(t, "services: { star: { peers: [\"127.0.0.1:80\"] } }\nroutes: [{ host: a.example, service: star }]")
	before := mustParse(t, "services: { star: { peers: [\"127.0.0.1:80\"] } }\nroutes: [{ host: a.example, service: star }]")
	sun, moon := c.Services["star"], c.Services["star"]
	sun.Peers, moon.Peers = []Peer{{Text: "127.0.0.1:81"}}, []Peer{{Text: "127.0.0.1:82"}}
	merged, conflicts := Merge(c,
		Addition{Origin: "one", Services: map[string]Service{"star": sun, "sun": sun}, Routes: []Route{
			{Host: "A.example", Path: "/", Service: "sun"}, {Host: "b.example", Path: "/", Service: "moon"},
		}},
		Addition{Origin: "two", Services: map[string]Service{"moon": moon, "sun": moon}, Routes: []Route{
			{Host: "b.example", Path: "/", Service: "star"}, {Path: "/", Service: "mars"}, {Path: "x", Service: "sun"}, {Path: "/g", Service: "sun", Group: "canary"},
		}})
	verify.DeepEqual(t, merged.Services, map[string]Service{"star": c.Services["star"], "sun": sun, "moon": moon}, "services")
	verify.Require(t, len(merged.Routes) == 2 && merged.Routes[1].checked != nil, "routes %+v: want two, each compiled", merged.Routes)
	added := Route{Host: "b.example", Path: "/", Service: "moon", Origin: "one", checked: merged.Routes[1].checked}
	verify.DeepEqual(t, merged.Routes, append(c.Routes, added), "routes")
	for i, want := range []string{
		"one: services.star: ignored: the file has",
		"two: services.sun: ignored: one has",
		"one: routes[0]: ignored: the file has",
		"two: routes[0]: ignored: one has",
		`two: routes[1]: ignored: there is no service "mars"`,
		"two: routes[2]: ",
		`two: routes[3]: ignored: the service "sun" has no group "canary"`,
	} {
		verify.Require(t, i < len(conflicts) && strings.HasPrefix(conflicts[i].Error(), want), "conflicts %v: want at %d %q", conflicts, i, want)
	}
	verify.DeepEqual(t, c, before, "Merge changed its argument")
}

func TestMergeComparesWhatRoutesMatch(t *testing.T) {
	c := mustParse(t, "services: { star: { peers: [\"127.0.0.1:80\"] } }\nlisteners: [{ name: web, address: ':80' }]\nroutes: [{ path: /a, service: star }]")
	star := func(r Route) Route {
		r.Path, r.Service = "/a", "star"
		return r
	}
	merged, conflicts := Merge(c, Addition{Origin: "one", Routes: []Route{
		star(Route{Match: "exact"}),
		star(Route{Methods: []string{"GET"}}),
		star(Route{When: &Conditions{Scheme: "https"}}),
		star(Route{Listeners: []string{"web"}}),
		star(Route{HostRegexp: "^a"}),
		star(Route{Priority: 1, Dialect: DialectTraefik, Origin: "star, tag 3"}),
		star(Route{Listeners: []string{"web", "internal"}}),
		star(Route{When: new(Conditions)}),
	}})
	verify.Equal(t, len(merged.Routes), 6, "routes %+v", merged.Routes)
	diffLines(t, conflicts, []string{
		"one: routes[5]: ignored: the file has a route for the same requests",
		`one: routes[6].listeners: ignored: listener "internal": no such listener (known: web)`,
		"one: routes[7]: ignored: the file has a route for the same requests",
	})
}

// Routes of connections are added to copies of their listeners.
func TestMergeStreams(t *testing.T) {
	const text = `
listeners:
  - { name: web, address: ":80" }
  - { name: db, address: ":81", protocol: tcp, service: star }
  - { name: tls, address: ":82", protocol: tcp, sni: [{ host: A.example., service: star }] }
  - { name: empty, address: ":83", protocol: tcp }
services: { star: { peers: ["127.0.0.1:80"] }, secure: { peers: ["127.0.0.1:81"], balance: { policy: sticky } } }
catalog: { tags: [traefik], listeners: [web, tls, empty] }
`
	c, before := mustParse(t, text), mustParse(t, text)
	stream := func(protocol, host, listener, service string) Route {
		return Route{Protocol: protocol, Host: host, Path: "/", Listeners: []string{listener}, Service: service}
	}
	merged, conflicts := Merge(c, Addition{Origin: "one", Streams: []Route{
		stream("tls", "b.example", "tls", "star"),
		stream("tls", "", "db", "star"),
		stream("tcp", "", "empty", "star"),
	}}, Addition{Origin: "two", Services: map[string]Service{"found": c.Services["secure"]}, Streams: []Route{
		stream("tls", "a.example", "tls", "star"),
		stream("tls", "B.example", "tls", "star"),
		stream("tls", "B.example", "empty", "star"),
		stream("tcp", "", "db", "star"),
		stream("tcp", "", "tls", "mars"),
		stream("tcp", "", "web", "star"),
		stream("tcp", "", "tls", "secure"),
		{Protocol: "tcp", Path: "/", Listeners: []string{"tls"}, Service: "star", Group: "canary"},
		stream("tcp", "", "tls", "found"),
		stream("tls_ended", "c.example", "empty", "star"),
	}})
	diffLines(t, conflicts, []string{
		"two: streams[0]: ignored: the listener has a service for the same connections",
		"two: streams[1]: ignored: the listener has a service for the same connections",
		"two: streams[3]: ignored: the listener has a service for the same connections",
		`two: streams[4]: ignored: there is no service "mars"`,
		`two: streams[5]: ignored: there is no listener "web" with protocol: tcp`,
		`two: streams[6]: ignored: the service "secure" has balance.policy sticky, which needs requests`,
		`two: streams[7]: ignored: the service "star" has no group "canary"`,
		`two: streams[8]: ignored: the service "found" has balance.policy sticky, which needs requests`,
		"two: streams[9]: ignored: the listener has no tls: want it in the file, or tls.passthrough",
	})
	var got []string
	for _, l := range merged.Listeners {
		for _, r := range l.Streams {
			got = append(got, l.Name+" "+r.Protocol+" "+r.Host)
		}
	}
	verify.DeepEqual(t, got, []string{"db tls ", "tls tls b.example", "empty tcp ", "empty tls B.example"}, "the streams")
	verify.DeepEqual(t, c, before, "Merge changed its argument")
	names, all := c.TagListeners(ProtocolTCP)
	verify.That(t, reflect.DeepEqual(names, []string{"tls", "empty"}) && !all, "the listeners for tags are %q, all: %t", names, all)
	names, all = c.TagListeners(ProtocolHTTP)
	verify.That(t, reflect.DeepEqual(names, []string{"web"}) && all, "the listeners for routes of tags are %q, all: %t", names, all)
}

// Where TLS ends at a listener, it ends for all but those that pass through, and a name has one
// service.
func TestMergeStreamsWithTLS(t *testing.T) {
	c := mustParse(t, `
listeners:
  - name: tls
    address: ":82"
    protocol: tcp
    tls: { acme: { names: [a.example], storage: /tmp } }
    sni: [{ host: a.example, service: star }, { host: b.example, service: star, passthrough: true }]
services: { star: { peers: ["127.0.0.1:80"] } }
catalog: { tags: [traefik] }
`)
	stream := func(protocol, host string) Route {
		return Route{Protocol: protocol, Host: host, Path: "/", Listeners: []string{"tls"}, Service: "star"}
	}
	merged, conflicts := Merge(c, Addition{Origin: "tags", Streams: []Route{
		stream("tls", "a.example"), stream("tls_ended", "b.example"), stream("tcp", ""), stream("tls", "c.example"), stream("tls_ended", "d.example"),
	}})
	diffLines(t, conflicts, []string{
		"tags: streams[0]: ignored: the listener has a service for the same connections",
		"tags: streams[1]: ignored: the listener has a service for the same connections",
		"tags: streams[2]: ignored: the listener has tls, so its clients must use it",
	})
	var got []string
	for _, r := range merged.Listeners[0].StreamRoutes() {
		got = append(got, r.Protocol+" "+r.Host)
	}
	verify.DeepEqual(t, got, []string{"tls_ended a.example", "tls b.example", "tls c.example", "tls_ended d.example"}, "the streams")
}

// A route that says who may use it denies every connection if its service needs requests: a broader
// one might answer.
func TestMergeStreamsThatRestrict(t *testing.T) {
	c := mustParse(t, `
listeners: [{ name: wires, address: ":82", protocol: tcp }]
services: { star: { peers: ["127.0.0.1:80"], upstream: { protocol: h2c } } }
catalog: { tags: [traefik] }
`)
	stream := func(keys tags.Keys) Route {
		keys.Set("star.example", "host")
		r := verify.Result(DecodeRoute(keys, ByTag, nil)).Must(t)
		r.Protocol, r.Listeners, r.Service = tags.ProtocolTLS, []string{"wires"}, "star"
		return r
	}
	for _, test := range []struct {
		keys   tags.Keys
		denies bool
	}{
		{tags.Keys{}, false}, {tags.Keys{"allow": []string{"127.0.0.1"}}, true}, {tags.Keys{"deny": []string{"0.0.0.0/0", "::/0"}}, true},
	} {
		merged, conflicts := Merge(c, Addition{Origin: "tags", Streams: []Route{stream(test.keys)}})
		verify.That(t, len(conflicts) == 1, "%v: conflicts %v", test.keys, conflicts)
		streams := merged.Listeners[0].Streams
		verify.Require(t, len(streams) == map[bool]int{true: 1}[test.denies], "%v: the streams %+v", test.keys, streams)
		for _, r := range streams {
			verify.That(t, !r.Built().Access.Allows(netip.MustParseAddr("127.0.0.1")), "%v: the route lets a client pass", test.keys)
		}
	}
}

// A service of the file says itself why it gets no connections.
func TestNoStreams(t *testing.T) {
	for settings, want := range map[string]string{
		"":                            "",
		"upstream: { protocol: h2c }": "upstream.protocol h2c",
		"upstream: { tls: {} }":       "",
		"balance: { policy: sticky }": "balance.policy sticky",
		"balance: { policy: hash }":   "",
		"balance: { policy: hash, hash: { keys: [header X-User] } }": "balance.hash.keys without client_address",
	} {
		c := mustParse(t, "services: { star: { peers: [\"127.0.0.1:80\"], "+settings+" } }\nroutes: [{ service: star }]")
		star := c.Services["star"]
		verify.Equal(t, star.NoStreams(), want, "%s", settings)
	}
}
