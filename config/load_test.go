package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"sluice/balancer"
)

// tail makes a document complete, so that a test shows one thing only.
const tail = `
services: { star: { consul: {} } }
routes: [{ service: star }]
`

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("sluice.yaml", []byte(text))
	if err != nil {
		t.Fatalf("Parse: %v\n%s", err, text)
	}
	return c
}

// Settings of a service that sets none.
var (
	defaultBalance = Balance{
		Policy: "ewma", Hash: Hash{Bound: 1.25},
		Sticky:           Sticky{Cookie: "sluice_peer", Path: "/", SameSite: "lax"},
		Overprovisioning: 1.4,
		Subset:           Subset{Replica: -1},
	}
	defaultRetry  = Retry{Attempts: 2, Body: 64 << 10, Budget: 0.2, MinPerSecond: 10}
	defaultLimits = Limits{Pending: 1024}
	defaultHealth = ServiceHealth{Passive: Passive{
		ConsecutiveFailures: 5, Interval: 10 * time.Second,
		Ejection: 10 * time.Second, MaxEjection: 5 * time.Minute, MaxEjected: 0.5,
	}, SlowStartAggression: 1, SlowStartMin: 0.1, PanicThreshold: 0.5}
)

func TestParseFillsDefaults(t *testing.T) {
	got := mustParse(t, tail)
	want := &Config{
		Log:       Log{Level: "info", Format: "json"},
		AccessLog: AccessLog{Path: "stdout", Format: "json", Sample: 1},
		Admin:     Admin{Address: "127.0.0.1:8081"},
		Listeners: []Listener{{Name: "web", Address: ":8080"}},
		Client: Client{
			Timeouts: ClientTimeouts{Head: 10 * time.Second, Body: 30 * time.Second, Write: time.Minute, Idle: 75 * time.Second},
			Limits:   ClientLimits{Target: 8 << 10},
		},
		Consul: Consul{
			Addresses: []string{"http://127.0.0.1:8500"},
			Wait:      time.Minute, Consistency: "default", MaxWatches: 128, EmptyHold: 30 * time.Second, SnapshotMaxAge: 24 * time.Hour,
			Debounce: Debounce{Quiet: 100 * time.Millisecond, MaxWait: time.Second},
		},
		Services: map[string]Service{"star": {
			Consul:    &ConsulService{Service: "star", Poll: 5 * time.Second, MinHealthy: 1, Consistency: "default", EmptyHold: new(30 * time.Second), KeepAnswering: new(time.Duration(0))},
			Balance:   defaultBalance,
			Timeouts:  Timeouts{Connect: time.Second, ResponseHeader: 30 * time.Second, Idle: time.Minute, Tunnel: time.Hour},
			Keepalive: Keepalive{Idle: 4 * time.Second, Max: 512},
			Retry:     defaultRetry,
			Limits:    defaultLimits,
			Drain:     Drain{Timeout: 30 * time.Second},
			Health:    defaultHealth,
		}},
		Routes:   []Route{{Path: "/", Service: "star"}},
		Shutdown: Shutdown{Idle: time.Second, Grace: 30 * time.Second},
		Health:   Health{MaxChecks: 256},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseReadsEveryKey(t *testing.T) {
	got := mustParse(t, `
log: { level: debug, format: console }
access_log: { path: /var/log/sluice/access.log, format: combined, sample: 5% }
admin: { address: "0.0.0.0:9000", token_file: /run/secrets/admin }
listeners:
  - { name: web, address: ":80" }
  - { address: "[::1]:81" }
client:
  timeouts: { head: 1s, body: 2s, write: 3s, idle: 4s }
  limits: { connections: 100, connections_per_address: 10, target: 4KiB, body: 10MB }
  trusted_proxies: [10.0.0.0/8, "::1"]
  forwarded: true
  keep_for_gone_clients: true
  keep_underscores: true
consul:
  addresses: ["https://10.0.0.1:8500/"]
  token_file: /run/secrets/consul
  tls: { ca: ca.pem, ca_path: /cas, cert: c.pem, key: k.pem, server_name: consul, skip_verify: true }
  namespace: ns
  partition: pt
  max_watches: 7
  datacenter: dc1
  consistency: consistent
  wait: 90s
  empty_hold: 2m
  keep_answering: 1h
  snapshot: /var/lib/sluice/snapshot.json
  snapshot_max_age: 1h
  debounce: { quiet: 0s, max_wait: 2s }
services:
  star:
    consul: { service: Star, tags: [v1, 2], filter: 'Service.Meta.a == "b"', passing_only: true, empty_hold: 0s, keep_answering: 90m,
      datacenters: [dc2, dc1], min_healthy: 3, namespace: team, partition: part, peer: cluster-2, near: _agent, consistency: stale, cached: true }
    balance: { policy: round_robin }
    timeouts: { connect: 250ms, response_header: 1m30s, idle: 1h, tunnel: 2h }
    keepalive: { idle: 1m, max: 8 }
    retry: { attempts: 1, per_try_timeout: 2s, body: 1MiB, budget: 10%, min_per_second: 3, hedge: { after: 1s, percentile: 95% } }
    limits: { requests: 100, requests_per_peer: 20, pending: 30, retries: 40 }
    wait_for_peer: 2s
    drain: { timeout: 5m }
    health: { active: { type: tcp }, passive: { ejection: 1s }, slow_start: 10s }
  origin:
    peers: ["127.0.0.1:19001", "[::1]:19002 weight=3"]
routes:
  - { host: "*.Example.com", path: /api, service: star }
  - { service: origin }
shutdown: { delay: 5s, idle: 2s, grace: 1m }
health: { max_checks: 9 }
`)
	tcp := defaultCheck // of which health_test.go reads every key
	tcp.Type = "tcp"
	starBalance := defaultBalance
	starBalance.Policy = "round_robin"
	starHealth := defaultHealth
	starHealth.Active, starHealth.Passive.Ejection = &tcp, time.Second
	starHealth.SlowStart = 10 * time.Second
	timeouts := Timeouts{Connect: time.Second, ResponseHeader: 30 * time.Second, Idle: time.Minute, Tunnel: time.Hour}
	want := &Config{
		Log:       Log{Level: "debug", Format: "console"},
		AccessLog: AccessLog{Path: "/var/log/sluice/access.log", Format: "combined", Sample: 0.05},
		Admin:     Admin{Address: "0.0.0.0:9000", TokenFile: "/run/secrets/admin"},
		Listeners: []Listener{{Name: "web", Address: ":80"}, {Name: "[::1]:81", Address: "[::1]:81"}},
		Client: Client{
			Timeouts:       ClientTimeouts{Head: time.Second, Body: 2 * time.Second, Write: 3 * time.Second, Idle: 4 * time.Second},
			Limits:         ClientLimits{Connections: 100, ConnectionsPerAddress: 10, Target: 4096, Body: 10_000_000},
			TrustedProxies: []string{"10.0.0.0/8", "::1"}, Forwarded: true, KeepForGoneClients: true, KeepUnderscores: true,
		},
		Consul: Consul{
			Addresses: []string{"https://10.0.0.1:8500"},
			TokenFile: "/run/secrets/consul",
			TLS:       ConsulTLS{CA: "ca.pem", CAPath: "/cas", Cert: "c.pem", Key: "k.pem", ServerName: "consul", SkipVerify: true},
			Namespace: "ns", Partition: "pt", MaxWatches: 7,
			Datacenter: "dc1",
			Wait:       90 * time.Second, Consistency: "consistent", EmptyHold: 2 * time.Minute, KeepAnswering: time.Hour,
			Snapshot: "/var/lib/sluice/snapshot.json", SnapshotMaxAge: time.Hour,
			Debounce: Debounce{MaxWait: 2 * time.Second},
		},
		Services: map[string]Service{
			"star": {
				Consul: &ConsulService{Service: "Star", Poll: 5 * time.Second, Tags: []string{"v1", "2"}, Filter: `Service.Meta.a == "b"`,
					PassingOnly: true, Datacenters: []string{"dc2", "dc1"}, MinHealthy: 3, Namespace: "team", Partition: "part",
					Peer: "cluster-2", Near: "_agent", Consistency: "stale", Cached: true, EmptyHold: new(time.Duration(0)), KeepAnswering: new(90 * time.Minute)},
				Balance:     starBalance,
				Timeouts:    Timeouts{Connect: 250 * time.Millisecond, ResponseHeader: 90 * time.Second, Idle: time.Hour, Tunnel: 2 * time.Hour},
				Keepalive:   Keepalive{Idle: time.Minute, Max: 8},
				Retry:       Retry{Attempts: 1, PerTryTimeout: 2 * time.Second, Body: 1 << 20, Budget: 0.1, MinPerSecond: 3, Hedge: Hedge{After: time.Second, Percentile: 0.95}},
				Limits:      Limits{Requests: 100, RequestsPerPeer: 20, Pending: 30, Retries: 40},
				WaitForPeer: 2 * time.Second,
				Drain:       Drain{Timeout: 5 * time.Minute},
				Health:      starHealth,
			},
			"origin": {
				Peers:    []string{"127.0.0.1:19001", "[::1]:19002 weight=3"},
				Balance:  defaultBalance,
				Timeouts: timeouts, Keepalive: Keepalive{Idle: 4 * time.Second, Max: 512}, Retry: defaultRetry, Limits: defaultLimits, Drain: Drain{Timeout: 30 * time.Second}, Health: defaultHealth,
			},
		},
		Routes:   []Route{{Host: "*.Example.com", Path: "/api", Service: "star"}, {Path: "/", Service: "origin"}},
		Shutdown: Shutdown{Delay: 5 * time.Second, Idle: 2 * time.Second, Grace: time.Minute},
		Health:   Health{MaxChecks: 9},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestAliasesAndMerges(t *testing.T) {
	c := mustParse(t, `
services:
  a: &base
    peers: ["127.0.0.1:1"]
    timeouts: &slow { connect: 5s }
    retry: { attempts: 3 }
  b:
    <<: *base
    peers: ["127.0.0.1:2"]
  c: { peers: ["127.0.0.1:3"], timeouts: *slow }
routes: [{ service: a }]
`)
	if b := c.Services["b"]; b.Peers[0] != "127.0.0.1:2" || b.Retry.Attempts != 3 || b.Timeouts.Connect != 5*time.Second {
		t.Errorf("merged service: %+v", b)
	}
	if got := c.Services["c"].Timeouts.Connect; got != 5*time.Second {
		t.Errorf("aliased timeouts: connect = %v", got)
	}
}

func TestErrorsAreAllReportedInOrder(t *testing.T) {
	_, err := Parse("sluice.yaml", []byte(`log: { level: inof }
listener:
  - { name: web, address: ":8080" }
services:
  star:
    consul: { service: star, pasing_only: true }
    timeouts: { connect: 5, idle: 60s }
    retry: { attempts: 9 }
  star:
    peers: []
  empty:
routes:
  - { host: "http://star.example.com", service: star }
  - { path: api, service: sta }
`))
	want := []string{
		`sluice.yaml:1: log.level: value "inof": want one of debug, info, warn, error (did you mean info?)`,
		`sluice.yaml:2: listener: unknown key, did you mean "listeners"? (allowed here: log, access_log, admin, listeners, client, consul, catalog, services, routes, shutdown, health)`,
		`sluice.yaml:6: services.star.consul.pasing_only: unknown key, did you mean "passing_only"? (allowed here: service, prepared_query, poll, tags, filter, passing_only, datacenters, min_healthy, namespace, partition, peer, near, consistency, cached, empty_hold, keep_answering)`,
		`sluice.yaml:7: services.star.timeouts.connect: value "5": want a duration with a unit (ms, s, m, h), from 1ms to 10m`,
		`sluice.yaml:8: services.star.retry.attempts: value "9": want a whole number from 1 to 5`,
		`sluice.yaml:9: services.star: given twice, first in line 5`,
		`sluice.yaml:11: services.empty: no source: want "consul: { service: NAME }" or "peers: [HOST:PORT, …]"`,
		`sluice.yaml:13: routes[0].host: value "http://star.example.com": must have no port and no scheme: a route matches the host on every port`,
		`sluice.yaml:14: routes[1].path: value "api": must start with a slash`,
		`sluice.yaml:14: routes[1].service: value "sta": no such service, did you mean "star"? (known: empty, star)`,
	}
	diffLines(t, err, want)
}

func diffLines(t *testing.T, err error, want []string) {
	t.Helper()
	var all Errors
	if !errors.As(err, &all) {
		t.Fatalf("error is %T (%v), want Errors", err, err)
	}
	got := strings.Split(err.Error(), "\n")
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("error %d:\n got  %s\n want %s", i, g, w)
		}
	}
}

func TestRefusals(t *testing.T) {
	const listen = `want HOST:PORT or :PORT, an IPv6 address in brackets, the port from 0 (any free one) to 65535`
	const peer = `want "HOST:PORT" or "HOST:PORT weight=N", an IPv6 address in brackets, the port from 1 to 65535, the weight from 0 to 65535`
	const route = "\nroutes: [{ service: star }]\n"
	const name = `want a name of up to 128 letters, digits, '.', '_' or '-' that starts with a letter or digit`
	tests := []struct {
		name, text string
		want       []string // without "sluice.yaml:"
	}{
		{"empty file", "", []string{
			`sluice.yaml: services: empty: want at least one, such as "star: { consul: { service: star } }"`,
			`sluice.yaml: routes: empty: want at least one, such as "- { path: /, service: star }"`}},
		{"not YAML", "a: [1\nb: 2\n", []string{`sluice.yaml:1: not valid YAML: did not find expected ',' or ']'`}},
		{"tab", "log:\n\tlevel: info\n", []string{`sluice.yaml:2: not valid YAML: found character that cannot start any token`}},
		{"two documents", tail + "---\nlog: {}\n", []string{`sluice.yaml:4: a second document: one file holds one configuration`}},
		{"a list", "- a\n", []string{`sluice.yaml:1: want a mapping of keys to values, not a list`}},
		{"later feature", "registry: {}" + tail, []string{`sluice.yaml:1: registry: unknown key (allowed here: log, access_log, admin, listeners, client, consul, catalog, services, routes, shutdown, health)`}},
		{"twice", "log: {}\nlog: {}" + tail, []string{`sluice.yaml:2: log: given twice, first in line 1`}},
		{"no name", "? [a]\n: b" + tail, []string{`sluice.yaml:1: want a name before the colon`}},
		{"scalar for mapping", "log: debug" + tail, []string{`sluice.yaml:1: log: want a mapping of keys to values, not a single value`}},
		{"mapping for scalar", "log: { level: { a: b } }" + tail, []string{`sluice.yaml:1: log.level: want one of debug, info, warn, error, not a mapping`}},
		{"scalar for list", "consul: { addresses: a }" + tail, []string{`sluice.yaml:1: consul.addresses: want a list, such as [a, b], not a single value`}},
		{"empty entry", "consul: { addresses: ['', ~] }" + tail, []string{
			`sluice.yaml:1: consul.addresses[0]: empty: write a value, or take the entry away`,
			`sluice.yaml:1: consul.addresses[1]: empty: write a value, or take the entry away`}},
		{"tag", "log: { level: !!binary aW5mbw== }" + tail, []string{`sluice.yaml:1: log.level: tag !!binary: want one of debug, info, warn, error`}},
		{"control character", `consul: { datacenter: "a\nb" }` + tail, []string{`sluice.yaml:1: consul.datacenter: value "a\nb": want a text on one line`}},
		{"merge of nothing", "log: { <<: 1 }" + tail, []string{`sluice.yaml:1: log.<<: want an alias of a mapping, such as *defaults`}},
		{"merge of itself", "log: &a { <<: *a }" + tail, []string{`sluice.yaml:1: log.<<: a merged mapping may hold plain keys only`}},
		{"ratio too large", "access_log: { sample: 101% }" + tail, []string{`sluice.yaml:1: access_log.sample: value "101%": want a number from 0 to 1, or a percentage`}},
		{"ratio not a number", "access_log: { sample: .nan }" + tail, []string{`sluice.yaml:1: access_log.sample: value ".nan": want a number from 0 to 1, or a percentage`}},
		{"kept by checks that there are not", "consul: { keep_answering: 1h }\nservices: { star: { consul: {} } }" + route, []string{
			`sluice.yaml:1: consul.keep_answering: value "1h": only active checks tell whether an instance still answers, and services.star has none: set services.star.health.active, or services.star.consul.keep_answering to 0s`}},
		{"kept by checks of another service", "consul: { keep_answering: 1h }\nservices:\n  star: { consul: { keep_answering: 0s } }\n  other: { consul: {}, health: { active: {} } }\n  third: { consul: { keep_answering: 2h } }" + route, []string{
			`sluice.yaml:5: services.third.consul.keep_answering: value "2h": only active checks tell whether an instance still answers, and services.third has none: set services.third.health.active, or services.third.consul.keep_answering to 0s`}},
		{"duration too long", "shutdown: { grace: 48h }" + tail, []string{`sluice.yaml:1: shutdown.grace: value "48h": want a duration with a unit (ms, s, m, h), from 0s to 24h`}},
		{"duration negative", "shutdown: { grace: -1s }" + tail, []string{`sluice.yaml:1: shutdown.grace: value "-1s": want a duration with a unit (ms, s, m, h), from 0s to 24h`}},
		{"size", "client: { limits: { body: 10M, target: 1MiB } }" + tail, []string{
			`sluice.yaml:1: client.limits.target: value "1MiB": want a number of bytes or a size such as 64KiB or 10MiB, from 256B to 16KiB`,
			`sluice.yaml:1: client.limits.body: value "10M": want a number of bytes or a size such as 64KiB or 10MiB, from 0 to 1024GiB`}},
		{"network", "client: { trusted_proxies: [10.0.0.0/33] }" + tail, []string{
			`sluice.yaml:1: client.trusted_proxies[0]: value "10.0.0.0/33": want a network such as 10.0.0.0/8 or fd00::/8, or a single IP address`}},
		{"secret not shown", `consul: { token: "s3cr\tt" }` + tail, []string{`sluice.yaml:1: consul.token: value "***": want a text on one line`}},
		{"two tokens", "consul:\n  token: s3cret\n  token_file: x" + tail, []string{`sluice.yaml:2: consul.token: give either consul.token or consul.token_file, not both`}},
		{"prepared query of a service", "services: { star: { consul: { prepared_query: q, service: s, tags: [v1], datacenters: [a, b] } } }\nroutes: [{ service: star }]", []string{
			"sluice.yaml:1: services.star.consul.service: not allowed beside prepared_query, which decides on that itself",
			"sluice.yaml:1: services.star.consul.tags: not allowed beside prepared_query, which decides on that itself",
			"sluice.yaml:1: services.star.consul.datacenters: not allowed beside prepared_query, which decides on that itself"}},
		{"cached and consistent", "services: { star: { consul: { cached: true, consistency: consistent } } }\nroutes: [{ service: star }]", []string{
			`sluice.yaml:1: services.star.consul.cached: value "true": not allowed with consistency: consistent`}},
		{"a data centre twice", "services: { star: { consul: { datacenters: [a, b, a] } } }\nroutes: [{ service: star }]", []string{
			`sluice.yaml:1: services.star.consul.datacenters[2]: value "a": the same as services.star.consul.datacenters[0] at sluice.yaml:1`}},
		{"an agent twice", `consul: { addresses: ["http://a:1", "a:2", "a:1"] }` + tail, []string{
			`sluice.yaml:1: consul.addresses[2]: value "a:1": the same as consul.addresses[0] at sluice.yaml:1`}},
		{"certificate without key", "consul:\n  tls: { cert: a }" + tail, []string{
			`sluice.yaml:2: consul.tls: give both cert and key, or neither`}},
		{"agent with password", `consul: { addresses: ["http://u:p@a:1"] }` + tail, []string{
			`sluice.yaml:1: consul.addresses[0]: value "http://u:p@a:1": want http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:///PATH`}},
		{"debounce", "consul:\n  debounce:\n    quiet: 2s" + tail, []string{
			`sluice.yaml:2: consul.debounce.quiet: value "2s": want at most consul.debounce.max_wait, which is 1s`}},
		{"admin for everybody", `admin: { address: ":8081" }` + tail, []string{
			`sluice.yaml:1: admin.address: value ":8081": reachable from other machines: set admin.token_file too, or use a loopback address such as 127.0.0.1:8081`}},
		{"listener without address", "listeners: [{ name: web }]" + tail, []string{`sluice.yaml:1: listeners[0].address: required: ` + listen[5:]}},
		{"listener address", `listeners: [{ address: "80" }]` + tail, []string{`sluice.yaml:1: listeners[0].address: value "80": ` + listen}},
		{"listener port", `listeners: [{ address: ":65536" }]` + tail, []string{`sluice.yaml:1: listeners[0].address: value ":65536": ` + listen}},
		{"listener IP", `listeners: [{ address: "300.1.1.1:80" }]` + tail, []string{`sluice.yaml:1: listeners[0].address: value "300.1.1.1:80": ` + listen}},
		{"listeners on one port", "listeners:\n- { address: ':80' }\n- { address: '127.0.0.1:80' }" + tail, []string{
			`sluice.yaml:3: listeners[1].address: value "127.0.0.1:80": already taken by listeners[0].address (:80): want another port or address`}},
		{"listener on the admin's port", "listeners:\n- { address: ':8081' }" + tail, []string{
			`sluice.yaml:2: listeners[0].address: value ":8081": already taken by admin.address (127.0.0.1:8081): want another port or address`}},
		{"listener names", "listeners:\n- { name: a, address: ':1' }\n- { name: a, address: ':2' }" + tail, []string{
			`sluice.yaml:3: listeners[1].name: value "a": the same as listeners[0].name at sluice.yaml:2`}},
		{"service name", "services: { 'a/b': { consul: {} } }\nroutes: [{ service: a }]", []string{
			`sluice.yaml:1: services.a/b: value "a/b": ` + name,
			`sluice.yaml:2: routes[0].service: value "a": no such service`}},
		{"two sources", "services:\n  star:\n    consul: {}\n    peers: ['a:1']" + route, []string{
			`sluice.yaml:4: services.star: has two sources, consul and peers: want one`}},
		{"no source", "services:\n  star:\n    balance: {}" + route, []string{
			`sluice.yaml:2: services.star: no source: want "consul: { service: NAME }" or "peers: [HOST:PORT, …]"`}},
		{"policy", "services:\n  star:\n    consul: {}\n    balance: { policy: roundrobin }" + route, []string{
			`sluice.yaml:4: services.star.balance.policy: value "roundrobin": want one of ewma, hash, least_conn, random, round_robin, sticky (did you mean round_robin?)`}},
		{"boolean", "services:\n  star:\n    consul: { passing_only: yes }" + route, []string{
			`sluice.yaml:3: services.star.consul.passing_only: value "yes": want true or false`}},
		{"peer without port", "services:\n  star:\n    peers: ['127.0.0.1']" + route, []string{
			`sluice.yaml:3: services.star.peers[0]: value "127.0.0.1": ` + peer}},
		{"peer weight", "services:\n  star:\n    peers: ['a:1 weight=65536']" + route, []string{
			`sluice.yaml:3: services.star.peers[0]: value "a:1 weight=65536": ` + peer}},
		{"peer twice", "services:\n  star:\n    peers:\n    - a:1\n    - A:1 weight=2" + route, []string{
			`sluice.yaml:5: services.star.peers[1]: value "A:1 weight=2": the same as services.star.peers[0] at sluice.yaml:4`}},
		{"route twice", "services: { star: { consul: {} } }\nroutes:\n- { host: a.b, service: star }\n- { host: A.b., path: /, service: star }", []string{
			`sluice.yaml:4: routes[1]: value "A.b./": the same as routes[0] at sluice.yaml:3`}},
		{"route without service", "services: { star: { consul: {} } }\nroutes: [{ path: / }]", []string{
			`sluice.yaml:2: routes[0].service: required: a text on one line`}},
		{"one mistake, reached twice", "services:\n  a: { peers: ['a:1'], timeouts: &t { connect: 0s } }\n  b: { peers: ['a:1'], timeouts: *t }\nroutes: [{ service: a }]", []string{
			`sluice.yaml:2: services.a.timeouts.connect: value "0s": want a duration with a unit (ms, s, m, h), from 1ms to 10m`,
			`sluice.yaml:2: services.b.timeouts.connect: value "0s": want a duration with a unit (ms, s, m, h), from 1ms to 10m`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("sluice.yaml", []byte(test.text))
			diffLines(t, err, test.want)
		})
	}
}

func environ(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestServiceFlagEqualsFile(t *testing.T) {
	flags, err := Input{Service: "star", Getenv: environ()}.Load()
	if err != nil {
		t.Fatal(err)
	}
	if file := mustParse(t, tail); !reflect.DeepEqual(flags.Config, file) {
		t.Errorf("flags %+v\nfile  %+v", flags.Config, file)
	}
	if flags.Source != "command line" {
		t.Errorf("source %q", flags.Source)
	}
}

func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	text := "consul: &c\n  addresses: [\"http://file:1\"]\n  token_file: /file\n  tls: { ca: file }\nadmin: { address: 127.0.0.1:1 }" + tail
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := environ("CONSUL_HTTP_ADDR", "env:1", "CONSUL_HTTP_TOKEN", "s3cret", "CONSUL_HTTP_SSL", "true",
		"CONSUL_CACERT", "env", "CONSUL_TLS_SERVER_NAME", "name", "CONSUL_HTTP_SSL_VERIFY", "false", "CONSUL_NAMESPACE", "ns")
	load := func(in Input) *Config {
		t.Helper()
		in.File = file
		r, err := in.Load()
		if err != nil {
			t.Fatal(err)
		}
		return r.Config
	}
	if c := load(Input{}).Consul; c.Addresses[0] != "http://file:1" || c.TokenFile != "/file" {
		t.Errorf("file: %+v", c)
	}
	if c := load(Input{Getenv: env}).Consul; len(c.Addresses) != 1 || c.Addresses[0] != "https://env:1" || c.Token != "s3cret" || c.TokenFile != "" {
		t.Errorf("environment over file: %+v", c)
	} else if want := (ConsulTLS{CA: "env", ServerName: "name", SkipVerify: true}); c.TLS != want || c.Namespace != "ns" {
		t.Errorf("environment over file: %+v", c)
	}
	c := load(Input{Getenv: env, Consul: "http://flag:1", Admin: "127.0.0.1:2", Listen: ":3"})
	if len(c.Consul.Addresses) != 1 || c.Consul.Addresses[0] != "http://flag:1" {
		t.Errorf("flag over environment: %+v", c.Consul)
	}
	if c.Admin.Address != "127.0.0.1:2" || c.Listeners[0] != (Listener{Name: "web", Address: ":3"}) {
		t.Errorf("flags over file: %+v %+v", c.Admin, c.Listeners)
	}
	both := environ("CONSUL_HTTP_TOKEN", "s3cret", "CONSUL_HTTP_TOKEN_FILE", "/env")
	if c := load(Input{Getenv: both}).Consul; c.Token != "" || c.TokenFile != "/env" {
		t.Errorf("token file over token: %+v", c)
	}
}

func TestFlagErrorsNameTheFlag(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(file, []byte("listeners: [{ address: ':80' }]"+tail), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		in   Input
		want string
	}{
		{Input{}, "nothing to serve: give --config FILE, or --service NAME for a service in Consul"},
		{Input{File: "a.yaml", Service: "b"}, "--service b: not allowed beside --config: name the service in a.yaml"},
		{Input{File: filepath.Join(dir, "no.yaml")}, "read configuration: open " + dir + "/no.yaml: no such file or directory"},
		{Input{File: dir}, "read configuration: read " + dir + ": is a directory"},
		{Input{File: file, Listen: ":81"}, `--listen: value ":81": not allowed here: the listeners are set at ` + file + ":1"},
		{Input{Service: "a b"}, `--service: services.a b: value "a b": want a name of up to 128 letters, digits, '.', '_' or '-' that starts with a letter or digit`},
		{Input{Service: "a", Listen: "80"}, `--listen: listeners[0].address: value "80": want HOST:PORT or :PORT, an IPv6 address in brackets, the port from 0 (any free one) to 65535`},
		{Input{Service: "a", Admin: "x"}, `--admin: admin.address: value "x": want HOST:PORT or :PORT, an IPv6 address in brackets, the port from 0 (any free one) to 65535`},
		{Input{Service: "a", Consul: "ftp://x"}, `--consul: consul.addresses[0]: value "ftp://x": want http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:///PATH`},
		{Input{Service: "a", Getenv: environ("CONSUL_HTTP_ADDR", ":")}, `CONSUL_HTTP_ADDR: consul.addresses[0]: value ":": want http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:///PATH`},
	}
	for _, test := range tests {
		if _, err := test.in.Load(); err == nil || err.Error() != test.want {
			t.Errorf("%+v:\n got  %v\n want %s", test.in, err, test.want)
		}
	}
}

func TestShownConfigurationHidesSecretsAndLoadsAgain(t *testing.T) {
	c := mustParse(t, "consul: { token: s3cret }"+tail)
	shown, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := c.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(shown), string(asJSON)} {
		if strings.Contains(text, "s3cret") || !strings.Contains(text, `***`) {
			t.Errorf("shown: %s", text)
		}
	}
	want := *c
	want.Consul.Token = "***"
	for _, text := range []string{string(shown), string(asJSON)} { // JSON is YAML
		if got := mustParse(t, text); !reflect.DeepEqual(got, &want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

func TestNeedRestart(t *testing.T) {
	running := mustParse(t, tail)
	loaded := mustParse(t, `
log: { level: debug }
access_log: { sample: 0.5 }
admin: { address: "127.0.0.1:9" }
listeners: [{ name: web, address: ":9000" }]
consul: { addresses: ["http://a:1"], wait: 1m, debounce: { quiet: 1ms } }
services: { star: { consul: { tags: [a] } } }
routes: [{ service: star }]
shutdown: { grace: 1s }
`)
	want := []string{"access_log.sample", "admin.address", "listeners", "consul.addresses"}
	if got := NeedRestart(running, loaded); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := NeedRestart(running, running); got != nil {
		t.Errorf("unchanged: %q", got)
	}
}

func TestPoliciesAreThoseOfTheBalancer(t *testing.T) {
	field, _ := reflect.TypeFor[Balance]().FieldByName("Policy")
	var want []string
	for _, p := range balancer.Policies() {
		want = append(want, string(p))
	}
	if got := rulesOf(field.Tag).oneof; !reflect.DeepEqual(got, want) {
		t.Errorf("balance.policy allows %q, the balancer knows %q", got, want)
	}
}
