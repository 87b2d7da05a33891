package gateway

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/config"
	"sluice/operator"
	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/verify"
)

// stateModel is what two replicas must have, whatever has happened to them and to Consul.
type stateModel struct {
	t         *testing.T
	random    *rand.Rand
	agent     *consultest.Agent
	relay     *consultest.Relay // between a and Consul
	own       string            // what the keys in Consul begin with
	a, b      *canaryRun        // only a is restarted, upgraded and rolled back
	text      string            // of a
	bodies    []string          // addresses of origins; the model has their indexes
	peersFile string            // of the service star
	peers     []string          // of the service star, whose ids are their addresses

	keys    map[string]int            // documents in Consul, with the origins of their routes
	said    map[string]int            // keys, and what Consul has lost
	served  map[string]int            // by a: said, or those of a pinned revision
	pinned  bool                      // served is not said
	was     map[uint64]map[string]int // served, by revision of a
	drained map[string]bool           // peers
	works   string                    // why star is in maintenance; "": it is in use
	share   float64                   // 0.5: that of the configuration
	off     bool                      // a is not ready by order
}

func (m *stateModel) names() []string { return slices.Sorted(maps.Keys(m.keys)) }

// changed says that Consul has other documents: a pin ends.
func (m *stateModel) changed() {
	m.served, m.pinned = maps.Clone(m.said), false
}

// order gives a random order about a share, a drain or the maintenance of star to a replica.
func (m *stateModel) order(r *canaryRun) (what string) {
	command := func(path string) string {
		verify.Equal(m.t, r.command(path), http.StatusOK, "POST %s", path)
		return path
	}
	switch peers := m.peers; m.random.IntN(6) {
	case 0:
		peer := peers[m.random.IntN(len(peers))]
		m.drained[peer] = true
		return command("/api/peers/star/" + peer + "/drain")
	case 1:
		for _, peer := range slices.Sorted(maps.Keys(m.drained)) {
			delete(m.drained, peer)
			return command("/api/peers/star/" + peer + "/enable")
		}
		fallthrough
	case 2:
		if m.share != 0.5 {
			m.share = 0.5
			return command("/api/shares/star/release")
		}
		fallthrough
	case 3:
		m.share = float64(1+m.random.IntN(40)) / 100
		return command(fmt.Sprintf("/api/shares/star?share=%v", m.share))
	case 4:
		if m.works != "" {
			m.works = ""
			return command("/api/services/star/maintenance/off")
		}
		fallthrough
	default:
		m.works = fmt.Sprintf("disk-%d", 10+m.random.IntN(90))
		return command("/api/services/star/maintenance/on?why=" + m.works)
	}
}

// tells reports whether a client of a replica is told of the maintenance of star and why, or of
// none.
func (m *stateModel) tells(r *running) bool {
	got := r.do(r.request(http.MethodGet, r.url("web")+"/star", nil))
	told := got.StatusCode == http.StatusServiceUnavailable && got.Header.Get("X-Sluice-Reason") == "maintenance"
	return told == (m.works != "") && (!told || strings.Contains(got.body, m.works))
}

// upgrade replaces a. The old process tells clients of a maintenance, and the new one from its
// first request on. meanwhile is called after the old one has given its state.
func (m *stateModel) upgrade(meanwhile func()) {
	old, works := m.a, m.works
	m.a = &canaryRun{running: old.upgrade(m.text, afterHandover(m.t, func() {
		verify.That(m.t, m.tells(old.running), "the old process: want the maintenance %q", works)
		meanwhile()
	}))}
	verify.That(m.t, m.works != works || m.tells(m.a.running), "the new process: want the maintenance %q", works)
	old.end()
}

func (m *stateModel) step() (what string) {
	switch m.random.IntN(12) {
	case 0, 1:
		name, body := fmt.Sprint("d", m.random.IntN(4)), m.random.IntN(len(m.bodies))
		before, had := m.said[name]
		put(m.t, m.agent, m.own+"/documents/"+name+".yaml", serving(name, m.bodies[body]))
		m.keys[name], m.said[name] = body, body
		if !had || before != body {
			m.changed()
		}
		return fmt.Sprint("write ", name, body)
	case 2:
		if len(m.keys) < 2 {
			return ""
		}
		name := m.names()[m.random.IntN(len(m.keys))]
		verify.Result(m.agent.Client().KV().Delete(m.own+"/documents/"+name+".yaml", nil)).Must(m.t)
		delete(m.keys, name)
		delete(m.said, name)
		m.changed()
		return "delete " + name
	case 3: // Consul loses all that it knows
		for _, prefix := range []string{m.own + "/documents/", m.own + "/"} {
			verify.Result(m.agent.Client().KV().DeleteTree(prefix, nil)).Must(m.t)
		}
		clear(m.keys)
		return "wipe"
	case 4:
		m.a.end()
		m.a = &canaryRun{running: start(m.t, m.text)}
		m.off = false
		verify.That(m.t, m.tells(m.a.running), "after a restart: want the maintenance %q", m.works)
		return "restart"
	case 5:
		what = "upgrade"
		m.upgrade(func() {
			if m.random.IntN(2) == 0 {
				what += ", meanwhile at the other replica " + m.order(m.b)
			}
		})
		return what
	case 6:
		number := slices.Sorted(maps.Keys(m.was))[m.random.IntN(len(m.was))]
		status, done := m.a.rollBack(number, m.a.applied().Hash)
		verify.Require(m.t, status == http.StatusOK, "rollback to %d: %d %+v", number, status, done)
		m.served = maps.Clone(m.was[number])
		m.pinned = !maps.Equal(m.served, m.said)
		return fmt.Sprint("rollback to ", number)
	case 7:
		m.off = !m.off
		path := map[bool]string{true: "/api/ready/off", false: "/api/ready/on"}[m.off]
		verify.Equal(m.t, m.a.command(path), http.StatusOK, "POST %s", path)
		return path
	case 8:
		m.a.Reload()
		return "reload"
	case 9: // the new process never has the peers that the old one has
		next := m.a.succeed(strings.Replace(m.text, m.peersFile, m.peersFile+".missing", 1), nil, time.Second)
		what = "failed upgrade, meanwhile at the other replica " + m.order(m.b)
		next.fails()
		return what
	case 10: // Consul does not answer a, which obeys at once
		m.relay.Cut()
		defer m.relay.Heal()
		what = "without Consul " + m.order(m.a)
		verify.That(m.t, m.tells(m.a.running), "%s: want the maintenance %q", what, m.works)
		if m.random.IntN(2) == 0 {
			what += ", then an upgrade"
			m.upgrade(func() {})
		}
		return what
	default:
		r := []*canaryRun{m.a, m.b}[m.random.IntN(2)]
		return m.order(r)
	}
}

// check waits until both replicas have what the model has, and nothing is on its way.
func (m *stateModel) check(what string) {
	m.t.Helper()
	for name, r := range map[string]*canaryRun{"a": m.a, "b": m.b} {
		want := m.said
		if name == "a" {
			want = m.served
		}
		r.await(fmt.Sprintf("after %s: %s serves %v", what, name, want), func() bool {
			for i := range 4 {
				path := fmt.Sprint("d", i)
				status, body := r.get("/" + path)
				if origin, ok := want[path]; ok && (status != http.StatusOK || body != fmt.Sprint(origin)) || !ok && status != http.StatusNotFound {
					return false
				}
			}
			return true
		})
		// A wipe that is followed by a write at once is a deletion, if the index of Consul goes on.
		r.await(fmt.Sprintf("after %s: %s lacks %d of %v", what, name, len(m.said)-len(m.keys), m.said), func() bool {
			sources := r.documents.Statuses() // the file is the first
			if len(sources) != 2 {
				return false
			}
			said := sources[1].Source.LastSaid()
			return len(said.Lost) == len(m.said)-len(m.keys) && len(said.Documents) == len(m.said)
		})
		r.await(fmt.Sprintf("after %s: %s drains %v, maintenance %q", what, name, m.drained, m.works), func() bool {
			status, want := r.orders.Status(), len(m.drained)
			if m.works != "" {
				want++
			}
			for _, o := range status.Orders {
				if o.OfService() && o.Why != m.works || !o.OfService() && !m.drained[o.ID] {
					return false
				}
			}
			return len(status.Orders) == want && status.Pending == 0 && m.tells(r.running)
		})
		r.await(fmt.Sprintf("after %s: %s has the share %v", what, name, m.share), func() bool {
			s := r.split()
			return s.Share == m.share && s.Shared.Error == "" && !s.Shared.Pending && !r.shares.Store.Entry("shares/star").Changing
		})
		// What is ended while Consul has lost it may come back.
		r.await(fmt.Sprintf("after %s: Consul has what %s has", what, name), func() bool {
			return inConsul(m, m.own+"/orders", r.orders.Store) && inConsul(m, m.own+"/canary", r.shares.Store)
		})
	}
	m.a.await(fmt.Sprintf("after %s: not ready %v", what, m.off), func() bool { return (m.a.process.State().NotReady != nil) == m.off })
	var recorded config.Revision // it serves before it is recorded
	m.a.await(fmt.Sprintf("after %s: a records %v, pinned %v", what, m.served, m.pinned), func() bool {
		recorded = m.a.history.Current()
		source := recorded.Sources[len(recorded.Sources)-1]
		return (source.Pin != nil) == m.pinned && maps.Equal(m.textsOf(source), m.textsOf(m.source()))
	})
	m.was[recorded.Number] = maps.Clone(m.served)
}

// inConsul reports whether Consul has all orders of a replica and the mark, and the replica knows
// that.
func inConsul[V operator.Value[V]](m *stateModel, prefix string, store *operator.Store[V]) bool {
	pairs, _, err := m.agent.Client().KV().List(prefix+"/", nil)
	verify.NoError(m.t, err)
	indexes := make(map[string]uint64)
	for _, p := range pairs {
		indexes[strings.TrimPrefix(p.Key, prefix+"/")] = p.ModifyIndex
	}
	for key := range store.All() {
		if e := store.Entry(key); e.Changing || e.Index != indexes[key] || indexes["begun"] == 0 {
			return false
		}
	}
	return true
}

// source is what a must use.
func (m *stateModel) source() (s config.Source) {
	for name, body := range m.served {
		s.Documents = append(s.Documents, config.Document{Name: "consul_kv:" + m.own + "/documents/" + name + ".yaml", Text: serving(name, m.bodies[body])})
	}
	return s
}

func (m *stateModel) textsOf(s config.Source) map[string]string {
	texts := make(map[string]string)
	for _, d := range s.Documents {
		texts[d.Name] = d.Text
	}
	return texts
}

// What a client of the API was told with 200 holds, nothing that ended revives, and nothing goes
// that Consul has lost: whatever is ordered, written, wiped, restarted, upgraded and rolled back,
// in whatever order.
func TestStateAtRandom(t *testing.T) {
	t.Parallel()
	s := newSharers(t)
	m := &stateModel{
		t: t, random: rand.New(rand.NewPCG(verify.Seed(t), 0)), agent: s.agent, relay: consultest.StartRelay(t, s.agent.HTTPAddress()), own: s.own, share: 0.5, peersFile: s.peers,
		bodies: []string{origin(t, "0"), origin(t, "1")},
		keys:   make(map[string]int), said: make(map[string]int), served: make(map[string]int),
		was: make(map[uint64]map[string]int), drained: make(map[string]bool),
	}
	text := strings.Replace(s.text(s.agent.URL(), "50%", "act: report"), "routes: [{ service: star }]", "routes: [{ path: /star, service: star }]", 1)
	text = strings.Replace(text, "shares: ", "orders: "+s.own+"/orders, wait: 1s, shares: ", 1) + "dynamic: [{ consul_kv: { prefix: " + s.own + "/documents/ } }]\n"
	m.text = fmt.Sprintf("config: { history: %q }\n", filepath.Join(t.TempDir(), "history")) + strings.Replace(text, s.agent.URL(), m.relay.URL(), 1)
	put(t, s.agent, s.own+"/documents/d0.yaml", serving("d0", m.bodies[0]))
	m.keys["d0"], m.said["d0"], m.served["d0"] = 0, 0, 0
	m.a, m.b = &canaryRun{running: start(t, m.text)}, &canaryRun{running: start(t, text)}
	m.check("the start")
	m.a.await("star has its peers", func() bool {
		m.peers = nil
		for id, peer := range m.a.peers() {
			if peer.Service == "star" {
				m.peers = append(m.peers, id)
			}
		}
		return len(m.peers) == 3
	})
	slices.Sort(m.peers)
	for range long.Count(t, 8, 25) {
		what := m.step()
		if what == "" {
			continue
		}
		t.Log(what)
		m.check(what)
	}
}
