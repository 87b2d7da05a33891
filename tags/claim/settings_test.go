package claim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"sluice/config"
	"sluice/test/configtest"
	"sluice/test/verify"
)

func TestSettings(t *testing.T) {
	services := []Service{service("a", instance("a", "1", 1, "urlprefix-h/ proto=grpc")), service("b", instance("b", "2", 1, "urlprefix-g/ proto=grpc"))}
	rules := allRules()
	rules.Defined = map[string]bool{"b": true}
	r := Resolve(services, rules, nil)
	verify.Equal(t, r.Settings["a"].String(), `{"upstream":{"protocol":"h2c"}}`, "the settings of a")
	verify.Slices(t, lines(r), []string{"a h/", "b g/"}, "the routes")
}

// Each instance belongs to the group of its own tags: the first, in the order of names, whose
// tags it has.
func TestGroups(t *testing.T) {
	tags := [][]string{{"urlprefix-h/a"}, {"urlprefix-h/a", "urlprefix-h/b"}, {"urlprefix-h/a", "urlprefix-h/b", "urlprefix-h/c"}, {"urlprefix-h/c"}}
	var instances []Instance
	for i, list := range tags {
		instances = append(instances, instance("s", fmt.Sprint(i), 1, list...))
	}
	groups := Resolve([]Service{service("s", instances...)}, allRules(), nil).Groups["s"]
	verify.Require(t, len(groups) == len(tags), "%d groups: %v", len(groups), groups)
	for _, list := range tags {
		for _, name := range slices.Sorted(maps.Keys(groups)) {
			has := func(tag string) bool { return slices.Contains(list, tag) }
			if slices.ContainsFunc(groups[name].Tags, func(tag string) bool { return !has(tag) }) {
				continue
			}
			verify.That(t, slices.Equal(groups[name].Tags, list), "an instance with %q is in the group of %q", list, groups[name].Tags)
			break
		}
	}
}

// An instance whose upstream cannot be used has no routes, or routes that deny every request, and
// decides nothing for the others.
func TestUpstreamOfOneInstance(t *testing.T) {
	rules := NewRules(configtest.Must(t, "catalog: { tags: [sluice] }"))
	good := func(age uint64) Instance {
		return instance("a", "good", age, "sluice.route=h/", "sluice.upstream=protocol=h2 tls=true")
	}
	for _, upstream := range [][]string{
		{"sluice.upstream=protocol=h2 tls=yes"}, {"sluice.upstream=protocol=h3 tls=true"},
		{"sluice.upstream=protocol=h2", "sluice.upstream=tls=true"}, {"sluice.upstream=tls=true", "sluice.upstream=tls=true tls.server_name=x"},
	} {
		bad := append(upstream, "sluice.route=h/")
		for _, age := range []uint64{1, 3} {
			r := Resolve([]Service{service("a", good(2), instance("a", "bad", age, bad...))}, rules, nil)
			verify.Slices(t, lines(r), []string{`a h/ ["sluice.route=h/" "sluice.upstream=protocol=h2 tls=true"]`}, "%q: the routes", upstream)
			verify.Equal(t, r.Settings["a"].String(), `{"upstream":{"protocol":"h2","tls":{}}}`, "%q: the settings", upstream)
			r = Resolve([]Service{service("a", good(2), instance("a", "bad", age, append(bad, "sluice.route=h/own allow=10.0.0.1")...))}, rules, nil)
			served := slices.ContainsFunc(r.Routes, func(route Route) bool { return route.Path == "/" && slices.Equal(route.By.IDs(), []string{"good"}) })
			verify.That(t, served && len(r.Routes) == 2, "%q: the routes beside one that denies every request: %+v", upstream, r.Routes)
			verify.Equal(t, r.Settings["a"].String(), `{"upstream":{"protocol":"h2","tls":{}}}`, "%q: the settings beside it", upstream)
		}
		rules := rules
		rules.Defined = map[string]bool{"a": true}
		r := Resolve([]Service{service("a", instance("a", "bad", 1, bad...))}, rules, nil)
		verify.Slices(t, lines(r), []string{"a h/"}, "%q: the routes of a service of the file", upstream)
	}
}

// What denies every request has the priority of the oldest instance that asks for it, as what does
// not deny.
func TestPriorityOfWhatDenies(t *testing.T) {
	rules := allRules()
	rules.Claims = []config.Claim{{Service: "a", Hosts: []string{"h"}, Priority: 1}}
	r := Resolve([]Service{service("a", instance("a", "1", 1, "sluice.route=h/a", "sluice.upstream=protocol=h2c"),
		instance("a", "2", 3, "sluice.route=h/ allow=10.0.0.1 priority=1"), instance("a", "3", 2, "sluice.route=h/ allow=10.0.0.1"))}, rules, nil)
	var got []string
	for _, route := range r.Routes {
		got = append(got, fmt.Sprintf("%s %d %d", route.Path, route.Priority, len(route.Deny)))
	}
	verify.Slices(t, got, []string{"/ 0 2", "/a 0 0"}, "path, priority and denied networks")
}

// A release that writes the same routes in another dialect changes no setting: the new instances
// get requests at once.
func TestAnotherDialectIsNoOtherSetting(t *testing.T) {
	old, next := instance("a", "1", 1, "urlprefix-h/"), instance("a", "2", 2, "sluice.route=h/")
	for _, instances := range [][]Instance{{old, next}, {next, old}} {
		instances[0].Registered, instances[1].Registered = 1, 2
		r := Resolve([]Service{service("a", instances...)}, allRules(), nil)
		verify.Slices(t, lines(r), []string{"a h/"}, "the routes")
		verify.That(t, len(r.Problems) == 0, "problems: %+v", r.Problems)
	}
	r := Resolve([]Service{service("a", instance("a", "1", 1, "urlprefix-h/ proto=https"), next)}, allRules(), nil)
	verify.That(t, len(r.Problems) == 1 && strings.Contains(r.Problems[0].Reason, "other settings"), "problems with and without TLS: %+v", r.Problems)
}

// A request may have to try all regular expressions of a service: together they are limited, and an
// instance that asks for too many harms itself only.
func TestRegularExpressionsOfAServiceAreLimited(t *testing.T) {
	expressions := func(first, n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf(`sluice.route=h.example.com/(%d|[a-z]*)*%s match=regexp`, first+i, strings.Repeat("a?", 500)))
		}
		return list
	}
	old, large := instance("star", "a", 1, expressions(0, 5)...), instance("star", "b", 2, expressions(100, 200)...)
	paths := func(r Result) (n int) {
		for _, route := range r.Routes {
			if route.Match == "regexp" {
				n++
			}
		}
		return n
	}
	verify.Equal(t, paths(Resolve([]Service{service("star", large)}, allRules(), nil)), 0, "routes of an instance with 200 large expressions")
	restricted := instance("star", "b", 2, append(expressions(100, 200), "sluice.route=h.example.com/", "sluice.route=h.example.com/admin allow=10.0.0.0/8")...)
	verify.Slices(t, lines(Resolve([]Service{service("star", restricted)}, allRules(), nil)), []string{"star h.example.com/admin denies restricted"},
		"with routes without expressions")
	result := Resolve([]Service{service("star", large, old), service("sun", instance("sun", "c", 3, expressions(300, 5)...))}, allRules(), nil)
	verify.Equal(t, paths(result), 10, "routes of others")
	verify.That(t, slices.ContainsFunc(result.Problems, func(p Problem) bool {
		return p.Kind == KindRefused && slices.Equal(p.IDs(), []string{"b"}) && strings.Contains(p.Reason, "the limit is 10000")
	}), "no problem says why: %+v", result.Problems)
}

// The hosts of the operator's routes are reserved in every spelling, and a claim covers them in
// every spelling.
func TestHostsAreComparedInOneSpelling(t *testing.T) {
	const text = "services: { s: { peers: ['127.0.0.1:1'] } }\nroutes: [{ host: '[2001:db8::1]', path: /app, service: s }, { host: App.example, service: s }]\n"
	for _, host := range []string{"[2001:db8::1]", "[2001:DB8:0::1]", "[2001:0db8:0:0:0:0:0:1]", "app.example", "APP.example."} {
		for claims, want := range map[string]bool{
			"": false,
			", claims: [{ service: web, hosts: ['[2001:DB8::0:1]', app.EXAMPLE] }]": true,
		} {
			c := configtest.Must(t, "catalog: { tags: [sluice]"+claims+" }\n"+text)
			rules := NewRules(c)
			_, refused := rules.allow("web", config.Route{Host: host, Path: "/"})
			verify.That(t, (refused == "") == want, "%s with the claims %q: %q", host, claims, refused)
		}
	}
}
