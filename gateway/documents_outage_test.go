package gateway

import (
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
	must := func(t *testing.T, err error) {
		t.Helper()
		verify.NoError(t, err)
	}
	type outage struct {
		private      bool            // it needs a Consul of its own,
		mode         consultest.Mode // of this kind
		begin, end   func(*testing.T, *consultest.Agent, *consultest.Relay)
		losesItsData bool
		long         bool // it is noticed at the end of a timeout
	}
	for name, o := range map[string]outage{
		"connections are refused": {
			begin: func(_ *testing.T, _ *consultest.Agent, relay *consultest.Relay) { relay.Cut() },
			end:   func(_ *testing.T, _ *consultest.Agent, relay *consultest.Relay) { relay.Heal() },
		},
		"connections hang": {
			long:  true,
			begin: func(_ *testing.T, _ *consultest.Agent, relay *consultest.Relay) { relay.Hang() },
			end:   func(_ *testing.T, _ *consultest.Agent, relay *consultest.Relay) { relay.Heal() },
		},
		"the agent hangs": {
			long: true, private: true,
			begin: func(t *testing.T, agent *consultest.Agent, _ *consultest.Relay) { must(t, agent.Pause()) },
			end:   func(t *testing.T, agent *consultest.Agent, _ *consultest.Relay) { must(t, agent.Resume()) },
		},
		"the agent is killed": {
			private: true, mode: consultest.Server,
			begin: func(t *testing.T, agent *consultest.Agent, _ *consultest.Relay) { must(t, agent.Kill()) },
			end:   func(t *testing.T, agent *consultest.Agent, _ *consultest.Relay) { must(t, agent.Launch(t.Context())) },
		},
		"the agent loses its data": {
			private: true, losesItsData: true,
			begin: func(t *testing.T, agent *consultest.Agent, _ *consultest.Relay) { must(t, agent.Kill()) },
			end:   func(t *testing.T, agent *consultest.Agent, _ *consultest.Relay) { must(t, agent.Launch(t.Context())) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if o.long {
				long.Test(t)
			}
			agent, own := shared.Agent(t)
			if o.private {
				agent = consultest.Start(t, consultest.Options{Mode: o.mode})
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
			o.begin(t, agent, relay)
			stale := r.awaitState(source, "stale")
			verify.That(t, len(stale.Errors) == 1 && stale.Revision != "", "%+v", stale)
			serves("without Consul")
			r.awaitLog("a source of the configuration cannot be read: what it said last stays in use")
			verify.Contains(t, r.metrics(), `sluice_config_source_state{source="`+source+`",state="stale"} 1`, "the metrics do not say so")
			got := r.applied()
			verify.That(t, got.Number == number && got.Reloads.Refused == 0, "revision %d of %d, %d refused", got.Number, number, got.Reloads.Refused)
			r.write(text + ", { path: /more, service: short }]")
			r.answers("/more", "a")

			o.end(t, agent, relay)
			if o.losesItsData {
				r.await("the loss is told", func() bool {
					stale := r.awaitState(source, "stale")
					return strings.Contains(strings.Join(stale.Errors, ""), "documents have disappeared")
				})
				serves("after the loss")
				// Somebody writes them again, one by one: those that are not written yet stay in use.
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
