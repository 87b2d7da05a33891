package config

import (
	"reflect"
	"regexp"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/config/units"
	"sluice/healthcheck"
	"sluice/healthcheck/statuses"
	"sluice/test/verify"
)

// defaultCheck is an active check that sets nothing.
var defaultCheck = ActiveCheck{
	Type: "http", Method: "GET", Path: units.NewLocation("/"),
	Schedule: healthcheck.Schedule{
		Interval: 2 * time.Second, FailingInterval: time.Second, Jitter: 0.1, Timeout: time.Second, UnhealthyThreshold: 3, HealthyThreshold: 2,
	},
	Expect: CheckExpect{Status: typedList[string, statuses.Set]("statuses", "200-299")[0], Within: 64 << 10},
}

// withHealth is a service with the health given in flow style.
func withHealth(text string) string {
	return "services: { star: { consul: {}, health: " + text + " } }\nroutes: [{ service: star }]"
}

func TestHealthReadsEveryKey(t *testing.T) {
	f := func(text string, change func(*ServiceHealth)) {
		t.Helper()
		want := defaultHealth
		active := defaultCheck
		want.Active = &active
		change(&want)
		got := mustParse(t, withHealth(text)).Services["star"].Health
		verify.That(t, reflect.DeepEqual(got, want), "%s\n got  %+v %+v\n want %+v %+v", text, got, got.Active, want, want.Active)
	}
	f("{}", func(h *ServiceHealth) { h.Active = nil })
	f("{ active: {} }", func(*ServiceHealth) {})
	f(`{ active: { type: http, interval: 5s, failing_interval: 500ms, jitter: 0.5, timeout: 2s,
		unhealthy_threshold: 4, healthy_threshold: 5, must_pass_first: true, overrides_consul: true, port: 9000,
		reuse_connections: true, tls: { ca: ca.pem, cert: c.pem, key: k.pem, server_name: star, skip_verify: true },
		method: HEAD, path: "/health?full=1", host: "star.example.com:80", headers: ["X-A: b", "Authorization: Bearer x"],
		expect: { status: "2xx, 304", text: ok, regexp: "^o.", within: 1KiB } } }`,
		func(h *ServiceHealth) {
			*h.Active = ActiveCheck{
				Type: "http", Schedule: healthcheck.Schedule{
					Interval: 5 * time.Second, FailingInterval: 500 * time.Millisecond, Jitter: 0.5, Timeout: 2 * time.Second,
					UnhealthyThreshold: 4, HealthyThreshold: 5, MustPassFirst: true, OverridesRegistry: true, Port: 9000,
				},
				TLS: &certificates.ClientTLS{CA: "ca.pem", Cert: "c.pem", Key: "k.pem", ServerName: "star", SkipVerify: true}, ReuseConnections: true,
				Method: "HEAD", Path: units.NewLocation("/health?full=1"), Host: "star.example.com:80", Headers: typedList[Secret, [2]string]("header", "X-A: b", "Authorization: Bearer x"),
				Expect: CheckExpect{Status: typedList[string, statuses.Set]("statuses", "2xx, 304")[0], Text: "ok", Regexp: typedList[string, *regexp.Regexp]("regexp", "^o.")[0], Within: 1024},
			}
		})
	f(`{ active: { type: tcp, send: 'PING\r\n', expect: { text: "+PONG" } } }`, func(h *ServiceHealth) {
		h.Active.Type, h.Active.Send, h.Active.Expect.Text = "tcp", Escaped{Text: units.NewSecret(`PING\r\n`), Value: []byte("PING\r\n")}, "+PONG"
	})
	f(`{ active: { type: grpc, service: greeter } }`, func(h *ServiceHealth) {
		h.Active.Type, h.Active.Service = "grpc", "greeter"
	})
	f(`{ passive: { consecutive_failures: 1, consecutive_connect_failures: 2, consecutive_5xx: 3, flaps: 4, interval: 1s, ejection: 2s,
		max_ejection: 3s, max_ejected: 10%, success_rate: { below: 90% },
		latency: { factor: 1.5, above: 0s } } }`, func(h *ServiceHealth) {
		h.Active = nil
		h.Passive = healthcheck.Passive{
			ConsecutiveFailures: 1, ConsecutiveConnectFailures: 2, Consecutive5xx: 3, Flaps: 4,
			SuccessRate: &healthcheck.SuccessRate{Below: 0.9},
			Latency:     &healthcheck.Latency{Factor: 1.5},
			Interval:    time.Second, Ejection: 2 * time.Second, MaxEjection: 3 * time.Second, MaxEjected: 0.1,
		}
	})
	f("{ slow_start: 10s, slow_start_aggression: 1.5, slow_start_min: 20%, panic_threshold: 25% }", func(h *ServiceHealth) {
		h.Active = nil
		h.SlowStart, h.PanicThreshold = balancer.SlowStart{Window: 10 * time.Second, Aggression: 1.5, MinWeight: 0.2}, 0.25
	})
	f("{ passive: { success_rate: {}, latency: {} } }", func(h *ServiceHealth) {
		h.Active = nil
		h.Passive.SuccessRate = &healthcheck.SuccessRate{Below: 0.99}
		h.Passive.Latency = &healthcheck.Latency{Factor: 3, Above: 50 * time.Millisecond}
	})
}

func TestHealthRefusals(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		_, err := Parse("sluice.yaml", []byte(withHealth(text)))
		for i := range want {
			want[i] = "sluice.yaml:1: services.star.health." + want[i]
		}
		diffLines(t, err, want)
	}
	f("{ active: { type: icmp } }", `active.type: value "icmp": want one of http, tcp, grpc`)
	f("{ active: { path: health } }", `active.path: value "health": want a path that begins with /, in printable ASCII without spaces, with two hexadecimal digits after each %`)
	f("{ active: { path: /%zz } }", `active.path: value "/%zz": want a path that begins with /, in printable ASCII without spaces, with two hexadecimal digits after each %`)
	f("{ active: { host: 'a b' } }", `active.host: value "a b": want HOST or HOST:PORT, an IPv6 address in brackets`)
	f("{ active: { headers: [secret] } }", `active.headers[0]: value "***": want "NAME: VALUE"`)
	f("{ active: { expect: { status: 100 } } }",
		`active.expect.status: value "100": want numbers from 200 to 599, ranges such as "200-299" or classes such as "2xx", with commas between them`)
	f("{ active: { expect: { regexp: '(' } } }", `active.expect.regexp: value "(": want a regular expression in Go's syntax (RE2)`)
	f(`{ active: { type: tcp, send: 'a\q' } }`, `active.send: value "***": want a text on one line, with \r, \n, \t, \\ or \xHH for what does not fit in`)
	f("{ active: { type: tcp, path: /a, method: HEAD, expect: { status: 404 } } }",
		"active.method: allowed only with type http, and the type is tcp",
		"active.path: allowed only with type http, and the type is tcp",
		"active.expect.status: allowed only with type http, and the type is tcp")
	f("{ active: { service: a, send: b } }",
		"active.service: allowed only with type grpc, and the type is http",
		"active.send: allowed only with type tcp, and the type is http")
	f("{ active: { type: grpc, expect: { text: a } } }", "active.expect.text: allowed only with type http or tcp, and the type is grpc")
	f("{ active: { tls: { cert: a } } }", "active.tls: give both cert and key, or neither")
	f("{ passive: { ejection: 10m } }", `passive.max_ejection: value "5m": want at least services.star.health.passive.ejection, which is 10m`)
	f("{ passive: { latency: { factor: .nan } } }", `passive.latency.factor: value ".nan": want a number from 1 to 1000`)
	f("{ passive: { success_rate: { min_peers: 5 } } }", `passive.success_rate.min_peers: unknown key (allowed here: below)`)

	_, err := Parse("sluice.yaml", []byte("services: { star: { peers: ['a:1'], health: { active: { overrides_consul: true } } } }\nroutes: [{ service: star }]"))
	diffLines(t, err, []string{`sluice.yaml:1: services.star.health.active.overrides_consul: value "true": the service does not come from Consul: want false`})
}

func TestUnescape(t *testing.T) {
	for text, want := range map[string]string{
		`PING\r\n`: "PING\r\n", `\x00\xff\t\\`: "\x00\xff\t\\", `"a" 'b' é`: `"a" 'b' é`, ``: ``,
	} {
		verify.Equal(t, string(verify.Result(parseEscaped(text)).Must(t)), want, "%q", text)
	}
	for _, text := range []string{`\`, `\x1`} {
		_, err := parseEscaped(text)
		verify.That(t, err != nil, "%q is accepted", text)
	}
}

func TestHeader(t *testing.T) {
	for text, want := range map[string][2]string{
		"Host: a:80": {"Host", "a:80"}, "X-Empty:": {"X-Empty", ""}, "no colon": {}, ": no name": {}, "a name: b": {},
	} {
		got, ok := parseHeader(text)
		verify.That(t, got == want && ok == (want[0] != ""), "%q: %q, %v", text, got, ok)
	}
}
