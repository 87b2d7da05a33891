package gateway

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/verify"
)

// While Consul is away, and when it comes back without its data, its last documents stay in use,
// and everybody is told. The file can change meanwhile, and Consul's documents afterwards.
func TestConsulOutagesKeepTheDocuments(t *testing.T) {
	t.Parallel()
	type outage struct {
		begin, end   func(*consultest.Agent, *consultest.Relay) error
		losesItsData bool // a Consul of its own
		long         bool // it is noticed at the end of a timeout
	}
	heal := func(_ *consultest.Agent, relay *consultest.Relay) error { relay.Heal(); return nil }
	for name, o := range map[string]outage{
		"connections are refused": {begin: func(_ *consultest.Agent, relay *consultest.Relay) error { relay.Cut(); return nil }, end: heal},
		"connections hang":        {begin: func(_ *consultest.Agent, relay *consultest.Relay) error { relay.Hang(); return nil }, end: heal, long: true},
		"the agent loses its data": {
			begin:        func(agent *consultest.Agent, _ *consultest.Relay) error { return agent.Kill() },
			end:          func(agent *consultest.Agent, _ *consultest.Relay) error { return agent.Launch(t.Context()) },
			losesItsData: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if o.long {
				long.Test(t)
			}
			agent, own := shared.Agent(t)
			if o.losesItsData {
				agent = consultest.Start(t, consultest.Options{})
			}
			source := "consul_kv:" + own + "/"
			relay := consultest.StartRelay(t, agent.HTTPAddress())
			for range 20 { // so that the index of a new Consul is smaller
				put(t, agent, "other", "x")
			}
			a, b := origin(t, "a"), origin(t, "b")
			put(t, agent, own+"/a.yaml", serving("a", a))
			put(t, agent, own+"/services/short", a)
			text := strings.Replace(treeBelow(relay.URL(), own, "routes: [{ path: /short, service: short }"), "wait: 10m", "wait: 1s", 1)
			r := start(t, text+"]")
			r.answers("/a", "a")
			r.awaitState(source, "in_use")
			number, pool := r.applied().Number, r.services.get("a").pool
			serves := func(when string) {
				t.Helper()
				for _, path := range []string{"/a", "/short"} {
					r.gets(path, "a", when)
				}
			}
			verify.NoError(t, o.begin(agent, relay))
			stale := r.awaitState(source, "stale")
			verify.That(t, len(stale.Errors) == 1 && stale.Revision != "", "%+v", stale)
			serves("without Consul")
			r.awaitLog("a source of the configuration cannot be read: what it said last stays in use")
			verify.Contains(t, r.metrics(), `sluice_config_source_state{source="`+source+`",state="stale"} 1`, "the metrics do not say so")
			got := r.applied()
			verify.That(t, got.Number == number && got.Reloads.Refused == 0, "revision %d of %d, %d refused", got.Number, number, got.Reloads.Refused)
			r.write(text + ", { path: /more, service: short }]")
			r.answers("/more", "a")

			verify.NoError(t, o.end(agent, relay))
			if o.losesItsData {
				r.await("the loss is told", func() bool {
					stale := r.awaitState(source, "stale")
					return strings.Contains(strings.Join(stale.Errors, ""), "documents have disappeared")
				})
				serves("after the loss")
				// Somebody writes them again, one by one: those that are not written yet stay in
				// use.
				put(t, agent, own+"/services/short", b)
				r.answers("/short", "b")
				r.gets("/a", "a")
				put(t, agent, own+"/services/short", a)
				r.answers("/short", "a")
				put(t, agent, own+"/a.yaml", serving("a", a))
			}
			r.awaitState(source, "in_use")
			r.awaitLog("the source of the configuration can be read again")
			serves("with Consul")
			verify.Equal(t, r.services.get("a").pool, pool, "the pool was replaced")
			put(t, agent, own+"/services/short", b)
			r.answers("/short", "b")
		})
	}
}

// A volume that is unmounted leaves its mount point, an empty directory: its documents stay in use,
// also after a restart. With allow_empty they do not.
func TestUnmountedVolume(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	root := t.TempDir()
	dir := filepath.Join(root, "routes.d")
	verify.NoError(t, os.Mkdir(dir, 0o755))
	verify.NoError(t, os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(serving("a", a)), 0o600))
	pattern := dir + "/*.yaml"
	text := func(more string) string {
		return fmt.Sprintf("config: { history: %q }\ndynamic: [{ file: %q%s }]\nservices: { other: { peers: [%q] } }\nroutes: [{ path: /other, service: other }]",
			root, pattern, more, a)
	}
	r := start(t, text(""))
	r.answers("/a", "a")
	verify.NoError(t, os.Rename(dir, dir+".away"))
	verify.NoError(t, os.Mkdir(dir, 0o755))
	check := func(when string) {
		t.Helper()
		r.Reload()
		r.await(when+": the lost document is named", func() bool { // at first a new process has no answer yet
			s := r.awaitState(pattern, "stale")
			return len(s.Errors) == 1 && strings.Contains(s.Errors[0], "a.yaml")
		})
		r.gets("/a", "a", when)
	}
	check("unmounted")
	r = r.restart()
	check("after a restart")
	r = r.upgrade(text(""), nil)
	check("after an upgrade")
	r.write(text(", allow_empty: true"))
	r.awaitStatus("/a", http.StatusNotFound)
}
