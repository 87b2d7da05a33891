package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/balancer"
	"sluice/tags"
	"sluice/test/verify"
)

// servicesWith returns a file with defaults, and a service with settings of its own.
func servicesWith(defaults, service string) string {
	return "catalog: {}\n" + dynamicFile + "defaults: { service: {" + defaults + "} }\nservices: { file: { peers: ['127.0.0.1:1']" + service + " } }\nroutes: [{ service: file }]"
}

// settingsOf returns what c says of the settings of a service, beside those of the tables.
func settingsOf(s Service) string {
	changes := Diff(&Config{Services: map[string]Service{"s": {ServiceSettings: DefaultService().ServiceSettings}}}, &Config{Services: map[string]Service{"s": {ServiceSettings: s.ServiceSettings}}})
	var texts []string
	for _, c := range changes {
		texts = append(texts, strings.TrimPrefix(c.Key, "services.s.")+"="+c.After)
	}
	return strings.Join(texts, " ")
}

// A service says what differs from the defaults: of the file, of a document and of tags alike.
func TestDefaultsOfServices(t *testing.T) {
	for _, test := range []struct{ name, defaults, service, want string }{
		{"all", "timeouts: { idle: 7s }, health: { active: {} }", "", "health.active={type: http, interval: 2s, failing_interval: 1s, jitter: 0.1, timeout: 1s, unhealthy_threshold: 3, healthy_threshold: 2, must_pass_first: false, overrides_consul: false, port: 0, reuse_connections: false, method: GET, path: /, expect: {status: 200-299, within: 64KiB}} timeouts.idle=7s"},
		{"key by key", "timeouts: { connect: 2s, idle: 7s }, retry: { attempts: 1 }", "timeouts: { connect: 3s }", "retry.attempts=1 timeouts.connect=3s timeouts.idle=7s"},
		{"as built in", "timeouts: { connect: 2s }", "timeouts: { connect: 1s }", ""},
		{"null", "timeouts: { connect: 2s, idle: 7s }, health: { active: {} }, upstream: { tls: {} }", "timeouts: { connect: null }, health: { active: null }, upstream: null", "timeouts.idle=7s"},
		{"optional sections", "upstream: { tls: { server_name: a, skip_verify: true } }", "upstream: { tls: { skip_verify: false } }", "upstream.tls={server_name: a, skip_verify: false}"},
		{"a list as a whole", "balance: { policy: hash, hash: { keys: [path, client_address] } }", "balance: { hash: { keys: [path] } }", "balance.hash.keys=[path] balance.policy=hash"},
		{"keys of another policy", "balance: { policy: hash, hash: { keys: [path], bound: 2 } }", "balance: { policy: ewma }", "balance.hash.bound=2.0"},
		{"subsets of another policy", "balance: { subset: { size: 2, replicas: 3 } }", "balance: { policy: sticky }", "balance.policy=sticky"},
		{"keys of another check", "health: { active: { path: /up, interval: 9s, expect: { status: 2xx, text: ok } } }", "health: { active: { type: grpc } }",
			"health.active={type: grpc, interval: 9s, failing_interval: 1s, jitter: 0.1, timeout: 1s, unhealthy_threshold: 3, healthy_threshold: 2, must_pass_first: false, overrides_consul: false, port: 0, reuse_connections: false, method: GET, path: /, expect: {status: 200-299, within: 64KiB}}"},
	} {
		own := ""
		if test.service != "" {
			own = ", " + test.service
		}
		c := verify.Result(build(file(servicesWith(test.defaults, own)), files("a.yaml", "services: { files: { peers: ['127.0.0.1:2']"+own+" } }"),
			keys("a.yaml", "services: { document: { peers: ['127.0.0.1:3']"+own+" } }", "services/short", "127.0.0.1:4"))).Must(t).Config
		for _, name := range []string{"file", "files", "document"} {
			verify.Equal(t, settingsOf(c.Services[name]), test.want, "%s: the service %s has", test.name, name)
		}
		addition, _ := c.Found([]string{"star"}, "")
		verify.DeepEqual(t, addition.Services["star"].ServiceSettings, c.newService().ServiceSettings, "%s: a service in the catalog", test.name)
		verify.DeepEqual(t, c.Services["short"].ServiceSettings.Timeouts, c.newService().Timeouts, "%s: a service of a key", test.name)
		if test.service == "" {
			continue
		}
		var said tags.Keys
		verify.NoError(t, yaml.Unmarshal([]byte("{"+test.service+"}"), &said))
		if tagged, err := DecodeService(addition.Services["star"], said, c); err == nil { // else not for tags
			verify.Equal(t, settingsOf(tagged), test.want, "%s: a service with tags has", test.name)
		}
		verify.DeepEqual(t, addition.Services["star"].ServiceSettings, c.newService().ServiceSettings, "%s: a service without tags, after those of another one", test.name)
	}
	// The policy of connections is of its own, unless the defaults have one for them.
	for policy, want := range map[string]balancer.Policy{"round_robin": balancer.PolicyRoundRobin, "sticky": defaultStreamPolicy} {
		c := mustParse(t, "listeners: [{ address: ':1', protocol: tcp, service: s }]\ndefaults: { service: { balance: { policy: "+policy+" } } }\nservices: { s: { peers: ['127.0.0.1:1'] } }")
		verify.Equal(t, c.Services["s"].Balance.Policy, want, "the policy for TCP, with %s for all", policy)
	}
}

// merged returns what RFC 7396 says of a patch of a value.
func merged(value, patch any) any {
	to, mapping := value.(tags.Keys)
	from, patches := patch.(tags.Keys)
	if !mapping || !patches {
		return patch
	}
	to = maps.Clone(to)
	for key, v := range from {
		if known, ok := to[key]; ok {
			v = merged(known, v)
		}
		to[key] = v
	}
	return to
}

// Whatever the defaults and a service say, it is as if the service said all of it.
func TestDefaultsAreAsIfSaid(t *testing.T) {
	r := rand.New(rand.NewPCG(verify.Seed(t), 1))
	accepted := 0
	for range 4_000 {
		defaults, own := randomKeys(r, reflect.TypeFor[ServiceSettings](), 4).(tags.Keys), randomKeys(r, reflect.TypeFor[ServiceSettings](), 4).(tags.Keys)
		text := func(defaults, service any) string {
			service.(tags.Keys)["peers"] = []string{"127.0.0.1:1"}
			return string(verify.Result(json.Marshal(tags.Keys{
				"defaults": tags.Keys{"service": defaults}, "services": tags.Keys{"s": service}, "routes": []tags.Keys{{"service": "s"}},
			})).Must(t))
		}
		said, err := Parse("sluice.yaml", []byte(text(tags.Keys{}, merged(defaults, own))))
		if err != nil {
			continue
		}
		got, err := Parse("sluice.yaml", []byte(text(defaults, own)))
		if err != nil { // the defaults need a key of the service
			verify.That(t, strings.Contains(err.Error(), "defaults.service."), "%v: defaults %v, service %v", err, defaults, own)
			continue
		}
		verify.DeepEqual(t, got.Services["s"], said.Services["s"], "defaults %v, service %v", defaults, own)
		accepted++
	}
	verify.That(t, accepted > 100, "only %d of 4,000 are accepted", accepted)
}

func TestDefaultsOfRoutes(t *testing.T) {
	for _, test := range []struct{ name, defaults, route, file, other string }{
		{"all", "criticality: critical", "", `{"criticality":"critical"}`, ""},
		{"the route wins", "timeouts: { connect: 1s, idle: 2s }, strip_prefix: /x", "timeouts: { idle: 3s }", `{"strip_prefix":"/x","timeouts":{"idle":"3s"}}`, ""},
		{"named actions win", "use: [b], strip_prefix: /x", "use: [a]", `{"add_prefix":"/b","criticality":"critical","strip_prefix":"/a"}`, ""},
		{"headers by their names", "response_headers: { set: { X-A: a, X-B: b } }", "response_headers: { remove: [x-a] }", `{"response_headers":{"add":{},"remove":["x-a"],"set":{"X-B":"***"}}}`, ""},
		{"a restriction", "allow: [10.0.0.0/8]", "deny: [10.0.0.1]", `{"allow":["10.0.0.0/8"],"deny":["10.0.0.1"]}`, ""},
		{"two restrictions", "allow: [10.0.0.0/8], deny: [10.0.0.1], body_limit: 1KiB", "allow: [10.0.0.0/16, 192.0.2.1], deny: [10.0.0.2], body_limit: 2KiB",
			`{"allow":["10.0.0.0/16","192.0.2.1"],"body_limit":"2KiB","deny":["10.0.0.2"]}`, `{"allow":["10.0.0.0/16"],"body_limit":"1KiB","deny":["10.0.0.2","10.0.0.1"]}`},
		{"null", "allow: [10.0.0.0/8], compress: {}, body_limit: 1KiB", "allow: null, body_limit: null, compress: null", `null`,
			`{"allow":["10.0.0.0/8"],"body_limit":"1KiB","compress":{"encodings":["zstd","br","gzip"],`},
		{"of which one counts", "rate_limit: { rate: 1 }", "rate_limit: { rate: 2 }", `{"rate_limit":{"burst":2,"key":"client_address","per":"1s","rate":2,"scope":"replica"}}`,
			"rate_limit: the file has another one in defaults.route, and neither may be lost"},
		{"which exclude each other", "allow: [10.0.0.0/8]", "allow: [192.0.2.1]", `{"allow":["192.0.2.1"]}`, "allow: the file has another one in defaults.route, and neither may be lost"},
	} {
		text := dynamicFile + "actions: { a: { offered_to: [documents, tags], strip_prefix: /a, criticality: critical }, b: { add_prefix: /b } }\ndefaults: { route: {" + test.defaults + "} }\nservices: { s: { peers: ['127.0.0.1:1'] } }\n"
		shown := func(a Actions) string {
			var v any
			if raw := ActionsJSON(a); raw != nil {
				verify.NoError(t, json.Unmarshal(raw, &v))
			}
			return string(verify.Result(json.Marshal(v)).Must(t)) // sorted
		}
		route := "routes: [{ service: s, " + test.route + " }]"
		c := verify.Result(build(file(text + route))).Must(t).Config
		verify.Equal(t, shown(c.Routes[0].Actions), test.file, "%s: a route of the file", test.name)
		c = verify.Result(build(file(text), files("a.yaml", route))).Must(t).Config
		verify.Equal(t, shown(c.Routes[0].Actions), test.file, "%s: a route of a file", test.name)
		if test.other == "" {
			test.other = test.file
		}
		var said tags.Keys
		verify.NoError(t, yaml.Unmarshal([]byte("{"+test.route+"}"), &said))
		maps.DeleteFunc(said, func(_ string, v any) bool { return v == nil })
		tagged, tagErr := DecodeRoute(said, ByTag, c)
		b, err := build(file(text), keys("a.yaml", route))
		if err != nil || tagErr != nil {
			verify.That(t, err != nil && err.Error() == "consul_kv:sluice/a.yaml:1: routes[0]."+test.other, "%s: a document: %v", test.name, err)
			verify.That(t, tagErr != nil && tagErr.Error() == test.other, "%s: a tag: %v", test.name, tagErr)
			continue
		}
		for by, a := range map[string]Actions{"document": b.Config.Routes[0].Actions, "tag": tagged.Actions} {
			verify.That(t, strings.HasPrefix(shown(a), test.other), "%s: a route of a %s\ngot  %s\nwant %s", test.name, by, shown(a), test.other)
		}
	}
}

func TestErrorsOfDefaults(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"a key", "defaults: { servce: {} }" + tail, `sluice.yaml:1: defaults.servce: unknown key, did you mean "service"? (allowed here: service, route)`},
		{"a key of a service", "defaults: { service: { timeout: {} } }" + tail, `sluice.yaml:1: defaults.service.timeout: unknown key, did you mean "timeouts"? (allowed here: balance, timeouts, keepalive, upstream, retry, limits, wait_for_peer, drain, proxy_protocol, health)`},
		{"a source", "defaults: { service: { consul: { cached: true } } }" + tail, `sluice.yaml:1: defaults.service.consul: unknown key (allowed here: balance, timeouts, keepalive, upstream, retry, limits, wait_for_peer, drain, proxy_protocol, health)`},
		{"what is wrong is told once", "defaults:\n  service:\n    health: { passive: { ejection: 9m }, active: { type: tcp, path: /x } }\n    retry: { attempts: 9 }\nservices: { a: { consul: {} }, b: { consul: {} } }\nroutes: [{ service: a }]",
			"sluice.yaml:3: defaults.service.health.active.path: allowed only with type http, and the type is tcp\n" +
				"sluice.yaml:3: defaults.service.health.passive.max_ejection: value \"5m\": want at least defaults.service.health.passive.ejection, which is 9m\n" +
				"sluice.yaml:4: defaults.service.retry.attempts: value \"9\": want a whole number from 1 to 5"},
		{"a service and the defaults", "defaults:\n  service: { health: { passive: { max_ejection: '${MOST}' } } }\nservices:\n  a.b:\n    peers: ['127.0.0.1:1']\n    health: { passive: { ejection: 2h } }\nroutes: [{ service: a.b }]",
			"sluice.yaml:6: services.a.b.health.passive.max_ejection: want at least services.a.b.health.passive.ejection, which is 2h (the value is from sluice.yaml:2)"},
		{"the mesh", "catalog: { connect: true }\ndefaults: { service: { upstream: { tls: {} } } }", "sluice.yaml:2: defaults.service.upstream.tls: not with consul.connect: the mesh has certificates of its own"},
		{"another check", "defaults: { service: { health: { active: { type: tcp } } } }\nservices: { a: { consul: {}, health: { active: { path: /up } } } }\nroutes: [{ service: a }]",
			"sluice.yaml:2: services.a.health.active.path: allowed only with type http, and the type is tcp"},
		{"a route", "defaults: { route: { path: /x } }" + tail, "sluice.yaml:1: defaults.route.path: unknown key"},
		{"named actions", "actions: { secure: {} }\ndefaults: { route: { use: [secur] } }" + tail, `sluice.yaml:2: defaults.route.use[0]: value "secur": the file has no actions with this name, did you mean "secure"? (known: secure)`},
		{"an action", "defaults: { route: { host_header: 'a b', rate_limit: { rate: 1, scope: fleet } } }" + tail, `sluice.yaml:1: defaults.route.host_header: value "a b": want "peer", or HOST or HOST:PORT, an IPv6 address in brackets` +
			"\nsluice.yaml:1: defaults.route.rate_limit.scope: value \"fleet\": needs consul.register, which says who is a replica: want that section, or replica"},
		{"a file", "defaults: { route: { basic_auth: { users_file: /nowhere/users } } }" + tail,
			`sluice.yaml:1: defaults.route.basic_auth.users_file: value "/nowhere/users": cannot be used: users: open /nowhere/users: no such file or directory`},
		{"a document", dynamicFile, "consul_kv:sluice/a.yaml:1: defaults: only in the configuration file (allowed here: services, routes)"},
	} {
		_, err := buildIn(test.text, environ("MOST", "1h"), keys("a.yaml", "defaults: {}"))
		verify.Require(t, err != nil, "%s: no error", test.name)
		verify.That(t, strings.HasPrefix(err.Error(), test.want) && (strings.Contains(test.want, "unknown key") || err.Error() == test.want), "%s:\n got  %v\n want %s", test.name, err, test.want)
	}
}

// A document is told which value of the file it contradicts, and not that of a variable.
func TestErrorsOfDocumentsWithDefaults(t *testing.T) {
	var documents, want []string
	for _, name := range []string{"a", "b", "c"} {
		documents = append(documents, name+".yaml", "services:\n  "+name+": { peers: ['127.0.0.1:1'], health: { passive: { ejection: 2h } } }")
		want = append(want, "consul_kv:sluice/"+name+".yaml:2: services."+name+".health.passive.max_ejection: want at least services."+name+".health.passive.ejection, which is 2h (the value is from sluice.yaml:2)")
	}
	_, err := buildIn(dynamicFile+"defaults: { service: { health: { passive: { max_ejection: '${MOST}' } } } }", environ("MOST", "1h"), keys(documents...))
	diffLines(t, err, want)
}

// A document that has not changed has the defaults of now.
func TestDefaultsChangeUnderDocuments(t *testing.T) {
	in := Input{File: "sluice.yaml", Decoded: new(Decoded)}
	for _, idle := range []string{"7s", "8s", "8s", "7s"} {
		text := "defaults: { service: { timeouts: { idle: " + idle + " } }, route: { add_prefix: /" + idle + " } }\n" + dynamicFile
		c := verify.Result(in.Build([]Source{file(text), keys("a.yaml", "services: { a: { peers: ['127.0.0.1:1'] } }\nroutes: [{ service: a }]")})).Must(t).Config
		verify.Equal(t, c.Services["a"].Timeouts.Idle.String()+" "+c.Routes[0].AddPrefix, idle+" /"+idle, "the service and the route have")
	}
}

// A variable of the defaults is shown as such, where it counts.
func TestVariablesOfDefaultsAreNotShown(t *testing.T) {
	c := verify.Result(buildIn(`
catalog: {}
defaults: { service: { balance: { sticky: { cookie: "${TOKEN}", domain: "${TOKEN}" } } }, route: { direct_response: { body: "${TOKEN}" } } }
services:
  a: { peers: ["127.0.0.1:1"], balance: { sticky: { cookie: own } } }
  b: { peers: ["127.0.0.1:1"], balance: { sticky: null }, timeouts: { idle: "${IDLE}" } }
routes: [{ path: /a, service: a }, { path: /b, service: b, direct_response: { status: 201 } }]
`, environ("TOKEN", "s3cret", "IDLE", "7s"))).Must(t)
	addition, _ := c.Found([]string{"star"}, "")
	all, _ := Merge(c, addition)
	shown := string(verify.Result(json.Marshal(all)).Must(t))
	verify.That(t, !strings.Contains(shown, "s3cret"), "shown: %s", shown)
	var values struct {
		Services map[string]struct {
			Balance struct {
				Sticky struct{ Cookie, Domain string }
			}
			Timeouts struct{ Idle string }
		}
	}
	verify.NoError(t, json.Unmarshal([]byte(shown), &values))
	for name, want := range map[string]string{"a": "own ${TOKEN} 1m", "b": "sluice_peer  ${IDLE}", "star": "${TOKEN} ${TOKEN} 1m"} {
		s := values.Services[name]
		verify.Equal(t, s.Balance.Sticky.Cookie+" "+s.Balance.Sticky.Domain+" "+s.Timeouts.Idle, want, "the service %s is shown as", name)
	}
}

func TestValuesSayWhereTheyAreFrom(t *testing.T) {
	b := verify.Result(Input{File: "sluice.yaml", Getenv: environ("TOKEN", "s3cret"), Consul: "http://127.0.0.1:8501"}.Build([]Source{file(`consul: { consistency: stale }
catalog: { tags: [sluice] }
defaults:
  service:
    timeouts: { idle: 7s, connect: 2s }
    health: { active: { path: "/${TOKEN}" } }
  route: { use: [common], criticality: critical }
actions: { common: { add_prefix: /common }, a: { use: [b], offered_to: [tags] }, b: { strip_prefix: /b, allow: [10.0.0.0/8] } }
services:
  a: { consul: {}, timeouts: { connect: 3s, tunnel: null }, health: { active: null } }
routes:
  - { service: a, use: [a] }
  - { path: /other, service: z }
dynamic: [{ consul_kv: { prefix: sluice } }]
`), keys("x.yaml", "services: { z: { peers: ['127.0.0.1:1'] } }\nroutes:\n- { path: /x, service: a, criticality: normal }")})).Must(t)
	tagged := verify.Result(DecodeRoute(tags.Keys{"host": "t", "use": []string{"a"}, "add_prefix": "/t"}, ByTag, b.Config)).Must(t)
	tagged.Service, tagged.Dialect, tagged.Origin = "star", DialectSluice, "tag sluice.route=t of star-1"
	star, _ := b.Config.Found([]string{"star"}, "")
	with := verify.Result(DecodeService(star.Services["star"], tags.Keys{"health": tags.Keys{"active": tags.Keys{"interval": "9s"}}}, b.Config)).Must(t)
	star.Services["star"], star.Routes = with, []Route{tagged}
	running, conflicts := Merge(b.Config, star)
	verify.Equal(t, len(conflicts), 0, "conflicts")
	for _, test := range []struct {
		service string
		running *Config
		want    []string
	}{
		{"", nil, []string{
			"consul.addresses = [http://127.0.0.1:8501] of --consul", "consul.consistency = stale of sluice.yaml:1", "log.level = info of built in",
			"services.z.timeouts.idle = 7s of sluice.yaml:5 (defaults)", "services.z.peers = [127.0.0.1:1] of consul_kv:sluice/x.yaml:1",
			"routes[2].path = /x of consul_kv:sluice/x.yaml:3", "routes[2].criticality = normal of consul_kv:sluice/x.yaml:3",
		}},
		{"a", nil, []string{
			"services.a.timeouts.connect = 3s of sluice.yaml:10", "services.a.timeouts.idle = 7s of sluice.yaml:5 (defaults)",
			"services.a.timeouts.tunnel = 1h of sluice.yaml:10", "services.a.timeouts.response_header = 30s of built in",
			"services.a.consul.consistency = stale of sluice.yaml:1 (consul.consistency)", "services.a.consul.service = a of built in",
			"routes[0].strip_prefix = /b of sluice.yaml:8 (actions.b)", "routes[0].add_prefix = /common of sluice.yaml:8 (actions.common)",
			"routes[0].criticality = critical of sluice.yaml:7 (defaults)", "routes[0].path = / of built in", "routes[0].service = a of sluice.yaml:12",
		}},
		{"moon", nil, []string{"services.moon.health.active.path = /${TOKEN} of sluice.yaml:6 (defaults)", "services.moon.consul.service = moon of Consul's catalog"}},
		{"star", running, []string{
			"services.star.health.active.interval = 9s of tags", "services.star.timeouts.idle = 7s of sluice.yaml:5 (defaults)",
			"services.star.consul.service = star of Consul's catalog", "services.star.health.active.timeout = 1s of built in",
			"routes[3].host = t of tag sluice.route=t of star-1", "routes[3].add_prefix = /t of tag sluice.route=t of star-1",
			"routes[3].strip_prefix = /b of sluice.yaml:8 (actions.b)", "routes[3].criticality = critical of sluice.yaml:7 (defaults)", "routes[3].priority = 0 of built in",
		}},
	} {
		got := make(map[string]bool)
		for _, v := range verify.Result(b.Values(test.service, test.running)).Must(t) {
			got[fmt.Sprintf("%s = %s of %s", v.Key, v.Value, v.From)] = true
			verify.That(t, !strings.Contains(v.Value, "s3cret"), "%s is shown", v.Key)
		}
		for _, want := range test.want {
			verify.That(t, got[want], "service %q: no value %s", test.service, want)
		}
	}
	_, err := b.Values("stra", running)
	verify.That(t, err != nil && err.Error() == `no service has the name "stra", did you mean "star"?`, "another service: %v", err)
}
