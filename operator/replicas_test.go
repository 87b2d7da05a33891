package operator

import (
	"bytes"
	"context"
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
	"sluice/test/verify"
)

const prefix = "sluice-orders/edge"

// replica is a store that shares its orders.
type replica struct {
	*Peers
	t    *testing.T
	path string
	url  string // of Consul
	log  *output
}

// output is a log. It is safe for concurrent use.
type output struct {
	mu   sync.Mutex // guards the field below
	text bytes.Buffer
}

func (o *output) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(line)
}

func (o *output) has(text string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Contains(o.text.String(), text)
}

// wait is how long the queries of replicas block. A Consul that begins anew while a replica has no
// query under way is noticed when the next query ends.
const wait = 2 * time.Second

// startReplica starts a store with a file, until the test ends.
func startReplica(t *testing.T, name, url, path string) *replica {
	t.Helper()
	r := &replica{t: t, path: path, url: url, log: &output{}}
	log := zerolog.New(r.log)
	client := verify.Result(consul.New(consul.Options{Addresses: []string{url}, Log: log})).Must(t)
	r.Peers = New(Options{
		Path: path, Consul: client, Prefix: prefix, Wait: func() time.Duration { return wait },
		Replica: func() string { return name }, Log: log,
	})
	verify.NoError(t, r.Open())
	r.Resume()
	t.Cleanup(func() {
		r.Pause()
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
	verify.NoError(r.t, r.Await(context.Background(), o.Key(), time.Minute))
}

func (r *replica) end(o Order) {
	r.t.Helper()
	found, err := r.End(o.Key(), "")
	verify.Require(r.t, found && err == nil, "end: %v, %v", found, err)
	verify.NoError(r.t, r.Await(context.Background(), o.Key(), time.Minute))
}

func newFile(t *testing.T) string { return t.TempDir() + "/orders.json" }

// An order reaches all replicas, also later ones; the last one counts; and a restart without Consul
// has it.
func TestReplicasShareOrders(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
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
		s := a.State()
		return len(s.Orders) == 2 && s.Orders[0].Shared && s.Orders[1].Shared
	})
	a.Pause()
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	relay.Cut()
	again := startReplica(t, "a", relay.URL(), a.path)
	expectStanding(t, again.Peers, last)
	b.end(Order{Kind: Drain, Node: "n1", Datacenter: "dc1"}) // the restarted one does not write it again
	relay.Heal()
	again.await("weight 6 of star/star-2 (10.0.0.1:82)")
	b.await("weight 6 of star/star-2 (10.0.0.1:82)")
}

// Without Consul an order takes effect here. It is written when Consul is back, also after a restart
// in between, over what others have written meanwhile.
func TestOrdersWithoutConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
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
	verify.Result(a.End(a.Set().All()[0].Key(), "")).Must(t)
	const after = "weight 9 of star/star-2 (10.0.0.1:82); drain of star/star-3 (10.0.0.1:83)"
	expectStanding(t, a.Peers, after)
	err := a.Await(t.Context(), a.Set().All()[0].Key(), time.Minute)
	verify.That(t, err != nil, "Consul has accepted an order that it cannot have")
	a.awaitStatus("the status says what is wrong", func(s Status) bool { return s.Pending == 3 && s.Error != "" && s.Orders[0].Pending })
	expectStanding(t, b.Peers, before)
	a.Pause()
	again := startReplica(t, "a", relay.URL(), a.path)
	expectStanding(t, again.Peers, after)
	b.give(weightOf(star(2), 7))
	relay.Heal()
	again.await(after)
	b.await(after)
	again.awaitStatus("nothing is pending", func(s Status) bool { return s.Pending == 0 && s.Error == "" })
}

// A value that is no order changes nothing, and is told.
func TestBadKeys(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	a := startReplica(t, "a", agent.URL(), newFile(t))
	drain := drainOf(star(1))
	a.give(drain)
	put := func(key, value string) {
		t.Helper()
		verify.Result(agent.Client().KV().Put(&api.KVPair{Key: prefix + "/" + key, Value: []byte(value)}, nil)).Must(t)
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
		verify.That(t, got.Key == prefix+"/"+want.Key && strings.Contains(got.Reason, want.Reason) && got.InUse == want.InUse, "got %+v, want %+v", got, want)
	}
	verify.That(t, a.log.has("operators' orders: a key in Consul cannot be used"), "the log does not say so")
	expectStanding(t, a.Peers, "drain of star/star-1 (10.0.0.1:81)")
	a.give(weightOf(star(2), 3)) // replaces the bad value
	a.awaitStatus("one key less", func(s Status) bool { return len(s.Invalid) == 3 })
	a.end(drain)
	a.await("weight 3 of star/star-2 (10.0.0.1:82)")
	a.awaitStatus("one key less", func(s Status) bool { return len(s.Invalid) == 2 })
}

// An order that expires is deleted in Consul, unless it is a later one by then.
func TestExpiredOrdersLeaveConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	a, b := startReplica(t, "a", agent.URL(), newFile(t)), startReplica(t, "b", agent.URL(), newFile(t))
	value := `{"order":"drain","service":"star","id":"star-1","address":"10.0.0.1:81","since":"2000-01-01T12:00:00Z","until":"2000-01-01T12:30:00Z"}`
	pair := &api.KVPair{Key: prefix + "/peers/star/star-1/10.0.0.1:81/drain", Value: []byte(value)}
	verify.Result(agent.Client().KV().Put(pair, nil)).Must(t)
	consultest.Await(t, "Consul has no key", func() bool {
		keys, _, err := agent.Client().KV().Keys(prefix, "", nil)
		return err == nil && !slices.ContainsFunc(keys, func(k string) bool { return strings.HasSuffix(k, "/drain") })
	})
	a.give(drainOf(star(1)))
	b.await("drain of star/star-1 (10.0.0.1:81)")
	a.awaitStatus("nothing is pending", func(s Status) bool { return s.Pending == 0 })
}

// A Consul that begins anew gets the orders from the replicas.
func TestOrdersAreWrittenIntoANewConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	a := startReplica(t, "a", agent.URL(), newFile(t))
	for n := range 20 {
		a.give(weightOf(star(1), n+1))
	}
	a.give(drainOf(star(2)))
	a.awaitStatus("the watch has all", func(s Status) bool { return len(a.State().Orders) == 2 && a.State().Orders[1].Shared })
	verify.NoError(t, agent.Stop())
	verify.NoError(t, agent.Wipe())
	verify.NoError(t, agent.Launch(t.Context()))
	verify.NoError(t, agent.WaitReady(t.Context()))
	const both = "weight 20 of star/star-1 (10.0.0.1:81); drain of star/star-2 (10.0.0.1:82)"
	startReplica(t, "b", agent.URL(), newFile(t)).await(both)
	expectStanding(t, a.Peers, both)
}

// The permissions in the documentation are enough; without them an order takes effect here only.
func TestDocumentedPolicyOfOrders(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	rules := verify.Result(consultest.DocumentedPolicy("../docs/operations.md", "## Drains, weights and readiness")).Must(t)
	for _, allowed := range []bool{true, false} {
		if !allowed {
			rules = `service_prefix "" { policy = "read" }`
		}
		_, token, err := agent.NewToken("orders-"+map[bool]string{true: "allowed", false: "denied"}[allowed], rules)
		verify.NoError(t, err)
		client := verify.Result(consul.New(consul.Options{Addresses: []string{agent.URL()}, Token: token.SecretID, Log: zerolog.Nop()})).Must(t)
		s := New(Options{Consul: client, Prefix: "sluice-orders/sluice", Wait: func() time.Duration { return time.Minute }, Log: zerolog.Nop()})
		s.Resume()
		o := drainOf(star(1))
		verify.NoError(t, s.Give(o))
		err = s.Await(t.Context(), o.Key(), time.Minute)
		verify.That(t, (!allowed || err == nil) && (allowed || err != nil && strings.Contains(err.Error(), "lacks key:")), "allowed %v: %v", allowed, err)
		expectStanding(t, s, "drain of star/star-1 (10.0.0.1:81)")
		consultest.Await(t, "the stats say whether writes fail", func() bool {
			stats := s.Stats()
			return stats.Shared && stats.WriteFailed == !allowed && stats.InForce[Drain] == 1 && stats.InForce[Weight] == 0
		})
		s.Pause()
		client.Close()
	}
}

// A process that does not own follows Consul, and writes to it when it owns.
func TestOnlyTheOwnerWritesToConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	a := startReplica(t, "a", agent.URL(), newFile(t))
	client := verify.Result(consul.New(consul.Options{Addresses: []string{agent.URL()}, Log: zerolog.Nop()})).Must(t)
	var owns atomic.Bool
	var refused atomic.Int32
	next := New(Options{
		Consul: client, Prefix: prefix, Wait: func() time.Duration { return wait }, Log: zerolog.Nop(),
		Own: func(f func()) bool {
			if !owns.Load() {
				refused.Add(1)
				return false
			}
			f()
			return true
		},
	})
	t.Cleanup(func() {
		next.Pause()
		client.Close()
	})
	pending := drainOf(star(1))
	pending.Since = time.Now()
	next.Adopt(State[Order]{Prefix: prefix, Orders: []Saved[Order]{{Order: pending}}})
	next.Resume()
	a.give(drainOf(star(2)))
	both := "drain of star/star-1 (10.0.0.1:81); drain of star/star-2 (10.0.0.1:82)"
	consultest.Await(t, "it follows Consul", func() bool { return standing(next) == both })
	asked := refused.Load()
	consultest.Await(t, "the writer has asked again", func() bool { return refused.Load() > asked+1 })
	a.give(drainOf(star(3)))
	expectStanding(t, a.Peers, "drain of star/star-2 (10.0.0.1:82); drain of star/star-3 (10.0.0.1:83)")
	owns.Store(true)
	a.await(both + "; drain of star/star-3 (10.0.0.1:83)")
}
