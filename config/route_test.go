package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sluice/route"
	"sluice/test/verify"
)

const routeTestServices = "services: { star: { peers: ['127.0.0.1:1'] } }\n"

func TestRouteWithEveryKey(t *testing.T) {
	c := mustParse(t, `listeners: [{ name: web, address: ":80" }, { name: internal, address: ":81" }]
`+routeTestServices+`routes:
  - host_regexp: '^[a-z]+\.example\.com$'
    path: /api
    match: string_prefix
    methods: [GET, HEAD]
    when:
      header: { X-Canary: "1", User-Agent: "~^curl", X-Any: "*" }
      query: { v: 2 }
      cookie: { beta: "1" }
      scheme: https
      client: [10.0.0.0/8, 192.0.2.1]
      not: { header: { X-Old: "*" } }
      any: [{ query: { a: "" } }, { cookie: { b: "~." } }]
    listeners: [web, internal]
    priority: -3
    service: star
`)
	got := c.Routes[0].Target()
	want := route.Route{
		HostRegexp: `^[a-z]+\.example\.com$`, Path: "/api", PathMatch: route.PathStringPrefix,
		Conditions: route.Conditions{
			Methods: []string{"GET", "HEAD"},
			Headers: []route.Value{{Name: "User-Agent", Kind: route.ValueMatches, Text: "^curl"}, {Name: "X-Any", Kind: route.ValuePresent}, {Name: "X-Canary", Text: "1"}},
			Queries: []route.Value{{Name: "v", Text: "2"}},
			Cookies: []route.Value{{Name: "beta", Text: "1"}},
			Scheme:  "https",
			Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")},
			Not:     &route.Conditions{Headers: []route.Value{{Name: "X-Old", Kind: route.ValuePresent}}},
			Any: []route.Conditions{
				{Queries: []route.Value{{Name: "a"}}},
				{Cookies: []route.Value{{Name: "b", Kind: route.ValueMatches, Text: "."}}},
			},
		},
		Listeners: []string{"web", "internal"}, Priority: -3, Origin: "sluice.yaml:4",
	}
	got.Checked = nil
	verify.That(t, reflect.DeepEqual(got, want), "got  %+v\nwant %+v", got, want)
}

func TestRouteErrors(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"host twice", "- { host: a, host_regexp: a, service: star }", []string{
			`sluice.yaml:4: routes[0].host_regexp: value "a": not together with host`}},
		{"bad host regexp", "- { host_regexp: '(', service: star }", []string{
			"sluice.yaml:4: routes[0].host_regexp: value \"(\": is not a regular expression in Go's syntax (RE2): missing closing ): `(`"}},
		{"kind of match", "- { match: glob, service: star }", []string{
			`sluice.yaml:4: routes[0].match: value "glob": want one of prefix, exact, string_prefix, regexp`}},
		{"path", "- { path: '/a/%2', match: exact, service: star }", []string{
			`sluice.yaml:4: routes[0].path: value "/a/%2": "%2" is not a percent-encoded octet`}},
		{"path regexp", "- { path: '^/[', match: regexp, service: star }", []string{
			"sluice.yaml:4: routes[0].path: value \"^/[\": is not a regular expression in Go's syntax (RE2): missing closing ]: `[`"}},
		{"methods", "- { methods: [get], service: star }", []string{
			`sluice.yaml:4: routes[0].methods[0]: value "get": want a method in upper case, such as GET`}},
		{"conditions", "- path: /\n  when:\n    header: { Host: a, X-A: '~(' }\n    scheme: ftp\n    client: [a]\n    nott: {}\n  service: star", []string{
			`sluice.yaml:7: routes[0].when.scheme: value "ftp": want one of http, https`,
			`sluice.yaml:8: routes[0].when.client[0]: value "a": want a network such as 10.0.0.0/8 or fd00::/8, or a single IP address`,
			`sluice.yaml:9: routes[0].when.nott: unknown key, did you mean "not"? (allowed here: header, query, cookie, scheme, client, client_certificates, not, any)`}},
		{"fields", "- path: /\n  when:\n    not:\n      header: { Host: a }\n    any:\n      - header: { X-A: '~(' }\n  service: star", []string{
			`sluice.yaml:7: routes[0].when.not.header.Host: use the host of the route`,
			"sluice.yaml:9: routes[0].when.any[0].header.X-A: value \"~(\": is not a regular expression in Go's syntax (RE2): missing closing ): `(`"}},
		{"name of a field", "- { when: { header: { 'X A': 1 } }, service: star }", []string{
			`sluice.yaml:4: routes[0].when.header.X A: value "X A": want a name without spaces, such as X-Canary`}},
		{"listener", "- { listeners: [weg, db], service: star }", []string{
			`sluice.yaml:4: routes[0].listeners[0]: value "weg": no such listener, did you mean "web"? (known: web)`,
			`sluice.yaml:4: routes[0].listeners[1]: value "db": has protocol: tcp, which has no routes`}},
		{"priority", "- { priority: 1e3, service: star }", []string{
			`sluice.yaml:4: routes[0].priority: value "1e3": want a whole number from -1000000 to 1000000`}},
		{"the limits of a service", "- { path: /, service: star, limits: { requests: 5 } }", []string{
			`sluice.yaml:4: routes[0].limits: unknown key, did you mean "rate_limit"? (allowed here: ` + strings.Join(schema.Keys(routeType), ", ") + ")"}},
		{"the same requests", "- { path: /a, service: star, methods: [GET, HEAD], when: { header: { X-A: 1, x-b: 2 } } }\n" +
			"- { path: /a, service: star }\n- { path: /%61/, service: star, priority: 1, methods: [HEAD, GET], when: { header: { x-a: '1', X-B: 2 } } }", []string{
			`sluice.yaml:6: routes[2]: value "/%61/": the same as routes[0] at sluice.yaml:4`}},
		{"alias of itself", "- { when: &x { not: *x }, service: star }", []string{
			`sluice.yaml:4: value "*x": an alias within what it stands for`}},
		{"deep conditions", "- { when: " + strings.Repeat("{ not: ", 8) + "{}" + strings.Repeat(" }", 8) + ", service: star }", []string{
			`sluice.yaml:4: routes[0].when.not.not.not.not.not.not.not.not: nested too deeply: want at most 8 levels of not and any`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			const head = "listeners: [{ name: web, address: ':80' }, { name: db, address: ':81', protocol: tcp, service: star }]\n"
			_, err := Parse("sluice.yaml", []byte(head+routeTestServices+"routes:\n"+test.text+"\n"))
			verify.Require(t, err != nil, "accepted")
			diffLines(t, err, test.want)
		})
	}
}

// An alias makes many conditions out of a few lines.
func TestConditionsAreLimited(t *testing.T) {
	const text = routeTestServices + `routes:
- { path: /a, service: star, when: { any: [&a { scheme: http }, *a, *a, *a, *a, *a, *a] } }
- { path: /b, service: star, when: { any: [&b { any: [*a, *a, *a, *a, *a, *a] }] } }
- { path: /c, service: star, when: { any: [&c { any: [*b, *b, *b, *b, *b, *b] }] } }
- { path: /d, service: star, when: { any: [&d { any: [*c, *c, *c, *c, *c, *c] }] } }
`
	_, err := Parse("sluice.yaml", []byte(text))
	verify.That(t, err != nil && strings.HasPrefix(err.Error(), "sluice.yaml:3: routes[3].when.any[0].any[5].any[5].any[2]: too many conditions: want at most 256 for a route"), "got %v", err)
}

func TestRegexpsWithoutLiteralsAreLimited(t *testing.T) {
	var b strings.Builder
	b.WriteString(routeTestServices + "routes:\n")
	for i := range route.MaxUnindexed + 1 {
		b.WriteString("- { host: a.example, match: regexp, path: '" + strings.Repeat("x", i+1) + "$', service: star }\n")
	}
	_, err := Parse("sluice.yaml", []byte(b.String()))
	verify.That(t, err != nil && strings.HasPrefix(err.Error(), `sluice.yaml:203: routes[200]: want at most 200 regular expressions for "a.example" without`), "got %v", err)
}
