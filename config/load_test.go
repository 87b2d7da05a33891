package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/config/units"
	"sluice/consul"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/healthcheck"
	"sluice/proxy"
	"sluice/proxy/accesslog"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/test/verify"
)

// tail completes a document.
const tail = `
services: { star: { consul: {} } }
routes: [{ service: star }]
`

// Parse decodes and checks the text of a configuration file, without flags and
// environment.
func Parse(name string, data []byte) (*Config, error) {
	in := Input{File: name}
	built, err := in.Build([]Source{in.FileSource(string(data))})
	if err != nil {
		return nil, err
	}
	return built.Config, nil
}

// mustParse is Parse without errors. A reload of the same text changes nothing.
func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("sluice.yaml", []byte(text))
	verify.Require(t, err == nil, "Parse: %v\n%s", err, text)
	again, err := Parse("sluice.yaml", []byte(text))
	verify.That(t, err == nil && Equal(c, again), "the same text is another configuration: %v\n%s", err, text)
	return c
}

// withoutOrigins removes the places of routes from c, which can then be compared deeply.
func withoutOrigins(c *Config) *Config {
	c.Routes = routesWithoutOrigins(c.Routes)
	return c
}

func endpoint(text string) Address { return typedList[string, Endpoint]("listen", text)[0] }

// Defaults of a service.
var (
	defaultBalance = Balance{
		Policy: "ewma", Hash: Hash{Bound: 1.25},
		Sticky:           Sticky{Cookie: "sluice_peer", Path: "/", SameSite: "lax"},
		Overprovisioning: 1.4,
		Subset:           balancer.Subset{Replica: -1},
	}
	defaultRetry  = Retry{Retry: route.Retry{Attempts: 3, BodyBytes: 64 << 10}, RetryBudget: balancer.RetryBudget{Ratio: 0.2, MinPerSecond: 10}}
	defaultLimits = Limits{Limits: balancer.Limits{ConnectionWait: time.Second, Pending: 1024, AdaptiveMin: 4}, ResponseLimits: upstream.ResponseLimits{HeadBytes: 16 << 10, Fields: 100}}
	defaultHealth = ServiceHealth{Passive: healthcheck.Passive{
		ConsecutiveFailures: 5, Flaps: 5, Interval: 10 * time.Second,
		Ejection: 10 * time.Second, MaxEjection: 5 * time.Minute, MaxEjected: 0.5,
	}, SlowStart: balancer.SlowStart{Aggression: 1, MinWeight: 0.1}, PanicThreshold: 0.5}
)

func TestParseReadsEveryKey(t *testing.T) {
	got := mustParse(t, `
log: { level: debug, format: console }
access_log: { path: /var/log/sluice/access.log, format: combined, sample: 5%, slow: 250ms }
tracing: { otlp: "http://127.0.0.1:4318", sample: 10%, service_name: edge, headers: ["A: b"] }
admin: { address: "0.0.0.0:9000", token_file: /run/secrets/admin }
listeners:
  - { name: web, address: ":80" }
  - { address: "[::1]:81" }
client:
  timeouts: { head: 1s, body: 2s, write: 3s, idle: 4s }
  limits: { connections: 100, connections_per_address: 10, head: 60KiB, fields: 1000, target: 4KiB, body: 10MB, kept_bodies: 50MiB, compression: 100MiB }
  connections: { max_requests: 1000, max_age: 10m }
  trusted_proxies: [10.0.0.0/8, "::1"]
  forwarded: true
  request_id: true
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
  probation: 2m
discovery:
  snapshot: /var/lib/sluice/snapshot.json
  snapshot_max_age: 1h
  debounce: { quiet: 0s, max_wait: 2s }
services:
  star:
    consul: { service: Star, tags: [v1, 2], filter: 'Service.Meta.a == "b"', passing_only: true, address: wan, probation: 0s,
      datacenters: [dc2, dc1], min_healthy: 3, namespace: team, partition: part, peer: cluster-2, consistency: stale, cached: true }
    balance: { policy: round_robin }
    timeouts: { connect: 250ms, response_header: 1m30s, idle: 1h, tunnel: 2h }
    keepalive: { idle: 1m, max: 8, max_requests: 100, max_age: 1h }
    retry: { attempts: 1, per_try_timeout: 2s, body: 1MiB, budget: 10%, min_per_second: 3 }
    limits: { requests: 100, requests_per_peer: 20, connections_per_peer: 10, connection_wait: 2s, pending: 30, retries: 40, response_head: 32KiB, response_fields: 200 }
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
	tcp := defaultCheck // health_test.go sets all of its keys
	tcp.Type = "tcp"
	starBalance := defaultBalance
	starBalance.Policy = "round_robin"
	starHealth := defaultHealth
	starHealth.Active, starHealth.Passive.Ejection = &tcp, time.Second
	starHealth.SlowStart.Window = 10 * time.Second
	timeouts := route.Timeouts{Connect: time.Second, ResponseHeader: 30 * time.Second, Idle: time.Minute, Tunnel: time.Hour}
	want := &Config{
		Log:       Log{Level: LogLevel{Text: "debug", Value: zerolog.DebugLevel}, Format: "console"},
		AccessLog: AccessLog{Path: "/var/log/sluice/access.log", Format: typedList[string, accesslog.Format]("log_format", "combined")[0], Sample: 0.05, Slow: 250 * time.Millisecond},
		Tracing:   Tracing{OTLP: units.NewLocation("http://127.0.0.1:4318"), Sample: 0.1, ServiceName: "edge", Headers: typedList[Secret, [2]string]("header", "A: b")},
		Admin:     Admin{Address: endpoint("0.0.0.0:9000"), TokenFile: "/run/secrets/admin", Metrics: "auto"},
		Listeners: []Listener{{Name: "web", Address: endpoint(":80"), Protocol: "http", HTTP2: true}, {Name: "[::1]:81", Address: endpoint("[::1]:81"), Protocol: "http", HTTP2: true}},
		Client: Client{
			Timeouts:       proxy.Timeouts{Head: time.Second, Body: 2 * time.Second, Write: 3 * time.Second, Idle: 4 * time.Second},
			Limits:         proxy.Limits{Connections: 100, ConnectionsPerAddress: 10, HeadBytes: 60 << 10, Fields: 1000, TargetBytes: 4096, BodyBytes: 10_000_000, KeptBodyBytes: 50 << 20, CompressionBytes: 100 << 20},
			Connections:    socket.ConnectionLimits{MaxRequests: 1000, MaxAge: 10 * time.Minute},
			TrustedProxies: []Network{{Text: "10.0.0.0/8", Value: netip.MustParsePrefix("10.0.0.0/8")}, {Text: "::1", Value: netip.MustParsePrefix("::1/128")}}, Switches: proxy.Switches{Forwarded: true, RequestID: true, KeepForGoneClients: true, KeepUnderscores: true},
		},
		Consul: Consul{
			Addresses: []Location{units.NewLocation("https://10.0.0.1:8500")},
			TokenFile: "/run/secrets/consul",
			TLS:       consul.TLSOptions{ClientTLS: certificates.ClientTLS{CA: "ca.pem", Cert: "c.pem", Key: "k.pem", ServerName: "consul", SkipVerify: true}, CAPath: "/cas"},
			Namespace: "ns", Partition: "pt", MaxWatches: 7,
			Datacenter: "dc1",
			Wait:       90 * time.Second, Consistency: "consistent", Probation: 2 * time.Minute, Connect: ConsulConnect{MeshGateway: "mesh-gateway"},
		},
		Discovery: Discovery{Snapshot: "/var/lib/sluice/snapshot.json", SnapshotMaxAge: time.Hour, Debounce: discovery.Debounce{MaxWait: 2 * time.Second}},
		Services: map[string]Service{
			"star": {
				Consul: &ConsulService{ServiceOptions: consulsource.ServiceOptions{Service: "Star", Poll: 5 * time.Second, Tags: []string{"v1", "2"}, Filter: `Service.Meta.a == "b"`,
					PassingOnly: true, Address: "wan", Datacenters: []string{"dc2", "dc1"}, MinHealthy: 3, Namespace: "team", Partition: "part",
					Peer: "cluster-2", Consistency: "stale", Cached: true}, Probation: new(time.Duration(0))},
				ServiceSettings: ServiceSettings{Balance: starBalance,
					Timeouts:    route.Timeouts{Connect: 250 * time.Millisecond, ResponseHeader: 90 * time.Second, Idle: time.Hour, Tunnel: 2 * time.Hour},
					Keepalive:   upstream.Keepalive{IdleTimeout: time.Minute, MaxIdle: 8, ConnectionLimits: socket.ConnectionLimits{MaxRequests: 100, MaxAge: time.Hour}},
					Upstream:    Upstream{Protocol: "http1"},
					Retry:       Retry{route.Retry{Attempts: 1, PerTryTimeout: 2 * time.Second, BodyBytes: 1 << 20}, balancer.RetryBudget{Ratio: 0.1, MinPerSecond: 3}},
					Limits:      Limits{Limits: balancer.Limits{Requests: 100, PeerRequests: 20, PeerConnections: 10, ConnectionWait: 2 * time.Second, Pending: 30, Retries: 40, AdaptiveMin: 4}, ResponseLimits: upstream.ResponseLimits{HeadBytes: 32 << 10, Fields: 200}},
					WaitForPeer: 2 * time.Second,
					Drain:       Drain{Timeout: 5 * time.Minute},
					Health:      starHealth},
			},
			"origin": {
				Peers: typedList[string, discovery.Instance]("peer", "127.0.0.1:19001", "[::1]:19002 weight=3"),
				ServiceSettings: ServiceSettings{Balance: defaultBalance,
					Timeouts: timeouts, Keepalive: upstream.Keepalive{IdleTimeout: 4 * time.Second, MaxIdle: 512}, Upstream: Upstream{Protocol: "http1"}, Retry: defaultRetry, Limits: defaultLimits, Drain: Drain{Timeout: 30 * time.Second}, Health: defaultHealth},
			},
		},
		Routes:   []Route{{Host: "*.Example.com", Path: "/api", Match: "prefix", Service: "star"}, {Path: "/", Match: "prefix", Service: "origin"}},
		Shutdown: Shutdown{Delay: 5 * time.Second, Idle: 2 * time.Second, Grace: time.Minute},
		Health:   Health{MaxChecks: 9},
	}
	verify.That(t, reflect.DeepEqual(withoutOrigins(got), want), "got  %+v\nwant %+v", got, want)
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
	b := c.Services["b"]
	verify.That(t, b.Peers[0].Text == "127.0.0.1:2" && b.Retry.Attempts == 3 && b.Timeouts.Connect == 5*time.Second, "merged service: %+v", b)
	verify.Equal(t, c.Services["c"].Timeouts.Connect, 5*time.Second, "aliased timeouts: connect")
}

// A short document cannot make a large configuration, whoever writes it.
func TestAliasesAreLimited(t *testing.T) {
	text := func(services int) string {
		var b strings.Builder
		b.WriteString("services:\n  all: &all { consul: { tags: &tags [" + strings.Repeat("t,", 999) + "t] } }\n")
		for i := range services {
			fmt.Fprintf(&b, "  s%d: *all\n", i)
		}
		return b.String()
	}
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"few":            {text(490), nil},
		"many":           {text(510), []string{"file.yaml: aliases add too many values: want at most 500000"}},
		"many of many":   {"a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\n" + nestedAliases(40), []string{"file.yaml: aliases add too many values: want at most 500000"}},
		"merged as many": {"services:\n  a: &a { consul: {}, timeouts: {} }\n  b: { <<: [" + strings.Repeat("*a,", 100_001) + "] }\n", []string{"file.yaml: aliases add too many values: want at most 500000"}},
	} {
		f := decodeDocument(writtenDocument{Document{Name: "file.yaml", Text: test.text}, ByDocument}, new(Config), nil)
		if err := f.Errs; len(test.want) > 0 {
			verify.Require(t, len(err) > 0, "%s: accepted", name)
			diffLines(t, err, test.want)
		} else {
			verify.That(t, len(err) == 0 && len(f.parts.Services) == 491, "%s: %v, %d services", name, err, len(f.parts.Services))
		}
	}
}

// nestedAliases returns lists of which each has the one before twice.
func nestedAliases(depth int) string {
	var b strings.Builder
	b.WriteString("l0: &l0 [x, x]\n")
	for i := range depth {
		fmt.Fprintf(&b, "l%d: &l%d [*l%d, *l%d]\n", i+1, i+1, i, i)
	}
	return b.String()
}

func TestPoliciesAreThoseOfTheBalancer(t *testing.T) {
	field, _ := reflect.TypeFor[Balance]().FieldByName("Policy")
	var want []string
	for _, p := range balancer.Policies() {
		want = append(want, string(p))
	}
	got := strings.Split(field.Tag.Get("oneof"), "|")
	verify.That(t, reflect.DeepEqual(got, want), "balance.policy allows %q, the balancer has %q", got, want)
}

// routesWithoutOrigins returns routes that can be compared deeply.
func routesWithoutOrigins(routes []Route) []Route {
	routes = slices.Clone(routes)
	for i := range routes {
		routes[i].Origin, routes[i].checked = "", nil
	}
	return routes
}

// Only the configuration file itself may be a pipe, such as /dev/stdin: to open another one would
// wait for a writer.
func TestPipes(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe.yaml")
	verify.NoError(t, syscall.Mkfifo(pipe, 0o600))
	_, err := ReadFiles(pipe)
	verify.That(t, err != nil && strings.Contains(err.Error(), "not a regular file"), "a file of dynamic: %v", err)
	history := new(History)
	history.Keep(pipe, func(error, string) {})
	verify.That(t, history.file.unread != nil, "the history can be read")
	go func() { verify.NoError(t, os.WriteFile(pipe, []byte("text"), 0o600)) }()
	text, err := Input{File: pipe}.Read()
	verify.That(t, err == nil && text == "text", "the configuration file: %q, %v", text, err)
}
