package gateway

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// While Consul is away, and when it comes back without its data, its last documents stay in use,
// and everybody is told. The file can change meanwhile, and Consul's documents afterwards.
func TestConsulOutagesKeepTheDocuments(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	for range 20 { // so that the index of a new Consul is smaller
		put(t, agent, "other", "x")
	}
	a, b := origin(t, "a"), origin(t, "b")
	put(t, agent, "own/a.yaml", serving("a", a))
	put(t, agent, "own/services/short", a)
	text := strings.Replace(treeBelow(relay.URL(), "own", "routes: [{ path: /short, service: short }"), "wait: 10m", "wait: 1s", 1)
	r := start(t, text+"]")
	r.answers("/a", "a")
	r.awaitState("consul_kv:own/", "in_use")
	number, pool := r.applied().Number, r.services.get("a").pool
	serves := func(when string) {
		t.Helper()
		r.gets("/a", "a", when)
		r.gets("/short", "a", when)
	}
	relay.Cut()
	stale := r.awaitState("consul_kv:own/", "stale")
	verify.That(t, len(stale.Errors) == 1 && stale.Revision != "", "%+v", stale)
	serves("without Consul")
	r.awaitLog("a source of the configuration cannot be read: what it said last stays in use")
	verify.Contains(t, r.metrics(), `sluice_config_source_state{source="consul_kv:own/",state="stale"} 1`, "the metrics do not say so")
	got := r.applied()
	verify.That(t, got.Number == number && got.Reloads.Refused == 0, "revision %d of %d, %d refused", got.Number, number, got.Reloads.Refused)
	r.write(text + ", { path: /more, service: short }]")
	r.answers("/more", "a")
	relay.Heal()
	r.awaitState("consul_kv:own/", "in_use")
	r.awaitLog("the source of the configuration can be read again")

	verify.NoError(t, agent.Kill())
	verify.NoError(t, agent.Launch(t.Context()))
	r.awaitStale("consul_kv:own/", "documents have disappeared")
	serves("after the loss")
	// Somebody writes them again, one by one: those that are not written yet stay in use.
	put(t, agent, "own/services/short", b)
	r.answers("/short", "b")
	r.gets("/a", "a")
	put(t, agent, "own/a.yaml", serving("a", a))
	r.awaitState("consul_kv:own/", "in_use")
	r.gets("/a", "a")
	verify.Equal(t, r.services.get("a").pool, pool, "the pool was replaced")
}

// A volume that is unmounted leaves its mount point, an empty directory: its documents stay in use,
// also after a restart and an upgrade.
func TestUnmountedVolume(t *testing.T) {
	t.Parallel()
	a, root := origin(t, "a"), t.TempDir()
	dir := filepath.Join(root, "routes.d")
	verify.NoError(t, os.Mkdir(dir, 0o755))
	writeFile(t, dir, "a.yaml", []byte(serving("a", a)))
	text := fmt.Sprintf("config: { history: %q }\ndynamic: [{ file: %q }]\n", root, dir+"/*.yaml")
	r := start(t, text)
	r.answers("/a", "a")
	verify.NoError(t, os.Rename(dir, dir+".away"))
	verify.NoError(t, os.Mkdir(dir, 0o755))
	for _, next := range []func(){func() {}, func() { r = r.restart() }, func() { r = r.upgrade(text, nil) }} {
		next()
		r.Reload()
		r.awaitStale(dir+"/*.yaml", "a.yaml")
		r.gets("/a", "a")
	}
	r.write(strings.Replace(text, `.yaml" }`, `.yaml", allow_empty: true }`, 1))
	r.awaitStatus("/a", http.StatusNotFound)
}
