package balancer

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"

	"sluice/discovery"
	"sluice/test/verify"
)

// instance returns instance number n of a test service.
func instance(n, weight int) discovery.Instance {
	return discovery.Instance{
		Service: "star", ID: fmt.Sprintf("star-%04d", n), Node: "node-1",
		Address: "127.0.0.1", Port: 10000 + n, Weight: weight,
	}
}

// setReason is Pool.SetReasons for one peer in the set; false without one. With ReasonDrain it is
// an operator's order beside the earlier ones.
func setReason(p *Pool, id discovery.Key, r Reason, down bool, why string) bool {
	if r != ReasonDrain {
		all := p.Snapshot().All
		i := slices.IndexFunc(all, func(peer *Peer) bool { return peer.ID == id })
		if i >= 0 {
			p.SetReasons(r, Verdict{Peer: all[i], Down: down, Why: why})
		}
		return i >= 0
	}
	earlier := p.orders
	p.SetOrders(func(i discovery.Instance) Orders {
		if i.Key() == id {
			return Orders{Drain: down, Why: why}
		}
		return earlier(i)
	})
	return true
}

// instances returns n instances of weight 1.
func instances(n int) []discovery.Instance {
	set := make([]discovery.Instance, n)
	for i := range set {
		set[i] = instance(i, 1)
	}
	return set
}

// withWeights returns one instance per weight.
func withWeights(weights ...int) []discovery.Instance {
	set := make([]discovery.Instance, len(weights))
	for i, w := range weights {
		set[i] = instance(i, w)
	}
	return set
}

// seeds contains the number of generators of each test.
var seeds sync.Map

// seedOf returns the seed of the next generator of a test, the same in each run.
func seedOf(t testing.TB) uint64 {
	n, _ := seeds.LoadOrStore(t, new(atomic.Uint64))
	return xxhash.Sum64String(t.Name()) + n.(*atomic.Uint64).Add(1)
}

// generator returns a generator with the same numbers in each run of the test, for one
// goroutine.
func generator(t testing.TB) *rand.Rand {
	seed := seedOf(t)
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// numbers returns a source for Options.Random for concurrent use without a lock (G. Steele,
// D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
func numbers(seed uint64) func() uint64 {
	var state atomic.Uint64
	state.Store(seed)
	return func() uint64 { return mix(state.Add(0x9e3779b97f4a7c15)) }
}

// newTestPool returns a pool, with a set if there is one. With one goroutine, its choices are the
// same in each run of a test; in a benchmark they are random.
func newTestPool(t testing.TB, o Options, set ...discovery.Instance) *Pool {
	t.Helper()
	if _, benchmark := t.(*testing.B); o.Random == nil && !benchmark {
		o.Random = numbers(seedOf(t))
	}
	p := NewPool("star", complete(o))
	if len(set) > 0 {
		p.Apply(set)
	}
	return p
}

func mustPick(t testing.TB, p *Pool, q *Query) Token {
	t.Helper()
	token, err := p.Pick(q)
	verify.Require(t, err == nil, "Pick: %v", err)
	return token
}

// picked returns the peer of a request that is answered at once.
func picked(t testing.TB, p *Pool, q *Query) *Peer {
	t.Helper()
	token := mustPick(t, p, q)
	token.Done(Outcome{})
	return token.Peer
}

// ampleRetries is a budget that no test exhausts.
var ampleRetries = &RetryBudget{Ratio: 1, MinPerSecond: 1e5}

// peerOf returns the peer of an instance in the set.
func peerOf(t testing.TB, p *Pool, i discovery.Instance) *Peer {
	t.Helper()
	all := p.Snapshot().All
	n := slices.IndexFunc(all, func(peer *Peer) bool { return peer.ID == i.Key() })
	verify.Require(t, n >= 0, "%v is not in the set", i.Key())
	return all[n]
}

// testTransport counts the calls of the pool.
type testTransport struct {
	drains, suspicions, closes atomic.Int32
}

func (t *testTransport) Drain()   { t.drains.Add(1) }
func (t *testTransport) Suspect() { t.suspicions.Add(1) }
func (t *testTransport) Close()   { t.closes.Add(1) }

func newTestTransport(*Peer) Transport { return new(testTransport) }

func transportOf(p *Peer) *testTransport { return p.Transport.(*testTransport) }

// events collects the events of a pool as "kind id: state: detail".
type events struct {
	mu    sync.Mutex
	lines []string
}

func (e *events) notify(event Event) {
	line := event.Kind.String()
	if event.Peer != nil {
		line += fmt.Sprintf(" %s: %s", event.Peer.ID.ID, event.State)
	}
	if event.Detail != "" {
		line += ": " + event.Detail
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, line)
}

// take returns the events since the last call.
func (e *events) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	taken := e.lines
	e.lines = nil
	return taken
}

// soonest is a heap of what is over at some time, the earliest first.
type soonest[T interface{ over() time.Duration }] []T

func (s soonest[T]) Len() int           { return len(s) }
func (s soonest[T]) Less(i, j int) bool { return s[i].over() < s[j].over() }
func (s soonest[T]) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *soonest[T]) Push(x any)        { *s = append(*s, x.(T)) }
func (s *soonest[T]) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// sumOf adds weights.
func sumOf(weights []int) (sum int) {
	for _, w := range weights {
		sum += w
	}
	return sum
}

// complete returns o with values for the options that a test does not set.
func complete(o Options) Options {
	o.Policy = cmp.Or(o.Policy, PolicyEWMA)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 30*time.Second)
	o.Overprovisioning = cmp.Or(o.Overprovisioning, 1.4)
	o.HashBound = cmp.Or(o.HashBound, 1.25)
	o.RetryBudget = cmp.Or(o.RetryBudget, &RetryBudget{Ratio: 0.2, MinPerSecond: 10})
	o.SlowStart.Aggression = cmp.Or(o.SlowStart.Aggression, 1)
	o.SlowStart.MinWeight = cmp.Or(o.SlowStart.MinWeight, 0.1)
	return o
}

// pass lets time pass in a bubble, and what is due happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
