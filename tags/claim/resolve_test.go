package claim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sluice/config"
	"sluice/config/units"
	"sluice/route"
	"sluice/tags"
	"sluice/tags/fabio"
	"sluice/tags/native"
	"sluice/tags/traefik"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// instance returns an instance with tags in all dialects. One that was registered at 0 is not
// usable.
func instance(service, id string, registered uint64, list ...string) Instance {
	in := tags.Instance{Service: service, Port: 80, Tags: list}
	return Instance{ID: id, Node: "n", Age: Age{registered > 0, registered > 0, registered}, Readings: []Reading{
		{config.DialectSluice, native.Read(in)},
		{config.DialectFabio, fabio.Read(in, fabio.Options{})},
		{config.DialectTraefik, traefik.Read(in, traefik.Options{})},
	}}
}

func lost(i Instance) Instance     { i.Serving = false; return i }
func unusable(i Instance) Instance { i.Usable = false; return lost(i) }

func service(name string, instances ...Instance) Service {
	return Service{Name: name, InConsul: name, Instances: instances}
}

// lines returns the routes as "SERVICE HOST PATH", with the tags of their group.
func lines(r Result) (list []string) {
	for _, route := range r.Routes {
		line := fmt.Sprintf("%s %s%s", route.Service, route.Host+route.HostRegexp, route.Path)
		if route.Protocol != "" {
			line = fmt.Sprintf("%s %s://%s", route.Service, route.Protocol, route.Host+route.HostRegexp)
		}
		if route.StripPrefix != "" {
			line += " strip=" + route.StripPrefix
		}
		if route.Priority != 0 {
			line += fmt.Sprintf(" priority=%d", route.Priority)
		}
		if len(route.Listeners) > 0 {
			line += fmt.Sprintf(" at %s", route.Listeners)
		}
		if len(route.Deny) == 2 {
			line += " denies"
		}
		if route.Allow != nil || route.Deny != nil {
			line += " restricted"
		}
		if route.Members != "" {
			line += fmt.Sprintf(" %q", r.Groups[route.Service][route.Members].Tags)
		}
		list = append(list, line)
	}
	slices.Sort(list)
	return list
}

func allRules() Rules {
	return Rules{AllListeners: true, Listeners: []string{"web"}, StreamListeners: []string{"db", "tls"}}
}

func TestResolve(t *testing.T) {
	claims := func(list ...config.Claim) Rules {
		rules := allRules()
		rules.Claims = list
		return rules
	}
	reserved := allRules()
	reserved.Reserved = map[string]bool{"file.example.com": true}
	everything := config.Claim{Service: "*", Hosts: []string{AnyHost}}
	limited := Rules{Listeners: []string{"internal"}}
	for _, test := range []struct {
		name     string
		rules    Rules
		holders  map[string]string
		services []Service
		routes   []string
		problems []string // SERVICE: part of the reason
	}{
		{name: "nothing"},
		{name: "exact hosts are free", rules: allRules(),
			services: []Service{service("a", instance("a", "a1", 1, "urlprefix-h/x", "sluice.route=g"))},
			routes:   []string{"a g/", "a h/x"}},
		{name: "wide routes need a claim", rules: allRules(),
			services: []Service{service("a", instance("a", "a1", 1, "urlprefix-/x", "urlprefix-*.h/", "urlprefix-a*b/", "urlprefix-ok/"))},
			routes:   []string{"a ok/"},
			problems: []string{"a: without an exact host", "a: without an exact host", "a: without an exact host"}},
		{name: "a claim for everything", rules: claims(everything),
			services: []Service{service("a", instance("a", "a1", 1, "urlprefix-/x", "urlprefix-*.h/", "urlprefix-a*b/"))},
			routes:   []string{"a *.h/", "a /x", `a ^a.*b$/`}},
		{name: "claims by name", rules: claims(config.Claim{Service: "team-*", Hosts: []string{"{service}.example.com", "*.t.example.com"}}),
			services: []Service{
				service("team-a", instance("team-a", "1", 1, "urlprefix-TEAM-A.example.com/", "urlprefix-x.t.example.com/", "urlprefix-*.t.example.com/", "urlprefix-t.example.com/", "urlprefix-/")),
				service("other", instance("other", "2", 1, "urlprefix-other.example.com/")),
			},
			routes:   []string{"team-a *.t.example.com/", "team-a team-a.example.com/", "team-a x.t.example.com/"},
			problems: []string{"other: no claim", "team-a: no claim", "team-a: no claim"}},
		{name: "claims with paths", rules: claims(config.Claim{Service: "a", Hosts: []string{"h"}, Paths: []string{"/a"}}),
			services: []Service{service("a", instance("a", "1", 1, "urlprefix-h/a/", "urlprefix-h/a", "urlprefix-h/ab", "sluice.route=h/a/b", "sluice.route=h/a/../b", "sluice.route=h/a.* match=regexp"))},
			routes:   []string{"a h/a/", "a h/a/b"}, problems: []string{"a: path", "a: no claim", "a: no claim", "a: no claim"}},
		{name: "a host of the file", rules: reserved,
			services: []Service{service("a", instance("a", "1", 1, "urlprefix-FILE.example.com/x", "urlprefix-h/"))},
			routes:   []string{"a h/"}, problems: []string{"a: operator's own routes"}},
		{name: "a host of the file, in another spelling", rules: reserved,
			services: []Service{service("a", instance("a", "1", 1, "sluice.route=FILE.example.com./x", "sluice.route=FILE.Example.com/y", "sluice.route=file.example.com./z"))},
			problems: []string{"a: operator's own routes", "a: operator's own routes", "a: operator's own routes"}},
		{name: "a host of the file, with a claim that names it",
			rules: Rules{AllListeners: true, Reserved: reserved.Reserved, Claims: []config.Claim{
				everything, {Service: "a", Hosts: []string{"file.example.com"}}, {Service: "b", Hosts: []string{"*.example.com"}}}},
			services: []Service{
				service("a", instance("a", "1", 1, "urlprefix-file.example.com/a")), service("b", instance("b", "2", 1, "urlprefix-file.example.com/b")),
				service("c", instance("c", "3", 1, "urlprefix-file.example.com/c", "urlprefix-other.example.com/")),
			},
			routes:   []string{"a file.example.com/a", "b file.example.com/b", "c other.example.com/"},
			problems: []string{"c: operator's own routes"}},
		{name: "a pattern that is no prefix", rules: claims(config.Claim{Service: "a", Hosts: []string{"h"}, Paths: []string{"/a"}}),
			services: []Service{service("a", instance("a", "1", 1, "traefik.enable=true", "traefik.http.routers.r.rule=Host(`h`) && PathRegexp(`/a/x`)"))},
			problems: []string{"a: no claim"}},
		{name: "the highest of several priorities",
			rules: claims(config.Claim{Service: "a", Hosts: []string{"h"}, Priority: 5}, config.Claim{Service: "a", Hosts: []string{"h"}, Priority: 7},
				config.Claim{Service: "a", Hosts: []string{"h"}, Priority: 6}, config.Claim{Service: "b", Hosts: []string{"h"}, Priority: 9}),
			services: []Service{service("a", instance("a", "1", 1, "sluice.route=h/a priority=7"))},
			routes:   []string{"a h/a priority=7"}},
		{name: "settings of a service of the file do not count", rules: Rules{AllListeners: true, Defined: map[string]bool{"a": true}},
			services: []Service{service("a", instance("a", "1", 1, "urlprefix-h/ proto=https"), instance("a", "2", 1, "urlprefix-h/ proto=https"), instance("a", "3", 1, "urlprefix-g/"))},
			routes:   []string{`a g/ ["urlprefix-g/"]`, `a h/ ["urlprefix-h/ proto=https"]`}},
		{name: "a service with groups of the file", rules: Rules{AllListeners: true, HasGroups: map[string]bool{"a": true}},
			services: []Service{service("a", instance("a", "1", 1, "urlprefix-h/"), instance("a", "2", 1))},
			routes:   []string{"a h/"}, problems: []string{"a: it has groups of its own"}},
		{name: "a route of the file", rules: Rules{AllListeners: true, Claims: []config.Claim{everything}, Taken: map[string]string{"/x": "sluice.yaml:3"}},
			services: []Service{service("a", instance("a", "1", 1, "sluice.route=/x", "sluice.route=/y"))},
			routes:   []string{"a /y"}, problems: []string{"a: for the same requests: sluice.yaml:3"}},
		{name: "priorities", rules: claims(config.Claim{Service: "a", Hosts: []string{"h"}, Priority: 5}),
			services: []Service{service("a", instance("a", "1", 1, "sluice.route=h/a priority=9", "sluice.route=h/b priority=-9"))},
			routes:   []string{"a h/a priority=5", "a h/b priority=-9"}, problems: []string{"a: priorities up to 5"}},
		{name: "listeners", rules: limited,
			services: []Service{service("a", instance("a", "1", 1, "sluice.route=h/a", "sluice.route=h/b listener=internal", "sluice.route=h/c listener=web", "sluice.route=h/d listeners=web,internal"))},
			routes:   []string{"a h/a at [internal]", "a h/b at [internal]", "a h/d at [internal]"},
			problems: []string{"a: no listener", "a: no listener"}},
		{name: "two services: the smaller name", rules: allRules(),
			services: []Service{service("b", instance("b", "b1", 1, "urlprefix-h/")), service("a", instance("a", "a1", 1, "sluice.route=H."))},
			routes:   []string{"a H./"}, problems: []string{"b: the service a has a route"}},
		{name: "two services: the holder", rules: allRules(), holders: map[string]string{"h/": "b"},
			services: []Service{service("b", instance("b", "b1", 1, "urlprefix-h/")), service("a", instance("a", "a1", 9, "urlprefix-h/"))},
			routes:   []string{"b h/"}, problems: []string{"a: the service b has a route"}},
		{name: "one route in two dialects", rules: allRules(),
			services: []Service{service("a", instance("a", "1", 1, "urlprefix-h/", "sluice.route=h/"))},
			routes:   []string{"a h/"}},
		{name: "one route with other options", rules: allRules(),
			services: []Service{service("a", instance("a", "1", 1, "urlprefix-h/ strip=/x", "sluice.route=h/"))},
			routes:   []string{"a h/"}, problems: []string{"a: another tag of the instance"}},
		{name: "one route in two dialects, one of them with a list of clients", rules: allRules(), services: []Service{
			service("a", instance("a", "1", 1, "sluice.route=h/", "urlprefix-h/ allow=ip:10.0.0.0/8")),
			service("b", instance("b", "1", 1, "sluice.route=g/", "sluice.route=g/ allow=10.0.0.0/8", "sluice.route=g/ deny=10.0.0.1")),
		},
			routes:   []string{"a h/ restricted", "b g/ restricted"},
			problems: []string{"a: another tag of the instance", "b: another tag of the instance", "b: another tag of the instance"}},
		{name: "a release: the old options", rules: allRules(),
			services: []Service{service("a", instance("a", "1", 7, "urlprefix-h/x strip=/x"), instance("a", "2", 8, "urlprefix-h/x"), instance("a", "3", 9, "urlprefix-h/x"))},
			routes:   []string{`a h/x strip=/x ["urlprefix-h/x strip=/x"]`}, problems: []string{"a: an older instance"}},
		{name: "a release: the new options, where no old instance is usable", rules: allRules(),
			services: []Service{service("a", instance("a", "1", 0, "urlprefix-h/x strip=/x"), instance("a", "3", 1, "urlprefix-h/x"))},
			routes:   []string{`a h/x ["urlprefix-h/x"]`}, problems: []string{"a: an older instance"}},
		{name: "a release: the new options, where the old instances are on probation", rules: allRules(),
			services: []Service{service("a", lost(instance("a", "1", 5, "urlprefix-h/x strip=/x")), instance("a", "3", 6, "urlprefix-h/x"))},
			routes:   []string{`a h/x ["urlprefix-h/x"]`}, problems: []string{"a: an older instance"}},
		{name: "a release: the old options, where all are on probation", rules: allRules(),
			services: []Service{service("a", lost(instance("a", "1", 5, "urlprefix-h/x strip=/x")), lost(instance("a", "3", 6, "urlprefix-h/x")))},
			routes:   []string{`a h/x strip=/x ["urlprefix-h/x strip=/x"]`}, problems: []string{"a: an older instance"}},
		{name: "a release: the old options, where no instance is usable", rules: allRules(),
			services: []Service{service("a", unusable(instance("a", "1", 5, "urlprefix-h/x strip=/x")), unusable(instance("a", "3", 6, "urlprefix-h/x")))},
			routes:   []string{`a h/x strip=/x ["urlprefix-h/x strip=/x"]`}, problems: []string{"a: an older instance"}},
		{name: "a release: a new route", rules: allRules(),
			services: []Service{service("a", instance("a", "1", 1, "urlprefix-h/x"), instance("a", "2", 1, "urlprefix-h/x", "urlprefix-h/y"), instance("a", "3", 1))},
			routes:   []string{`a h/x ["urlprefix-h/x" "urlprefix-h/y"]`, `a h/y ["urlprefix-h/x" "urlprefix-h/y"]`}},
		{name: "another protocol", rules: allRules(),
			services: []Service{service("a", instance("a", "1", 1, "urlprefix-h/ proto=https"), instance("a", "3", 2, "urlprefix-h/", "urlprefix-g/"), instance("a", "4", 3, "urlprefix-h/", "urlprefix-g/"))},
			routes:   []string{`a h/ ["urlprefix-h/ proto=https"]`}, problems: []string{"a: other settings", "a: other settings"}},
		{name: "another protocol, and a list of clients", rules: allRules(),
			services: []Service{service("a", instance("a", "1", 1, "urlprefix-h/ proto=https", "urlprefix-h/x proto=https allow=ip:10.0.0.0/8"),
				instance("a", "3", 2, "urlprefix-h/", "urlprefix-h/x allow=ip:10.0.0.0/8", "urlprefix-h/y allow=ip:10.0.0.0/8"))},
			routes: []string{`a h/ ["urlprefix-h/ proto=https" "urlprefix-h/x proto=https allow=ip:10.0.0.0/8"]`,
				`a h/x restricted ["urlprefix-h/ proto=https" "urlprefix-h/x proto=https allow=ip:10.0.0.0/8"]`,
				`a h/y denies restricted ["urlprefix-h/" "urlprefix-h/x allow=ip:10.0.0.0/8" "urlprefix-h/y allow=ip:10.0.0.0/8"]`},
			problems: []string{"a: denies every request", "a: denies every request", "a: other settings", "a: an older instance"}},
		{name: "insecure", rules: allRules(),
			services: []Service{service("a", instance("a", "1", 1, "urlprefix-h/ proto=https tlsskipverify=true"))},
			problems: []string{"a: catalog.insecure"}},
		{name: "a key that no route has", rules: allRules(),
			services: []Service{service("a", instance("a", "1", 1, "sluice.route=h/ colour=red", "sluice.route=h/b"))},
			routes:   []string{"a h/b"}, problems: []string{"a: colour: unknown key"}},
		{name: "two dialects with other settings", rules: allRules(),
			services: []Service{service("a", instance("a", "1", 1, "sluice.upstream=protocol=h2c", "sluice.route=h/a", "urlprefix-h/b proto=https"))},
			routes:   []string{"a h/a", "a h/b"},
			problems: []string{"a: tags of two dialects ask for another upstream: the first one counts"}},
		{name: "a misspelled key that restricts", rules: allRules(),
			services: []Service{service("a", instance("a", "1", 1, "sluice.route=h/a alow=10.0.0.0/8", "sluice.route=h/b fowardauth.address=http://x/", "sluice.route=h/c strp=/c", "sluice.route=h/"))},
			routes:   []string{"a h/", "a h/a denies restricted", "a h/b denies restricted"},
			problems: []string{`a: alow: unknown key, did you mean "allow"?`, `a: did you mean "forward_auth"?`, `a: did you mean "strip"?`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := Resolve(test.services, test.rules, test.holders)
			got := lines(r)
			verify.That(t, slices.Equal(got, test.routes), "the routes are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.routes, "\n"))
			slices.SortStableFunc(r.Problems, func(a, b Problem) int { return strings.Compare(a.Service, b.Service) })
			verify.Require(t, len(r.Problems) == len(test.problems), "the problems are %+v, want %q", r.Problems, test.problems)
			for i, p := range r.Problems {
				name, reason, _ := strings.Cut(test.problems[i], ": ")
				verify.That(t, p.Service == strings.TrimSuffix(name, ":") && strings.Contains(p.Reason, reason) && len(p.Instances) > 0,
					"the problem is %+v, want %s", p, test.problems[i])
			}
		})
	}
}

// TestOldestServesUntilNobodyAsks rolls a service over to other options, one instance after the
// other, in place and by replacement: the options change once, when the last old instance has gone.
func TestOldestServesUntilNobodyAsks(t *testing.T) {
	const seed = 3
	random := rand.New(rand.NewPCG(seed, seed))
	for range 100 {
		var instances []Instance
		next, size := uint64(1), 1+random.IntN(6)
		for ; len(instances) < size; next++ {
			instances = append(instances, instance("a", fmt.Sprint("old-", next), next, "urlprefix-h/ strip=/x proto=https"))
		}
		for _, at := range random.Perm(size) {
			random.Shuffle(len(instances), func(i, j int) { instances[i], instances[j] = instances[j], instances[i] })
			r := Resolve([]Service{service("a", instances...)}, allRules(), nil)
			verify.Require(t, len(r.Routes) == 1 && r.Routes[0].StripPrefix == "/x" && r.Settings["a"] != nil,
				"seed %d: an old instance asks, and the routes are %q", seed, lines(r))
			i := slices.IndexFunc(instances, func(i Instance) bool { return i.ID == fmt.Sprint("old-", at+1) })
			id := instances[i].ID
			if random.IntN(2) == 0 {
				id = fmt.Sprint("new-", next)
			}
			instances[i] = instance("a", id, next, "urlprefix-h/")
			next++
		}
		r := Resolve([]Service{service("a", instances...)}, allRules(), nil)
		upstream := r.Settings["a"]["upstream"]
		verify.Require(t, len(r.Routes) == 1 && r.Routes[0].StripPrefix == "" && len(r.Problems) == 0 && (upstream == nil || fmt.Sprint(upstream) == "{}"),
			"seed %d: all instances are new, and the routes are %q, the settings %v, the problems %+v", seed, lines(r), r.Settings, r.Problems)
	}
}

// The rules are the configuration's.
func TestNewRules(t *testing.T) {
	c := configtest.Must(t, `
listeners: [{ name: web, address: ":80" }, { name: internal, address: ":81" }, { name: db, address: ":82", protocol: tcp, service: z }, { name: tls, address: ":83", protocol: tcp, sni: [{ host: Git.example.com, service: z }], tls: { acme: { names: [git.example.com], email: ops@example.com, storage: /acme } } }]
catalog:
  tags: [fabio]
  listeners: [internal, db]
  insecure: true
  basic_auth: true
  forward_auth: ["http://auth/"]
  claims: [{ service: a, hosts: [h] }]
services: { x: { peers: ["127.0.0.1:1"], groups: { g: { tags: [g] } } }, y: { peers: ["127.0.0.1:1"], balance: { policy: sticky } }, z: { peers: ["127.0.0.1:1"] } }
routes: [{ host: H., path: /x/, service: x }, { path: /y, service: y }]
`)
	key := func(r config.Route) string {
		checked := verify.Result(route.Check(r.Target())).Must(t)
		return checked.Key
	}
	want := Rules{
		Claims: []config.Claim{{Service: "a", Hosts: []string{"h"}}}, Reserved: map[string]bool{"h": true}, Insecure: true, BasicAuth: true,
		ForwardAuth: []config.Location{units.NewLocation("http://auth/")}, Listeners: []string{"internal"}, Share: true,
		StreamListeners: []string{"db"}, StreamPorts: map[string][]string{"82": {"db"}}, EndsTLS: map[string]bool{"tls": true}, ReservedNames: map[string]bool{"git.example.com": true}, Config: c,
		Defined: map[string]bool{"x": true, "y": true, "z": true}, HasGroups: map[string]bool{"x": true, "y": false, "z": false},
		Requests: map[string]string{"y": "balance.policy sticky"}, Named: map[string]bool{"x": true, "y": true, "z": true},
		Taken: map[string]string{
			key(c.Routes[0]): "sluice.yaml:11", key(c.Routes[1]): "sluice.yaml:11",
			c.Listeners[2].StreamKeys()[0]: "the listener db", c.Listeners[3].StreamKeys()[0]: "the listener tls",
		},
	}
	rules := NewRules(c)
	verify.That(t, rules.Upstream != nil, "the rules do not check the upstream of tags")
	rules.Upstream = nil // functions are never equal
	verify.DeepEqual(t, rules, want, "the rules")
}

// A route whose restriction is not understood exists, and denies every request.
func TestClosedRoutes(t *testing.T) {
	for _, tag := range []string{
		"urlprefix-h/admin allow=ip:localhost", "sluice.route=h/admin allow=localhost", "sluice.route=h/admin allow=10.0.0.0/8 colour=red",
	} {
		r := Resolve([]Service{service("a", instance("a", "1", 1, "urlprefix-h/", tag))}, allRules(), nil)
		verify.Require(t, len(r.Routes) == 2 && len(r.Problems) == 1 && !r.Problems[0].Harmless,
			"%s: the routes are %q, the problems %+v", tag, lines(r), r.Problems)
		admin := r.Routes[slices.IndexFunc(r.Routes, func(r Route) bool { return r.Path != "/" })]
		verify.That(t, admin.Path == "/admin" && fmt.Sprint(admin.Deny) == "[0.0.0.0/0 ::/0]" && admin.StripPrefix == "", "%s: the route is open: %+v", tag, admin)
	}
}

// What asks for the same requests is told with both sides, and each problem has its kind.
func TestAsks(t *testing.T) {
	rules := allRules()
	rules.Taken = map[string]string{"f/": "sluice.yaml:3"}
	rules.Claims = []config.Claim{{Service: "[ab]*", Hosts: []string{"h", "f"}}}
	on := func(i Instance, node string) Instance { i.Node = node; return i }
	r := Resolve([]Service{
		service("a", instance("a", "a2", 2, "urlprefix-h/ strip=/x"), on(instance("a", "a1", 1, "urlprefix-h/"), "m"), instance("a", "a1", 1, "urlprefix-h/"), instance("a", "a3", 1, "urlprefix-h/ weight=x")),
		service("b", instance("b", "b1", 1, "sluice.route=h/ timeout=1s"), instance("b", "b2", 1, "sluice.route=h/ timeout=1s")),
		service("b0", instance("b0", "b3", 1, "urlprefix-f/", "urlprefix-h:x:y/")),
		service("c", instance("c", "c1", 1, "urlprefix-h/")),
	}, rules, nil)
	named := func(list ...string) (all []Named) {
		for _, id := range list {
			all = append(all, Named{id, "n"})
		}
		return all
	}
	usual := Ask{"a", []Named{{"a1", "m"}, {"a1", "n"}, {"a3", "n"}}, "fabio", "urlprefix-h/"}
	other := Ask{"a", named("a2"), "fabio", "urlprefix-h/ strip=/x"}
	lost := Ask{"b", named("b1", "b2"), "sluice", "sluice.route=h/ timeout=1s"}
	verify.Require(t, len(r.Routes) == 1, "the routes are %q", lines(r))
	got := r.Routes[0]
	verify.That(t, got.Key != "", "the route has no key: %+v", got)
	verify.DeepEqual(t, got.By, usual, "who has the route")
	verify.DeepEqual(t, got.Over, []Ask{other, lost}, "over whom")
	verify.Slices(t, got.By.IDs(), []string{"a1", "a3"}, "the ids")
	type brief struct {
		tag, wanted string
		kind        Kind
		winner      *Ask
	}
	want := map[brief]bool{
		{"urlprefix-h/ weight=x", "", KindBad, nil}:                false,
		{"urlprefix-h/ strip=/x", "h/", KindDifferent, &usual}:     false,
		{"urlprefix-h:x:y/", "", KindBad, nil}:                     false,
		{"sluice.route=h/ timeout=1s", "h/", KindConflict, &usual}: false,
		{"urlprefix-f/", "f/", KindConflict, nil}:                  false,
		{"urlprefix-h/", "h/", KindRefused, nil}:                   false,
	}
	for _, p := range r.Problems {
		b := brief{tag: p.Tag, kind: p.Kind}
		if p.Wanted != nil {
			b.wanted = p.Wanted.Host + p.Wanted.Path
			verify.That(t, p.Wanted.Service == p.Service, "what %s wants is of %s", p.Service, p.Wanted.Service)
		}
		if p.Winner != nil && reflect.DeepEqual(*p.Winner, usual) {
			b.winner = &usual
		}
		seen, ok := want[b]
		verify.That(t, ok && !seen, "another problem: %+v", p)
		want[b] = true
	}
	for b, seen := range want {
		verify.That(t, seen, "no problem of the kind %s about %s", b.kind, b.tag)
	}
}

// A tag makes sluice ask no URL that the operator has not named.
func TestForwardAuth(t *testing.T) {
	for url, allowed := range map[string]bool{
		"http://auth/verify": true, "http://auth/verify?x=y": false, "http://auth/": false, "http://127.0.0.1:8500/v1/kv/x": false, "http://AUTH/verify": false,
	} {
		rules := allRules()
		rules.ForwardAuth = []config.Location{units.NewLocation("http://other/"), units.NewLocation("http://auth/verify")}
		for _, tags := range [][]string{
			{"sluice.route=h/ strip=/x forward_auth.url=" + url},
			{"traefik.enable=true", "traefik.http.routers.r.rule=Host(`h`)", "traefik.http.routers.r.middlewares=m", "traefik.http.middlewares.m.forwardauth.address=" + url},
		} {
			r := Resolve([]Service{service("a", instance("a", "1", 1, tags...))}, rules, nil)
			verify.Require(t, len(r.Routes) == 1, "%s: the routes are %q, the problems %+v", url, lines(r), r.Problems)
			asks, denies := r.Routes[0].ForwardAuth != nil, fmt.Sprint(r.Routes[0].Deny) == "[0.0.0.0/0 ::/0]"
			verify.That(t, asks == allowed && denies != allowed, "%q: the server is asked: %t, every request is denied: %t; want the first to be %t", tags, asks, denies, allowed)
			refused := slices.ContainsFunc(r.Problems, func(p Problem) bool {
				return p.Kind == KindRefused && !p.Harmless && strings.Contains(p.Reason, "catalog.forward_auth")
			})
			verify.That(t, refused != allowed, "%q: the problems are %+v", tags, r.Problems)
		}
	}
}

// Users in tags count only if the file allows it: all who read the registry can try their
// passwords. Without it the route is closed, and so it is where they cannot be read.
func TestBasicAuth(t *testing.T) {
	const ann, slow = "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "ann:$2y$13$6N21KD3VTzF.JZ18AyPfTuYIryLDwNADkL2QPAJWvBqw3AWRCSFPK"
	for _, test := range []struct {
		users                string
		allowed, asks, wants bool
	}{{ann, true, true, false}, {ann, false, false, true}, {"ann:secret", true, false, false}, {slow, true, false, false}} {
		rules := allRules()
		rules.BasicAuth = test.allowed
		for _, tags := range [][]string{
			{"sluice.route=h/ strip=/x basic_auth.users=" + test.users},
			{"traefik.enable=true", "traefik.http.routers.r.rule=Host(`h`)", "traefik.http.routers.r.middlewares=m", "traefik.http.middlewares.m.basicauth.users=" + test.users},
		} {
			r := Resolve([]Service{service("a", instance("a", "1", 1, tags...))}, rules, nil)
			verify.Require(t, len(r.Routes) == 1, "%q: the routes are %q, the problems %+v", tags, lines(r), r.Problems)
			asks, denies := r.Routes[0].BasicAuth != nil, fmt.Sprint(r.Routes[0].Deny) == "[0.0.0.0/0 ::/0]"
			verify.That(t, asks == test.asks && denies != test.asks, "%q: a password is asked for: %t, every request is denied: %t; want the first to be %t", tags, asks, denies, test.asks)
			wants := slices.ContainsFunc(r.Problems, func(p Problem) bool {
				return p.Kind == KindRefused && !p.Harmless && strings.Contains(p.Reason, "catalog.basic_auth: true")
			})
			verify.That(t, wants == test.wants && (len(r.Problems) == 0) == test.asks, "%q: the problems are %+v", tags, r.Problems)
			shows := slices.ContainsFunc(r.Problems, func(p Problem) bool { return strings.Contains(p.Reason, "secret") })
			verify.That(t, !shows, "%q: a reason shows the password: %+v", tags, r.Problems)
		}
	}
}

// A limit of all replicas that a tag asks for counts at each replica if nothing says who they are,
// and that is told.
func TestLimitsOfAllReplicas(t *testing.T) {
	for _, test := range []struct {
		scope          string
		replicas, told bool
	}{{"fleet", false, true}, {"fleet", true, false}, {"replica", false, false}} {
		rules, c := allRules(), new(config.Config)
		if test.replicas {
			c.Consul.Register = new(config.ConsulRegister)
		}
		rules.Replicas = NewRules(c).Replicas
		r := Resolve([]Service{service("a", instance("a", "1", 1, "sluice.route=h/ rate_limit.rate=1 rate_limit.scope="+test.scope))}, rules, nil)
		told := slices.ContainsFunc(r.Problems, func(p Problem) bool {
			return p.Kind == KindRefused && p.Harmless && strings.Contains(p.Reason, "consul.register")
		})
		verify.That(t, len(r.Routes) == 1 && told == test.told, "%+v: the routes are %q, the problems %+v", test, lines(r), r.Problems)
	}
}

// Conditions of Traefik's rules that no key of a route can say are in the route, and two routes
// that only they tell apart are two.
func TestNegations(t *testing.T) {
	rule := func(name, rule string) string { return "traefik.http.routers." + name + ".rule=" + rule }
	r := Resolve([]Service{service("a", instance("a", "1", 1, "traefik.enable=true",
		rule("x", "Host(`h`) && !PathPrefix(`/metrics`) && !Method(`PUT`) && !Header(`X-A`, `1`) && !PathRegexp(`x$`)"),
		rule("y", "Host(`h`) && PathRegexp(`^/a`) && PathRegexp(`b$`) && !Path(`/ab`)"),
		rule("z", "Host(`h`) && PathRegexp(`^/a`) && PathRegexp(`c$`)"),
	))}, allRules(), nil)
	var got []string
	for _, one := range r.Routes {
		target := one.Target()
		got = append(got, target.Path+" "+strings.Join(target.Requirements(), ", "))
	}
	slices.Sort(got)
	want := []string{
		`/ method is not PUT, header x-a is not "1", path is not /metrics* or ~x$`,
		"^/a path is ~b$, path is not /ab",
		"^/a path is ~c$",
	}
	verify.That(t, slices.Equal(got, want) && len(r.Problems) == 0, "the routes are\n%s\nwant\n%s\nwith the problems %+v", strings.Join(got, "\n"), strings.Join(want, "\n"), r.Problems)
}

// What a tag asks for is compiled once, also for several services: their routes are not the same.
func TestARouteIsCompiledOnce(t *testing.T) {
	c := configtest.Must(t, "catalog: { tags: [sluice] }\nservices: { a: { peers: ['127.0.0.1:1'] }, b: { peers: ['127.0.0.1:2'] } }")
	services := []Service{service("a", instance("a", "1", 1, "sluice.route=h/")), service("b", instance("b", "1", 1, "sluice.route=h/"))}
	rules := NewRules(c)
	var resolver Resolver
	var compiled []*route.Checked
	var merged []*config.Config
	for _, holder := range []string{"a", "b"} {
		r := resolver.Resolve(services, &rules, map[string]string{"h/": holder})
		m, conflicts := config.Merge(c, config.Addition{Routes: []config.Route{r.Routes[0].Route}})
		verify.Require(t, len(conflicts) == 0 && m.Routes[0].Service == holder, "the routes of %s: %+v, conflicts %v", holder, m.Routes, conflicts)
		compiled, merged = append(compiled, r.Routes[0].Target().Checked, m.Routes[0].Target().Checked), append(merged, m)
	}
	verify.That(t, compiled[0] != nil && len(slices.Compact(compiled)) == 1, "it is compiled again: %v", compiled)
	verify.That(t, !config.Equal(merged[0], merged[1]), "another service has the route, and the configurations are equal")
}

// TestResolveAgain changes services one by one: the result is a new resolver's.
func TestResolveAgain(t *testing.T) {
	const seed = 7
	random := rand.New(rand.NewPCG(seed, seed))
	rules := []*Rules{{AllListeners: true}, {AllListeners: true, Claims: []config.Claim{{Service: "s[0-2]", Hosts: []string{"*"}}}}}
	some := func(name string) Service {
		var instances []Instance
		for i := range 1 + random.IntN(3) {
			tags := []string{fmt.Sprintf("urlprefix-h%d/", random.IntN(4)), fmt.Sprintf("urlprefix-%s/ strip=/%d", name, random.IntN(2)), "urlprefix-x:y:z/"}
			instances = append(instances, instance(name, fmt.Sprintf("%s-%d", name, i), uint64(1+random.IntN(2)), tags...))
		}
		return service(name, instances...)
	}
	services := make([]Service, 5)
	for i := range services {
		services[i] = some(fmt.Sprintf("s%d", i))
	}
	var again Resolver
	holders := make(map[string]string)
	for round := range 300 {
		changed := random.IntN(len(services))
		services[changed] = some(services[changed].Name)
		used := rules[round/20%2]
		asked := slices.DeleteFunc(slices.Clone(services), func(Service) bool { return random.IntN(8) == 0 })
		got, want := again.Resolve(asked, used, holders), Resolve(asked, *used, holders)
		verify.Require(t, reflect.DeepEqual(got, want), "seed %d, round %d: the routes are\n%q\nof a new resolver\n%q",
			seed, round, lines(got), lines(want))
		holders = got.Holders
	}
}

// TestOrderHasNoEffect resolves the same services and instances in many orders.
func TestOrderHasNoEffect(t *testing.T) {
	var services []Service
	for s := range 4 {
		name := fmt.Sprintf("s%d", s)
		var instances []Instance
		for i := range 5 {
			tags := []string{"urlprefix-h/" + name, fmt.Sprintf("urlprefix-h/x strip=/%d", i%3), fmt.Sprintf("urlprefix-h%d/", (s+i)%3)}
			instances = append(instances, instance(name, fmt.Sprintf("%s-%d", name, i), 1, tags...))
		}
		services = append(services, service(name, instances...))
	}
	want := Resolve(services, allRules(), nil)
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		shuffled := slices.Clone(services)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for i := range shuffled {
			shuffled[i].Instances = slices.Clone(shuffled[i].Instances)
			random.Shuffle(len(shuffled[i].Instances), func(a, b int) {
				list := shuffled[i].Instances
				list[a], list[b] = list[b], list[a]
			})
		}
		got := Resolve(shuffled, allRules(), nil)
		verify.Require(t, reflect.DeepEqual(got.Routes, want.Routes) && reflect.DeepEqual(got.Groups, want.Groups) &&
			maps.Equal(got.Holders, want.Holders), "in another order\n%q\ninstead of\n%q", lines(got), lines(want))
	}
}
