package operator

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/consul/sharedkeys"
	"sluice/test/consultest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// prefixOf returns the prefix of the keys of a test, so that tests can share a Consul.
func prefixOf(t *testing.T) string { return "sluice-orders/" + t.Name() }

// replica is a store that shares its orders.
type replica struct {
	*Peers
	t    *testing.T
	path string
	log  *subprocess.Output
}

// wait is how long the queries of replicas block. A Consul that begins anew while a replica has no
// query under way is noticed when the next query ends.
const wait = 2 * time.Second

// token is of Consul, with all permissions.
const token = "2f6e6b1c-9d3a-4c57-8a1e-5b0c7d9e4f12"

// startReplica starts a store with a file, until the test ends. before may change it before it
// follows Consul.
func startReplica(t *testing.T, name, url, path string, before ...func(*Options)) *replica {
	t.Helper()
	r := &replica{t: t, path: path, log: new(subprocess.Output)}
	log := zerolog.New(r.log)
	client := verify.Result(consul.New(consul.Options{Addresses: []string{url}, Token: token, Log: log})).Must(t)
	o := Options{
		Backing: Backing{Path: path, Consul: client, Prefix: prefixOf(t), Wait: func() time.Duration { return wait }, Log: log},
		Replica: func() string { return name },
	}
	for _, change := range before {
		change(&o)
	}
	r.Peers = New(o)
	verify.NoError(t, r.Store.Open())
	r.Store.Resume()
	t.Cleanup(func() {
		r.Store.Pause()
		client.Close()
	})
	return r
}

func (r *replica) await(want string) {
	r.t.Helper()
	consultest.Await(r.t, "the orders "+want, func() bool { return standing(r.Peers) == want })
}

func (r *replica) awaitStatus(what string, f func(Status) bool) {
	r.t.Helper()
	consultest.Await(r.t, what, func() bool { return f(r.Status()) })
}

// give gives an order, and waits until Consul has it.
func (r *replica) give(o Order) {
	r.t.Helper()
	verify.NoError(r.t, r.Give(o))
	verify.NoError(r.t, r.Store.Await(context.Background(), o.Key(), time.Minute))
}

func (r *replica) end(o Order) {
	r.t.Helper()
	found, err := r.Store.End(o.Key(), "")
	verify.Require(r.t, found && err == nil, "end: %v, %v", found, err)
	verify.NoError(r.t, r.Store.Await(context.Background(), o.Key(), time.Minute))
}

func newFile(t *testing.T) string { return t.TempDir() + "/orders.json" }

// TestReplicas has tests with keys of their own in one Consul with ACLs, and one Consul that begins
// anew.
func TestReplicas(t *testing.T) {
	t.Parallel()
	agents := consultest.StartAll(t, consultest.Options{ACLs: true, Token: token}, consultest.Options{})
	agent := agents[0]
	for name, test := range map[string]func(*testing.T, *consultest.Agent){
		"share orders": testSharedOrders, "without Consul": testWithoutConsul, "bad keys": testBadKeys, "expired orders": testExpiredOrders,
		"the documented policy": testDocumentedPolicy, "only the owner writes": testOnlyTheOwnerWrites,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, agent)
		})
	}
	t.Run("a new Consul", func(t *testing.T) {
		t.Parallel()
		testNewConsul(t, agent, agents[1])
	})
}

// An order reaches all replicas, also later ones; the last one counts; and a restart without Consul
// has it.
func testSharedOrders(t *testing.T, agent *consultest.Agent) {
	a, b := startReplica(t, "a", agent.URL(), newFile(t)), startReplica(t, "b", agent.URL(), newFile(t))
	odd := star(1)
	odd.ID = "b/1 ü%2F"
	a.give(drainOf(odd))
	b.await("drain of star/b/1 ü%2F (10.0.0.1:81)")
	o := b.Set().All()[0]
	verify.That(t, o.Replica == "a", "got %+v", o)
	b.give(weightOf(star(2), 5))
	a.give(weightOf(star(2), 6))
	const both = "drain of star/b/1 ü%2F (10.0.0.1:81); weight 6 of star/star-2 (10.0.0.1:82)"
	a.await(both)
	b.await(both)
	b.give(Order{Kind: Drain, Node: "n1", Datacenter: "dc1"})
	b.end(drainOf(odd))
	const last = "drain of the node n1 of dc1; weight 6 of star/star-2 (10.0.0.1:82)"
	a.await(last)
	startReplica(t, "c", agent.URL(), newFile(t)).await(last)
	a.awaitStatus("nothing is pending", func(s Status) bool { return s.Shared && s.Saved && s.Pending == 0 && s.Error == "" })

	consultest.Await(t, "the file says that Consul has them", func() bool {
		text, err := os.ReadFile(a.path)
		return err == nil && strings.Count(string(text), `"shared": true`) == 2
	})
	a.Store.Pause()
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	relay.Cut()
	again := startReplica(t, "a", relay.URL(), a.path)
	expectStanding(t, again.Peers, last)
	b.end(Order{Kind: Drain, Node: "n1", Datacenter: "dc1"}) // the restarted one does not write it again
	relay.Heal()
	again.await("weight 6 of star/star-2 (10.0.0.1:82)")
	b.await("weight 6 of star/star-2 (10.0.0.1:82)")
}

// memory is a Consul in memory whose replicas never see all keys, with the values of keys.
type memory struct{ sync.Map }

// startMemory starts one until the test ends.
func startMemory(t *testing.T) (values *memory, url string) {
	values = new(memory)
	server := httptest.NewServer(values)
	t.Cleanup(server.Close)
	return values, server.URL
}

func (m *memory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Consul-Index", "7")
	w.Header().Set("X-Consul-KnownLeader", "true")
	key := strings.TrimPrefix(r.URL.Path, "/v1/kv/")
	value, there := m.Load(key)
	switch {
	case r.URL.Query().Has("recurse"):
		<-r.Context().Done()
	case r.URL.Path == "/v1/txn":
		var steps api.TxnOps
		_ = json.NewDecoder(r.Body).Decode(&steps)
		for _, step := range steps {
			switch step.KV.Verb {
			case api.KVCAS:
				m.Store(step.KV.Key, step.KV.Value)
			case api.KVDeleteCAS:
				m.Delete(step.KV.Key)
			}
		}
		io.WriteString(w, "{}")
	case r.Method == http.MethodPut:
		text, _ := io.ReadAll(r.Body)
		m.Store(key, text)
		io.WriteString(w, "true")
	case r.Method == http.MethodDelete:
		m.Delete(key)
		io.WriteString(w, "true")
	case there:
		_ = json.NewEncoder(w).Encode([]api.KVPair{{Key: key, Value: value.([]byte), ModifyIndex: 7}})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// An order that Consul has accepted is Consul's, also before an answer has it: the next process
// does not write it again, over what others have written since.
func TestAnAcceptedOrderIsNotWrittenAgain(t *testing.T) {
	t.Parallel()
	_, url := startMemory(t)
	a := startReplica(t, "a", url, newFile(t))
	a.give(drainOf(star(1)))
	e := a.Store.Entry(drainOf(star(1)).Key())
	verify.That(t, e.Changing, "an answer has the order: %+v", e)
	state := handedOver(t, a.Peers)
	verify.That(t, len(state.Orders) == 1 && state.Orders[0].Shared, "the state is %+v", state)
}

// An order that expires before Consul has it does not bring back the one that it has replaced, in
// this process or in the next one. One that others have given meanwhile stays.
func TestAReplacedOrderDoesNotComeBack(t *testing.T) {
	t.Parallel()
	earlier, other := drainOf(star(1)), drainOf(star(1))
	earlier.Since, other.Since = storedTime(time.Now()), storedTime(time.Now().Add(-time.Hour))
	for name, test := range map[string]struct {
		expired bool  // when the next process gets the state
		now     Order // in Consul
		stays   bool
	}{
		"it expires then": {false, earlier, false}, "it has expired": {true, earlier, false},
		"it expires then, and another is there": {false, other, true}, "it has expired, and another is there": {true, other, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old := New(Options{Backing: Backing{Prefix: prefixOf(t), Log: zerolog.Nop()}})
			old.Store.keys.Restore(map[string]Order{earlier.Key(): earlier}, nil, sharedkeys.Versions{})
			short := drainOf(star(1))
			short.Until = time.Now().Add(200 * time.Millisecond)
			for err := old.Give(short); err != nil; err = old.Give(short) { // the machine stood still
				verify.Require(t, !time.Now().Before(short.Until), "the order is refused: %v", err)
				short.Until = time.Now().Add(200 * time.Millisecond)
			}
			if test.expired {
				consultest.Await(t, "it has expired", func() bool { return standing(old) == "" })
			}
			file := newFile(t)
			verify.NoError(t, os.WriteFile(file, verify.Result(json.Marshal(old.Store.State())).Must(t), 0o600))

			values, url := startMemory(t)
			key := prefixOf(t) + "/" + earlier.Key()
			values.Store(key, verify.Result(json.Marshal(test.now)).Must(t))
			var owns atomic.Bool // nothing is written before
			next := startReplica(t, "next", url, file, func(o *Options) {
				o.Own = func(f func()) bool {
					if owns.Load() {
						f()
					}
					return owns.Load()
				}
			})
			next.await("")
			owns.Store(true)
			consultest.Await(t, "Consul has the change, or it is void", func() bool {
				e := next.Store.Entry(earlier.Key())
				return e.Changing && !e.Pending
			})
			_, there := values.Load(key)
			verify.Equal(t, there, test.stays, "Consul has an order")
		})
	}
}

// Without Consul an order takes effect here. It is written when Consul is back, also after a
// restart in between, over what others have written meanwhile.
func testWithoutConsul(t *testing.T, agent *consultest.Agent) {
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	b := startReplica(t, "b", agent.URL(), newFile(t))
	a := startReplica(t, "a", relay.URL(), newFile(t))
	b.give(drainOf(star(1)))
	b.give(weightOf(star(2), 5))
	const before = "drain of star/star-1 (10.0.0.1:81); weight 5 of star/star-2 (10.0.0.1:82)"
	a.await(before)
	relay.Cut()
	verify.NoError(t, a.Give(drainOf(star(3))))
	verify.NoError(t, a.Give(weightOf(star(2), 9)))
	verify.Result(a.Store.End(a.Set().All()[0].Key(), "")).Must(t)
	const after = "weight 9 of star/star-2 (10.0.0.1:82); drain of star/star-3 (10.0.0.1:83)"
	expectStanding(t, a.Peers, after)
	err := a.Store.Await(t.Context(), a.Set().All()[0].Key(), time.Minute)
	verify.That(t, err != nil, "Consul has accepted an order that it cannot have")
	a.awaitStatus("the status says what is wrong", func(s Status) bool { return s.Pending == 3 && s.Error != "" && s.Orders[0].Pending })
	expectStanding(t, b.Peers, before)
	a.Store.Pause()
	again := startReplica(t, "a", relay.URL(), a.path)
	expectStanding(t, again.Peers, after)
	b.give(weightOf(star(2), 7))
	relay.Heal()
	again.await(after)
	b.await(after)
	again.awaitStatus("nothing is pending", func(s Status) bool { return s.Pending == 0 && s.Error == "" })
}

// A value that is no order changes nothing, and is told.
func testBadKeys(t *testing.T, agent *consultest.Agent) {
	a := startReplica(t, "a", agent.URL(), newFile(t))
	drain := drainOf(star(1))
	a.give(drain)
	put := func(key, value string) {
		t.Helper()
		verify.Result(agent.Client().KV().Put(&api.KVPair{Key: prefixOf(t) + "/" + key, Value: []byte(value)}, nil)).Must(t)
	}
	put(drain.Key(), `{"order":"drain","service":"star"`)
	put("peers/star/star-2/10.0.0.1:82/weight", `{"order":"weight","service":"star","id":"star-2","address":"10.0.0.1:82","weight":0,"since":"2026-11-21T12:00:00Z"}`)
	put("nodes/n1/drain", `{"order":"drain","node":"n2","since":"2026-11-21T12:00:00Z"}`)
	put("nonsense", `true`)
	a.awaitStatus("the keys are told", func(s Status) bool { return len(s.Invalid) == 4 })
	for i, want := range []sharedkeys.Invalid{
		{Key: "nodes/n1/drain", Reason: "its order belongs to the key nodes/n2/drain"},
		{Key: "nonsense", Reason: "not an order"},
		{Key: drain.Key(), Reason: "not an order", InUse: true},
		{Key: "peers/star/star-2/10.0.0.1:82/weight", Reason: "weight 0: want a number from 1 to 65535"},
	} {
		got := a.Status().Invalid[i]
		verify.That(t, got.Key == prefixOf(t)+"/"+want.Key && strings.Contains(got.Reason, want.Reason) && got.InUse == want.InUse, "got %+v, want %+v", got, want)
	}
	verify.That(t, strings.Contains(a.log.String(), "operators' orders: a key in Consul cannot be used"), "the log does not say so")
	expectStanding(t, a.Peers, "drain of star/star-1 (10.0.0.1:81)")
	a.give(weightOf(star(2), 3)) // replaces the bad value
	a.awaitStatus("one key less", func(s Status) bool { return len(s.Invalid) == 3 })
	a.end(drain)
	a.await("weight 3 of star/star-2 (10.0.0.1:82)")
	a.awaitStatus("one key less", func(s Status) bool { return len(s.Invalid) == 2 })
}

// An order that expires is deleted in Consul, unless it is a later one by then.
func testExpiredOrders(t *testing.T, agent *consultest.Agent) {
	a, b := startReplica(t, "a", agent.URL(), newFile(t)), startReplica(t, "b", agent.URL(), newFile(t))
	value := `{"order":"drain","service":"star","id":"star-1","address":"10.0.0.1:81","since":"2000-01-01T12:00:00Z","until":"2000-01-01T12:30:00Z"}`
	pair := &api.KVPair{Key: prefixOf(t) + "/peers/star/star-1/10.0.0.1:81/drain", Value: []byte(value)}
	verify.Result(agent.Client().KV().Put(pair, nil)).Must(t)
	consultest.Await(t, "Consul has no key", func() bool {
		keys, _, err := agent.Client().KV().Keys(prefixOf(t), "", nil)
		return err == nil && !slices.ContainsFunc(keys, func(k string) bool { return strings.HasSuffix(k, "/drain") })
	})
	a.give(drainOf(star(1)))
	b.await("drain of star/star-1 (10.0.0.1:81)")
	a.awaitStatus("nothing is pending", func(s Status) bool { return s.Pending == 0 })
}

// A Consul that begins anew, here another one with a smaller index, gets the orders from the
// replicas.
func testNewConsul(t *testing.T, agent, other *consultest.Agent) {
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	a := startReplica(t, "a", relay.URL(), newFile(t))
	for n := range 20 {
		a.give(weightOf(star(1), n+1))
	}
	a.give(drainOf(star(2)))
	consultest.Await(t, "the watch has all", func() bool { return !a.Store.Entry(drainOf(star(2)).Key()).Changing })
	relay.Redirect(other.HTTPAddress())
	const both = "weight 20 of star/star-1 (10.0.0.1:81); drain of star/star-2 (10.0.0.1:82)"
	startReplica(t, "b", other.URL(), newFile(t)).await(both)
	expectStanding(t, a.Peers, both)
}

// The permissions in the documentation are enough; without them an order takes effect here only.
func testDocumentedPolicy(t *testing.T, agent *consultest.Agent) {
	rules := verify.Result(consultest.DocumentedPolicy("../docs/operations.md", "## Drains, weights and readiness")).Must(t)
	for _, allowed := range []bool{true, false} {
		if !allowed {
			rules = `service_prefix "" { policy = "read" }`
		}
		_, token, err := agent.NewToken("orders-"+map[bool]string{true: "allowed", false: "denied"}[allowed], rules)
		verify.NoError(t, err)
		client := verify.Result(consul.New(consul.Options{Addresses: []string{agent.URL()}, Token: token.SecretID, Log: zerolog.Nop()})).Must(t)
		s := New(Options{Backing: Backing{Consul: client, Prefix: "sluice-orders/sluice", Wait: func() time.Duration { return time.Minute }, Log: zerolog.Nop()}})
		s.Store.Resume()
		o := drainOf(star(1))
		verify.NoError(t, s.Give(o))
		err = s.Store.Await(t.Context(), o.Key(), time.Minute)
		verify.That(t, (!allowed || err == nil) && (allowed || err != nil && strings.Contains(err.Error(), "lacks key:")), "allowed %v: %v", allowed, err)
		expectStanding(t, s, "drain of star/star-1 (10.0.0.1:81)")
		consultest.Await(t, "the stats say whether writes fail", func() bool {
			stats := s.Stats()
			return stats.Shared && stats.WriteFailed == !allowed && stats.InForce[Drain] == 1 && stats.InForce[Weight] == 0
		})
		s.Store.Pause()
		client.Close()
	}
}

// A process that does not own follows Consul, and writes to it when it owns.
func testOnlyTheOwnerWrites(t *testing.T, agent *consultest.Agent) {
	a := startReplica(t, "a", agent.URL(), newFile(t))
	var owns atomic.Bool
	var refused atomic.Int32
	pending := drainOf(star(1))
	pending.Since = time.Now()
	file := newFile(t)
	state := verify.Result(json.Marshal(State[Order]{Version: version, Prefix: prefixOf(t), Orders: []Saved[Order]{{Order: pending}}})).Must(t)
	verify.NoError(t, os.WriteFile(file, state, 0o600))
	next := startReplica(t, "next", agent.URL(), file, func(o *Options) {
		o.Own = func(f func()) bool {
			if !owns.Load() {
				refused.Add(1)
				return false
			}
			f()
			return true
		}
	})
	a.give(drainOf(star(2)))
	both := "drain of star/star-1 (10.0.0.1:81); drain of star/star-2 (10.0.0.1:82)"
	consultest.Await(t, "it follows Consul", func() bool { return standing(next.Peers) == both })
	asked := refused.Load()
	consultest.Await(t, "the writer has asked again", func() bool { return refused.Load() > asked+1 })
	a.give(drainOf(star(3)))
	expectStanding(t, a.Peers, "drain of star/star-2 (10.0.0.1:82); drain of star/star-3 (10.0.0.1:83)")
	owns.Store(true)
	a.await(both + "; drain of star/star-3 (10.0.0.1:83)")
}
