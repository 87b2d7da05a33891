package config

import (
	"testing"

	"sluice/test/verify"
)

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
