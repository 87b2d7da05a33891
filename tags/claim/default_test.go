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
