package balancer

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cespare/xxhash/v2"

	"sluice/discovery"
)

// instance returns instance number n of a test service.
func instance(n, weight int) discovery.Instance {
	return discovery.Instance{
		Service: "star", ID: fmt.Sprintf("star-%04d", n), Node: "node-1",
		Address: "127.0.0.1", Port: 10000 + n, Weight: weight,
	}
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

// seeds has how many generators each test has got.
var seeds sync.Map

// seedOf returns the seed of a further generator for a test: the same ones each
// time that it runs.
func seedOf(t testing.TB) uint64 {
	n, _ := seeds.LoadOrStore(t, new(atomic.Uint64))
	return xxhash.Sum64String(t.Name()) + n.(*atomic.Uint64).Add(1)
}

// generator returns random numbers that are the same each time that the test
// runs. It is for one goroutine.
func generator(t testing.TB) *rand.Rand {
	seed := seedOf(t)
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// numbers returns a source for Options.Random that is safe for concurrent use and
// takes no lock (G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number
// Generators", OOPSLA 2014).
func numbers(seed uint64) func() uint64 {
	var state atomic.Uint64
	state.Store(seed)
	return func() uint64 { return mix(state.Add(0x9e3779b97f4a7c15)) }
}

// newTestPool returns a pool whose choices are the same each time that the test
// runs, as far as it has one goroutine. A benchmark's are as in production.
func newTestPool(t testing.TB, o Options) *Pool {
	t.Helper()
	if _, benchmark := t.(*testing.B); o.Random == nil && !benchmark {
		o.Random = numbers(seedOf(t))
	}
	p, err := NewPool("star", o)
	if err != nil {
		t.Fatalf("NewPool: %v", err)
	}
	return p
}

func mustPick(t testing.TB, p *Pool, q *Query) Token {
	t.Helper()
	token, err := p.Pick(q)
	if err != nil {
		t.Fatalf("Pick: %v", err)
	}
	return token
}

// ampleRetries is a budget that no test uses up.
var ampleRetries = &RetryBudget{Ratio: 1, MinPerSecond: 1e5}

// peerOf returns the peer of an instance that is in the set.
func peerOf(t testing.TB, p *Pool, i discovery.Instance) *Peer {
	t.Helper()
	for _, peer := range p.Snapshot().All {
		if peer.ID == i.Key() {
			return peer
		}
	}
	t.Fatalf("%v is not in the set", i.Key())
	return nil
}

// testTransport counts what the pool asks of it.
type testTransport struct {
	drains, suspicions, closes atomic.Int32
}

func (t *testTransport) Drain()   { t.drains.Add(1) }
func (t *testTransport) Suspect() { t.suspicions.Add(1) }
func (t *testTransport) Close()   { t.closes.Add(1) }

func newTestTransport(*Peer) Transport { return new(testTransport) }

func transportOf(p *Peer) *testTransport { return p.Transport.(*testTransport) }

// events collects what a pool tells, as "kind id: state: detail".
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
