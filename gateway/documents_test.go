package gateway

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/admin"
	"sluice/test/consultest"
	"sluice/test/etcdtest"
	"sluice/test/verify"
)

// treeBelow is the configuration of a gateway that follows the keys below prefix.
func treeBelow(agent, prefix, more string) string {
	return fmt.Sprintf("consul: { addresses: [%q], wait: 10m }\ndynamic: [{ consul_kv: { prefix: %s/ } }]\n", agent, prefix) + preamble + more
}

// serving returns a document with a service that has one peer, and a route for its path.
func serving(name, peer string) string {
	return fmt.Sprintf("services: { %s: { peers: [%q] } }\nroutes: [{ path: /%s, service: %s }]\n", name, peer, name, name)
}

// applied is what /api/config shows.
type applied struct {
	admin.Revision
	Reloads admin.Reloads
	States  []admin.Source
}

func (r *running) applied() (a applied) {
	r.t.Helper()
	r.api("/api/config", &a)
	return a
}

// awaitState waits until a source has a state, and returns it.
func (r *running) awaitState(source, state string) (found admin.Source) {
	r.t.Helper()
	r.await(source+" is "+state, func() bool {
		for _, s := range r.applied().States {
			if s.Name == source {
				found = s
			}
		}
		return found.State == state
	})
	return found
}

// awaitStale waits until a source is stale for one reason, which has a text. On a busy machine
// Consul may not answer for a while, which is another reason.
func (r *running) awaitStale(source, text string) {
	r.t.Helper()
	r.await(source+" is stale: "+text, func() bool {
		return slices.ContainsFunc(r.applied().States, func(s admin.Source) bool {
			return s.Name == source && s.State == "stale" && len(s.Errors) == 1 && strings.Contains(s.Errors[0], text)
		})
	})
}

// The documents of each source are in use from the first request on, and followed. One that cannot
// be used changes nothing, and does not keep the file from changing.
func TestDocumentsAreFollowed(t *testing.T) {
	t.Parallel()
	type source struct {
		name, settings string
		write          func(document, text string)
		remove         func(document string)
	}
	for kind, open := range map[string]func(*testing.T) source{
		"files": func(t *testing.T) source {
			dir := t.TempDir() + "/"
			return source{
				dir + "*.yaml", fmt.Sprintf("dynamic: [{ file: %q }]\n", dir+"*.yaml"),
				func(document, text string) { replaceFile(t, dir+document, text) },
				func(document string) { verify.NoError(t, os.Remove(dir+document)) },
			}
		},
		"Consul": func(t *testing.T) source {
			agent, own := shared.Agent(t)
			return source{
				"consul_kv:" + own + "/", treeBelow(agent.URL(), own, ""),
				func(document, text string) { put(t, agent, own+"/"+document, text) },
				func(document string) { verify.Result(agent.Client().KV().Delete(own+"/"+document, nil)).Must(t) },
			}
		},
		"etcd": func(t *testing.T) source {
			c := etcdtest.Start(t, etcdtest.Options{})
			client := c.Client(t)
			return source{
				"etcd:/config/", below(c),
				func(document, text string) { putKey(t, client, "/config/"+document, text) },
				func(document string) { deleteKey(t, client, "/config/"+document) },
			}
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			a, b := origin(t, "a"), origin(t, "b")
			file := func(path string) string {
				return s.settings + fmt.Sprintf("services: { fixed: { peers: [%q] } }\nroutes: [{ path: %s, service: fixed }]\n", b, path)
			}
			s.write("a.yaml", serving("a", a))
			r := start(t, file("/fixed"))
			r.gets("/a", "a")
			pool := r.services.get("a").pool
			s.write("b.yaml", serving("b", b))
			r.answers("/b", "b")
			s.write("b.yaml", strings.Replace(serving("b", b), "peers", "pears", 1))
			refused := r.awaitState(s.name, "refused")
			verify.Contains(t, strings.Join(refused.Errors, "\n"), "b.yaml:1: services.b.pears: unknown key", "errors")
			verify.That(t, refused.Offered != refused.Revision && refused.Offered != "", "%+v", refused)
			r.await("the refusal is the last error", func() bool {
				last := r.applied().Reloads.LastError
				return last != nil && last.Source == s.name
			})
			r.write(file("/more"))
			r.answers("/more", "b")
			r.gets("/b", "b")
			s.remove("b.yaml")
			r.awaitStatus("/b", http.StatusNotFound)
			verify.Equal(t, len(r.awaitState(s.name, "in_use").Errors), 0, "errors")
			verify.Equal(t, r.services.get("a").pool, pool, "the pool of the other service was replaced")
		})
	}
}

// What Consul does not say, or does not show, removes nothing.
func TestConsulTreeThatDisappears(t *testing.T) {
	t.Parallel()
	agent, own := sharedWithACLs.Agent(t)
	source, a := "consul_kv:"+own+"/", origin(t, "a")
	rules := fmt.Sprintf(`key_prefix "%s/" { policy = "read" }`, own)
	policy, token, err := agent.NewToken(own, rules)
	verify.NoError(t, err)
	put(t, agent, own+"/a.yaml", serving("a", a))
	put(t, agent, own+"/b.yaml", "")
	text := strings.Replace(treeBelow(agent.URL(), own, ""), "wait: 10m", "token: "+token.SecretID+", wait: 1s", 1)
	r := start(t, text)
	r.gets("/a", "a")
	serves := func(when string) {
		t.Helper()
		r.gets("/a", "a", when)
	}
	setRules := func(rules string) {
		t.Helper()
		policy.Rules = rules
		_, _, err := agent.Client().ACL().PolicyUpdate(policy, nil)
		verify.NoError(t, err)
	}
	setRules(rules + fmt.Sprintf(` key "%s/a.yaml" { policy = "deny" }`, own))
	r.awaitStale(source, "filtered by ACLs")
	serves("a key is hidden")
	setRules(rules)
	r.awaitState(source, "in_use")

	verify.Result(agent.Client().KV().DeleteTree(own+"/", nil)).Must(t)
	r.awaitStale(source, "allow_empty")
	serves("all keys are deleted")
	r.write(strings.Replace(text, "prefix: "+own+"/", "prefix: "+own+"/, allow_empty: true", 1))
	r.awaitStatus("/a", 404)
	r.awaitState(source, "in_use")
	put(t, agent, own+"/a.yaml", serving("a", a))
	r.answers("/a", "a")
}

// A first start without Consul: routes to services that only Consul's store can define are
// there, without peers. Nothing falls through to another route.
func TestStartWithoutConsul(t *testing.T) {
	t.Parallel()
	agent, own := shared.Agent(t)
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	relay.Cut()
	a, b := origin(t, "a"), origin(t, "b")
	put(t, agent, own+"/services/a", a)
	r := startWithin(t, treeBelow(relay.URL(), own, fmt.Sprintf("services: { b: { peers: [%q] } }\nroutes: [{ path: /a, service: a }, { service: b }]", b)), time.Millisecond)
	r.refuses("/a", 503)
	r.answers("/", "b")
	r.await("readyz names the source", func() bool {
		status, v := r.readyz()
		return status == 503 && slices.ContainsFunc(v.Missing, func(m string) bool { return strings.HasPrefix(m, "dynamic source consul_kv:"+own+"/: ") })
	})
	r.awaitState("consul_kv:"+own+"/", "waiting")
	relay.Heal()
	r.answers("/a", "a")
	r.awaitReady()
}
