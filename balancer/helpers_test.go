package balancer

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

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

func newTestPool(t testing.TB, o Options) *Pool {
	t.Helper()
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
