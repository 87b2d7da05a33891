package config

import (
	"reflect"
	"testing"
)

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
