package claim

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/discovery"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// An instance asks in the dialects that are read, with their settings.
func TestDialectsThatAreRead(t *testing.T) {
	const (
		native  = " sluice.route=own"
		fabio   = " urlprefix-fabio/ mine-mine/"
		traefik = " traefik.http.routers.r.rule=Host(`traefik`)"
		edge    = " edge.enable=true edge.http.routers.e.rule=Host(`edge`)"
	)
	for catalog, want := range map[string]string{
		"tags: [sluice], traefik: { exposed: true }": "star own/",
		"tags: [fabio]": "star fabio/",
		"tags: [fabio], fabio: { prefix: mine- }":                                 "star mine/",
		"tags: [traefik]":                                                         "",
		"tags: [traefik], traefik: { exposed: true }":                             "star traefik/ priority=15",
		"tags: [traefik], traefik: { prefix: edge }":                              "star edge/ priority=12",
		"tags: [traefik], traefik: { prefix: moon, default_rule: 'Host(`moon`)'}": "star moon/ priority=12",
		"tags: [sluice, fabio, traefik], traefik: { exposed: true }":              "star fabio/,star own/,star traefik/ priority=15",
	} {
		r := resolveDefault(t, "catalog: { "+catalog+" }", "star star-1 1 moon.enable=true"+native+fabio+traefik+edge)
		verify.Equal(t, strings.Join(lines(r), ","), want, "%s: problems %+v", catalog, r.Problems)
	}
}

// A sidecar has copies of the tags of its service: they count only where it is an instance of the
// service, and not where it stands in for another one.
func TestTagsOfSidecars(t *testing.T) {
	reader := NewReader(configtest.Must(t, "catalog: { tags: [traefik] }"))
	i := discovery.Instance{Service: "star", ID: "a", Port: 21000, Tags: []string{"traefik.enable=true", "traefik.http.routers.star.rule=Host(`a`)"}}
	for _, tt := range []struct {
		kind, identity, service string
		routes                  int
	}{
		{"", "", "star", 1},
		{"connect-proxy", "", "star", 0},
		{"connect-proxy", "/ns/default/dc/dc1/svc/star", "star", 1},
		{"connect-proxy", "/ns/default/dc/dc1/svc/star", "moon", 0},
		{"", "/ns/default/dc/dc1/svc/star", "moon", 0},
	} {
		i.Kind, i.Identity = tt.kind, tt.identity
		if tt.kind != "" { // the port of a sidecar is another one than its service's
			i.Tags = append(i.Tags[:2:2], "traefik.http.services.star.loadbalancer.server.port=8080")
		}
		routes := 0
		for _, reading := range reader.Read(tt.service, &i) {
			routes += len(reading.Routes)
		}
		verify.Equal(t, routes, tt.routes, "the routes for %+v", tt)
		verify.That(t, routes == 0 || reader.Profile(&i) != "", "%+v: no profile", tt)
	}
}

// An entry of the meta whose name only begins as that of a route asks for nothing: the default rule
// is for the instance.
func TestMetaThatAsksForNothing(t *testing.T) {
	reader := NewReader(configtest.Must(t, "catalog: { tags: [sluice], default_rule: '{service}.apps.example.com' }"))
	for key, asks := range map[string]bool{"sluice_route": true, "sluice_route_2": true, "sluice_routes": false, "sluice": false} {
		i := discovery.Instance{Service: "star", ID: "star-1", Port: 80, Meta: map[string]string{key: "star.example.com"}}
		readings := reader.Read("star", &i)
		verify.Require(t, len(readings) == 1 && len(readings[0].Routes) == 1, "%s: %+v", key, readings)
		want := "star.apps.example.com"
		if asks {
			want = "star.example.com"
		}
		verify.Equal(t, readings[0].Routes[0].Keys["host"], any(want), "%s: the host", key)
	}
}

// What decides which routes an instance has is in its profile and its group: another value is read,
// and its requests do not go to the instances with the former one.
func TestWhatTheRoutesOfTagsDependOn(t *testing.T) {
	const rule = "catalog: { tags: [traefik], traefik: { exposed: true, default_rule: 'Host(`{{ index .Labels \"zone\" }}.example.com`)' } }"
	zone := func(id, zone string) string { return "star " + id + " 1 traefik.enable=true zone=" + zone }
	verify.Slices(t, lines(resolveDefault(t, rule, zone("1", "a"), zone("2", "b"), zone("3", "a"))), []string{
		`star a.example.com/ priority=21 ["traefik.enable=true" "zone=a"]`, `star b.example.com/ priority=21 ["traefik.enable=true" "zone=b"]`,
	}, "the routes of two zones")
	for text, change := range map[string]func(*discovery.Instance){
		rule:                         func(i *discovery.Instance) { i.Tags = []string{"traefik.enable=true", "zone=b"} },
		"catalog: { tags: [fabio] }": func(i *discovery.Instance) { i.Datacenter = "dc2" },
	} {
		reader := NewReader(configtest.Must(t, text))
		i := discovery.Instance{Service: "star", ID: "a", Port: 80, Datacenter: "dc1", Tags: []string{"traefik.enable=true", "zone=a", "urlprefix-$DC.example.com/"}}
		before, hosts := reader.Profile(&i), fmt.Sprint(reader.Read("star", &i))
		change(&i)
		verify.That(t, reader.Profile(&i) != before && fmt.Sprint(reader.Read("star", &i)) != hosts, "the profile stays %q: %s", before, hosts)
	}
}

// resolveDefault resolves instances, each written as "SERVICE ID REGISTERED TAG …", with a
// configuration.
func resolveDefault(t *testing.T, text string, instances ...string) Result {
	t.Helper()
	c := configtest.Must(t, text)
	reader := NewReader(c)
	services := make(map[string]*Service)
	for _, written := range instances {
		words := strings.Fields(written)
		i := discovery.Instance{Service: words[0], ID: words[1], Port: 80, Tags: words[3:]}
		verify.That(t, reader.Profile(&i) != "", "%s asks for nothing", written)
		if services[i.Service] == nil {
			services[i.Service] = &Service{Name: i.Service, InConsul: i.Service}
		}
		s := services[i.Service]
		s.Instances = append(s.Instances, Instance{ID: i.ID, Node: "n", Age: Age{true, true, uint64(words[2][0])}, Readings: reader.Read(i.Service, &i)})
	}
	var list []Service
	for _, s := range services {
		list = append(list, *s)
	}
	return Resolve(list, NewRules(c), nil)
}

func TestDefaultRule(t *testing.T) {
	const rule = "default_rule: '{service}.apps.example.com'"
	for _, test := range []struct {
		name, text string
		instances  []string
		routes     []string
		problems   []string
	}{
		{"without dialects", "catalog: { " + rule + " }",
			[]string{"moon moon-1 1 v1", "moon moon-2 1", "Star star-1 1 sluice.route=star.example.com"},
			[]string{"Star star.apps.example.com/", "moon moon.apps.example.com/"}, nil},
		{"a service with a route of its own", "catalog: { tags: [sluice, traefik], " + rule + " }",
			[]string{"moon moon-1 1", "star star-1 1 sluice.route=star.example.com", "off off-1 1 traefik.enable=false", "bad bad-1 1 sluice.rout=bad.example.com"},
			[]string{"moon moon.apps.example.com/", "star star.example.com/"}, []string{"bad bad"}},
		{"a service that an operator names", "catalog: { " + rule + " }\nservices: { star: { peers: ['127.0.0.1:1'] } }\n" +
			"routes: [{ host: h, service: moon, mirror: { service: copy } }]\n",
			[]string{"moon moon-1 1", "copy copy-1 1", "star star-1 1", "sun sun-1 1"},
			[]string{"sun sun.apps.example.com/"}, nil},
		{"a name that is no label", "catalog: { " + rule + " }",
			[]string{"my_moon moon-1 1", "a.b a-1 1", "-a a-1 1"}, nil, []string{"-a bad", "a.b bad", "my_moon bad"}},
		{"a host of an operator", "catalog: { " + rule + " }\nservices: { s: { peers: ['127.0.0.1:1'] } }\nroutes: [{ host: Moon.apps.example.com, path: /x, service: s }]",
			[]string{"moon moon-1 1"}, nil, []string{"moon refused"}},
		{"claims for others", "catalog: { " + rule + ", claims: [{ service: star, hosts: [star.example.com] }] }",
			[]string{"moon moon-1 1"}, []string{"moon moon.apps.example.com/"}, nil},
		{"two services with one host", "catalog: { " + rule + " }",
			[]string{"moon moon-1 1", "Moon moon-1 1"}, []string{"Moon moon.apps.example.com/"}, []string{"moon conflict"}},
		{"a tag for the host of another service", "catalog: { tags: [sluice], " + rule + ", claims: [{ service: b, hosts: [a.apps.example.com] }] }",
			[]string{"a a-1 1", "b b-1 1 sluice.route=a.apps.example.com"}, []string{"a a.apps.example.com/"}, []string{"b conflict"}},
		{"a release", "catalog: { tags: [sluice], " + rule + " }",
			[]string{"moon moon-1 1", "moon moon-2 2 sluice.route=moon.example.com"},
			[]string{`moon moon.apps.example.com/ []`, `moon moon.example.com/ ["sluice.route=moon.example.com"]`}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := resolveDefault(t, test.text, test.instances...)
			verify.DeepEqual(t, lines(r), test.routes, "routes")
			var problems []string
			for _, p := range r.Problems {
				problems = append(problems, fmt.Sprintf("%s %s", p.Service, p.Kind))
			}
			slices.Sort(problems)
			verify.Slices(t, problems, test.problems, "problems %+v", r.Problems)
		})
	}
}

// The group of the instances without tags selects what the others leave, so it is the last one.
func TestTheGroupOfTheDefaultRuleIsTheLast(t *testing.T) {
	r := resolveDefault(t, "catalog: { tags: [sluice], default_rule: '{service}.apps.example.com' }",
		"moon moon-1 1", "moon moon-2 2 sluice.route=moon.example.com", "moon moon-3 3 sluice.route=a.example.com sluice.route=b.example.com")
	var names []string
	for name := range r.Groups["moon"] {
		names = append(names, name)
	}
	slices.Sort(names)
	last := r.Groups["moon"][names[len(names)-1]]
	verify.That(t, len(names) == 3 && len(last.Tags)+len(last.Meta) == 0, "groups %+v", r.Groups)
	const want = "catalog.default_rule={service}.apps.example.com, for moon-1 without tags"
	verify.That(t, slices.ContainsFunc(r.Routes, func(r Route) bool { return r.Origin == want }), "no route has the origin %q: %+v", want, r.Routes)
}
