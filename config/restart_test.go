package config

import (
	"os"
	"strings"
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
	if got := NeedRestart(running, running); got != nil {
		t.Errorf("unchanged: %q", got)
	}
}

func TestReferenceGivesTheReasonsForRestarts(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	verify.NoError(t, err)
	for _, r := range restarts {
		if row := "  | `" + r.key + "` | " + r.why + " |\n"; !strings.Contains(string(text), row) {
			t.Errorf("no row: %s", row)
		}
	}
	if got := strings.Count(string(text), "\n  | `"); got != len(restarts) {
		t.Errorf("%d rows for %d keys", got, len(restarts))
	}
}
