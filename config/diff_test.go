package config

import (
	"fmt"
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestDiffNamesKeys(t *testing.T) {
	before := mustParse(t, `
consul: { token: s3cret }
listeners: [{ name: web, address: ":1" }, { name: old, address: ":2" }]
services:
  a: { peers: ["127.0.0.1:1"], timeouts: { connect: 2s } }
  b: { peers: ["127.0.0.1:2"] }
routes: [{ host: a.example, service: a }, { host: b.example, service: b }, { service: a }]
`)
	after := mustParse(t, `
consul: { token: other-s3cret }
listeners: [{ name: new, address: ":3" }, { name: web, address: ":4" }]
services:
  a: { peers: ["127.0.0.1:1", "127.0.0.1:3"], timeouts: { connect: 3s } }
  c: { peers: ["127.0.0.1:4"] }
routes: [{ service: c }, { host: a.example, service: a }]
`)
	var got []string
	for _, c := range Diff(before, after) {
		if len(c.String()) < 130 { // not whole services and listeners
			got = append(got, c.String())
		} else {
			got = append(got, c.Key)
		}
	}
	want := []string{
		"consul.token: changed (the value is secret)",
		"listeners[new]: added {name: new, address: :3, protocol: http, http2: true, http3: false, http3_port: 0}",
		"listeners[old]: removed {name: old, address: :2, protocol: http, http2: true, http3: false, http3_port: 0}",
		"listeners[web].address: :1 -> :4",
		"routes[/].service: a -> c",
		"routes[b.example /]: removed {host: b.example, path: /, match: prefix, priority: 0, service: b}",
		"services.a.peers: [127.0.0.1:1] -> [127.0.0.1:1, 127.0.0.1:3]",
		"services.a.timeouts.connect: 2s -> 3s",
		"services.b",
		"services.c",
	}
	verify.Slices(t, got, want, "changes")
	verify.Equal(t, len(Diff(before, before)), 0, "changes between the same")
}

// Of many routes that differ a summary has the number, and of everything else what Diff has.
func TestSummaryCountsManyChanges(t *testing.T) {
	many := func(path string, n int) *Config {
		var text strings.Builder
		text.WriteString("log: { level: " + path + " }\nservices: { a: { peers: ['127.0.0.1:1'] } }\nroutes:\n- { service: a }\n")
		for i := range n {
			fmt.Fprintf(&text, "- { path: /%s%d, service: a }\n", path, i)
		}
		return mustParse(t, text.String())
	}
	few, some := many("info", 500), many("warn", 3)
	verify.Equal(t, fmt.Sprint(Summary(few, some)), fmt.Sprint(Diff(few, some)), "few changes")
	verify.Equal(t, fmt.Sprint(Summary(many("info", 600), some)), "[log.level: info -> warn routes: 600 others -> 3 others]", "many changes")
}

func TestNeedRestart(t *testing.T) {
	running := mustParse(t, tail)
	loaded := mustParse(t, `
log: { level: debug }
access_log: { sample: 0.5 }
admin: { address: "127.0.0.1:9" }
listeners: [{ name: web, address: ":9000" }]
consul: { addresses: ["http://a:1"], wait: 1m }
discovery: { debounce: { quiet: 1ms }, snapshot: new }
services: { star: { consul: { tags: [a] } } }
routes: [{ service: star }]
shutdown: { grace: 1s }
`)
	want := []string{"admin.address", "discovery.snapshot", "consul.addresses"}
	verify.DeepEqual(t, NeedRestart(running, loaded), want, "NeedRestart(running, loaded)")
	got := NeedRestart(running, running)
	verify.That(t, got == nil, "unchanged: %q", got)
}

// consul.register needs no restart, but the prefix of orders is in use as the start had it, also if
// it is the default, which consul.register gives.
func TestRegisterAndOrdersNeedRestart(t *testing.T) {
	const alone, registered, other, named = "", "consul: { register: {} }", "consul: { register: { service: edge } }", "consul: { register: {}, orders: sluice-orders/sluice }"
	for _, c := range []struct {
		running, loaded string
		needs           bool
	}{
		{alone, registered, true}, {registered, alone, true}, {registered, other, true}, {registered, named, false}, {named, registered, false},
		{alone, "consul: { register: { service: edge }, orders: off }", false}, {named, "consul: { register: {}, orders: off }", true},
	} {
		var want []string
		if c.needs {
			want = []string{"consul.orders"}
		}
		verify.DeepEqual(t, NeedRestart(mustParse(t, tail+c.running), mustParse(t, tail+c.loaded)), want, "from %q to %q", c.running, c.loaded)
	}
}
