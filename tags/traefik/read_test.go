package traefik

import (
	"embed"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/tags"
	"sluice/test/verify"
)

// tagTest is tags of an instance of svc with port 80, beside traefik.enable=true. Each route
// is its priority and its keys; one of connections begins with its protocol, and a closed one
// with "closed". Then come the settings of the service, and the complaints as "COLUMN: TEXT".
type tagTest struct {
	name       string
	tags       []string
	routes     []string // after "->" in the file
	service    string   // after "sets"
	complaints []string // after "!"
}

//go:embed testdata/*.txt
var tagFiles embed.FS

// tagTests are the tests of tagFiles: a line with the name, and then lines with a tabulator in
// front.
var tagTests = func() (tests []tagTest) {
	for _, file := range []string{"routers", "middlewares", "tcp"} {
		text, err := tagFiles.ReadFile("testdata/" + file + ".txt")
		if err != nil {
			panic(err)
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSuffix(line, "\n")
			value, indented := strings.CutPrefix(line, "\t")
			if !indented {
				if !strings.HasPrefix(line, "#") {
					tests = append(tests, tagTest{name: line})
				}
				continue
			}
			test := &tests[len(tests)-1]
			switch kind, rest, _ := strings.Cut(value, " "); kind {
			case "->":
				test.routes = append(test.routes, rest)
			case "sets":
				test.service = rest
			case "!":
				test.complaints = append(test.complaints, rest)
			default:
				test.tags = append(test.tags, value)
			}
		}
	}
	return tests
}()

func TestTags(t *testing.T) {
	for _, test := range tagTests {
		list := append([]string{"traefik.enable=true"}, test.tags...)
		r := Read(tags.Instance{Service: "svc", Port: 80, Tags: list}, Options{})
		var routes, complaints []string
		for _, route := range r.Routes {
			text := strings.TrimSpace(fmt.Sprintf("%s %d %s", route.Protocol, route.Priority, route.Keys))
			if route.Closed {
				text = "closed " + text
			}
			routes = append(routes, text)
			verify.That(t, route.Ranked && len(route.Tags) != 0, "%s: the route is %+v", test.name, route)
			for _, tag := range route.Tags {
				verify.That(t, slices.Contains(list, tag), "%s: the route is made by %q, which no instance has", test.name, tag)
			}
		}
		for _, c := range r.Complaints {
			complaints = append(complaints, fmt.Sprintf("%d: %s", c.Column, c.Want))
			verify.That(t, slices.Contains(list, c.Tag), "%s: the complaint %v is about a tag that no instance has", test.name, c)
		}
		service := ""
		if r.Service != nil && r.Service.String() != `{"upstream":{}}` {
			service = r.Service.String()
		}
		verify.Slices(t, routes, test.routes, "%s: the routes", test.name)
		verify.Equal(t, service, test.service, "%s sets", test.name)
		verify.Slices(t, complaints, test.complaints, "%s: the complaints", test.name)

		slices.Reverse(list)
		again := Read(tags.Instance{Service: "svc", Port: 80, Tags: list}, Options{})
		same := fmt.Sprint(again.Routes) == fmt.Sprint(r.Routes) && again.Service.String() == r.Service.String()
		verify.That(t, same || test.name == "the same key twice", "%s: the tags make %v, in reverse order %v", test.name, r.Routes, again.Routes)
	}
}

func TestExposed(t *testing.T) {
	const rule = "traefik.http.routers.r.rule=Host(`a`)"
	template := verify.Result(ParseDefaultRule("Host(`{{ .Name }}.{{ index .Labels \"customLabel\" }}`)")).Must(t)
	for _, test := range []struct {
		name       string
		options    Options
		tags       []string
		host       any // of the only route; nil: there is none
		complaints int
	}{
		{"not exposed", Options{}, []string{rule}, nil, 1},
		{"exposed by a tag", Options{}, []string{rule, "traefik.enable=true"}, "a", 0},
		{"exposed by default", Options{Exposed: true}, []string{rule}, "a", 0},
		{"hidden by a tag", Options{Exposed: true}, []string{rule, "traefik.enable=false"}, nil, 0},
		{"neither true nor false", Options{}, []string{rule, "traefik.enable=maybe"}, nil, 1},
		{"without tags of Traefik", Options{Exposed: true}, []string{"v2"}, nil, 0},
		{"another prefix", Options{Prefix: "Edge"}, []string{rule, "edge.enable=true", "edge.http.routers.r.rule=Host(`b`)"}, "b", 0},
		{"a default rule", Options{DefaultRule: template}, []string{"traefik.enable=true", "customLabel=example.com"}, "my service.example.com", 0},
		{"a default rule without a label", Options{DefaultRule: template}, []string{"traefik.enable=true"}, "my service", 0},
		{"the normalized name", Options{}, []string{"traefik.enable=true"}, "my-service", 0},
	} {
		r := Read(tags.Instance{Service: "my service", Port: 80, Tags: test.tags}, test.options)
		var host any
		if len(r.Routes) == 1 {
			host = r.Routes[0].Keys["host"]
		}
		verify.That(t, host == test.host && len(r.Routes) <= 1 && len(r.Complaints) == test.complaints, "%s: the routes are %v, the complaints %v", test.name, r.Routes, r.Complaints)
	}
}

// Tags of a few kilobytes cannot make the reading of tags long, or what it returns large.
func TestTagsAreLimited(t *testing.T) {
	list := []string{"traefik.enable=true", "traefik.http.routers.chains.rule=Host(`chains`)", "traefik.http.routers.chains.middlewares=m0"}
	for i := range 8 { // chains that name 30^8 middlewares
		list = append(list, fmt.Sprintf("traefik.http.middlewares.m%d.chain.middlewares=%s", i, strings.Repeat(fmt.Sprintf("m%d,", i+1), 30)))
	}
	list = append(list, "traefik.http.middlewares.m8.compress=true")
	r := Read(tags.Instance{Service: "svc", Tags: list}, Options{})
	verify.That(t, len(r.Routes) == 1 && r.Routes[0].Closed, "routes: %+v", r.Routes)
	verify.That(t, len(r.Complaints) == 1 && strings.Contains(r.Complaints[0].Want, "too many middlewares"), "complaints: %+v", r.Complaints)

	list = []string{"traefik.enable=true"}
	for i := range 50 {
		list = append(list, fmt.Sprintf("traefik.http.routers.r%d.middlewares=m", i),
			fmt.Sprintf("traefik.http.routers.r%d.rule=%s", i, strings.Repeat("Host(`a`)||", 63)+"Host(`b`)"),
			fmt.Sprintf("traefik.http.middlewares.m.headers.unknown%d=x", i), fmt.Sprintf("traefik.http.middlewares.m.headers.customrequestheaders.x%d=x", i))
	}
	r = Read(tags.Instance{Service: "svc", Tags: list}, Options{})
	verify.That(t, len(r.Routes) == tags.MaxRoutes && len(r.Complaints) <= 1000, "%d routes, %d complaints", len(r.Routes), len(r.Complaints))
}

// A router that says who may use its routes counts however many others there are: without it, a
// broader one could answer.
func TestRestrictionsBesideManyRoutes(t *testing.T) {
	list := []string{
		"traefik.enable=true", "traefik.http.routers.z.rule=Host(`h0`) && PathPrefix(`/admin`)", "traefik.http.routers.z.middlewares=m",
		"traefik.http.middlewares.m.ipallowlist.sourcerange=10.0.0.0/8",
	}
	for i := range 6 {
		var hosts []string
		for n := range 60 {
			hosts = append(hosts, fmt.Sprintf("Host(`h%d`)", i*60+n))
		}
		list = append(list, fmt.Sprintf("traefik.http.routers.r%d.rule=%s", i, strings.Join(hosts, "||")))
	}
	r := Read(tags.Instance{Service: "svc", Port: 80, Tags: list}, Options{})
	verify.That(t, len(r.Routes) == tags.MaxRoutes && r.Routes[0].Keys.Restricts(), "%d routes, without the restricted one", len(r.Routes))
	verify.That(t, len(r.Complaints) == 1 && strings.Contains(r.Complaints[0].Want, "too many routes"), "complaints: %+v", r.Complaints)
}

// A tag whose value nobody reads may restrict, as its middleware or the list of its router does:
// the router stays closed.
func TestTagsThatAreNotRead(t *testing.T) {
	const router, allow = "traefik.http.routers.r.", "traefik.http.middlewares.m.ipallowlist."
	long := strings.Repeat("10.0.0.1,", 500) + "10.0.0.2"
	for _, test := range []struct {
		name   string
		tags   []string
		closed int // routes; all others are missing
	}{
		{"many middlewares", []string{router + "middlewares=" + strings.Repeat("m,", 3000) + "m", allow + "sourcerange=10.0.0.1"}, 1},
		{"middlewares and a control character", []string{router + "middlewares=m\x01", allow + "sourcerange=10.0.0.1"}, 1},
		{"many addresses", []string{router + "middlewares=m", allow + "sourcerange=" + long}, 1},
		{"addresses and a control character", []string{router + "middlewares=m", allow + "sourcerange=10.0.0.1\n", allow + "ipstrategy.depth=1"}, 1},
		{"a middleware that nobody uses", []string{"traefik.http.middlewares.n.ipallowlist.sourcerange=" + long}, 0},
		{"a rule", []string{"traefik.http.routers.s.rule=Host(`" + strings.Repeat("b", tags.MaxTag) + "`)"}, 0},
		{"a scheme", []string{"traefik.http.services.s.loadbalancer.server.scheme=https\x01"}, 0},
		{"a scheme, and a list of clients", []string{router + "middlewares=m", allow + "sourcerange=10.0.0.1", "traefik.http.services.s.loadbalancer.server.scheme=https\x01"}, 1},
		{"a name", []string{"traefik.http.routers.r\x01.middlewares=m"}, 0},
	} {
		r := Read(tags.Instance{Service: "svc", Port: 80, Tags: append(test.tags, "traefik.enable=true", router+"rule=Host(`a`)")}, Options{})
		var complaints []string
		for _, c := range r.Complaints {
			complaints = append(complaints, c.Want)
		}
		closed := 0
		for _, route := range r.Routes {
			if route.Closed {
				closed++
			}
			verify.That(t, route.Keys["host"] == "a", "%s: a route for %v", test.name, route.Keys)
		}
		open := test.closed == 0 && !strings.HasPrefix(test.name, "a scheme")
		verify.That(t, closed == test.closed && (len(r.Routes) > closed) == open, "%s: %d of %d routes are closed, want %d: %v", test.name, closed, len(r.Routes), test.closed, complaints)
		verify.That(t, len(r.Complaints) > 0 && len(r.Complaints) <= 1+test.closed, "%s: the complaints are %q", test.name, complaints)
	}
}

// FuzzRead checks that tags make printable routes of their own tags, that a router that is
// not touched stays, and that a restriction never vanishes.
func FuzzRead(f *testing.F) {
	for _, test := range tagTests {
		f.Add(strings.Join(test.tags, "\n"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		const other = "Host(`other`) && PathPrefix(`/kept`)"
		list := strings.Split(text, "\n")
		if strings.Contains(strings.ToLower(text), "traefik.enable") || strings.Contains(strings.ToLower(text), "kept") {
			return
		}
		touched := strings.Contains(strings.ToLower(text), ".services.") // a service counts for all routers
		r := Read(tags.Instance{Service: "svc", Port: 80, Tags: append(list, "traefik.enable=true",
			"traefik.http.routers.kept.rule="+other, "traefik.http.routers.kept.middlewares=kept",
			"traefik.http.middlewares.kept.ipallowlist.sourcerange=10.0.0.0/8")}, Options{})
		verify.Require(t, len(r.Routes) <= tags.MaxRoutes, "%d routes", len(r.Routes))
		found := false
		for _, route := range r.Routes {
			verify.Require(t, !strings.ContainsFunc(route.Keys.String(), func(r rune) bool { return r < 0x20 }), "control characters in %s", route.Keys)
			if slices.Contains(route.Tags, "traefik.http.routers.kept.rule="+other) {
				found = true
				verify.Require(t, route.Keys["allow"] != nil || route.Keys["deny"] != nil, "the route is open: %s", route.Keys)
			}
		}
		verify.Require(t, found || touched || len(r.Routes) >= tags.MaxRoutes, "the untouched router is missing in %v", r.Routes)
	})
}

func TestTemplate(t *testing.T) {
	label := func(name string) string { return map[string]string{"host": "a b", "x.y": "z"}[name] }
	for text, want := range map[string]string{
		"":                                       "",
		"Host(`a`)":                              "Host(`a`)",
		DefaultRule:                              "Host(`my-service`)",
		"{{.Name}}-{{ .Name }}":                  "my service-my service",
		"{{- normalize .Name -}}":                "my-service",
		`{{ index .Labels "x.y" }}`:              "z",
		"{{ index .Labels `host` }}":             "a b",
		`{{ normalize (index .Labels "host") }}`: "a-b",
		`<{{ index .Labels "none" }}>`:           "<>",
	} {
		template := verify.Result(ParseDefaultRule(text)).Must(t)
		verify.Equal(t, template.expand("my service", label), want, "%s", text)
	}
	for _, text := range []string{"{{", "{{ .Name", "{{ }}", "{{ .Names }}", "{{ printf .Name }}", "{{ index .Labels }}", `{{ (index .Labels "a" }}`, `{{ index .Labels "a") }}`, "{{ if .Name }}a{{ end }}"} {
		_, err := ParseDefaultRule(text)
		verify.That(t, err != nil, "%s: no error", text)
	}
}
