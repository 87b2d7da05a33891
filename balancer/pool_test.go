package balancer

import (
	"fmt"
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

func newTestPool(t testing.TB, o Options) *Pool {
	t.Helper()
	p, err := NewPool("star", o)
	if err != nil {
		t.Fatalf("NewPool: %v", err)
	}
	return p
}

func TestAnEmptyPoolIsANormalState(t *testing.T) {
	p := newTestPool(t, Options{})
	if _, err := p.Pick(nil); err != ErrNoPeers {
		t.Errorf("Pick = %v, want %v", err, ErrNoPeers)
	}
	changed := p.Changed()
	p.Apply(instances(1))
	<-changed
	token, err := p.Pick(nil)
	if err != nil {
		t.Fatalf("Pick: %v", err)
	}
	if got := token.Peer.Inflight(); got != 1 {
		t.Errorf("in flight %d, want 1", got)
	}
	token.Done(Outcome{})
	if got := token.Peer.Inflight(); got != 0 {
		t.Errorf("in flight %d, want 0", got)
	}
}

func TestARemovedPeerDrains(t *testing.T) {
	p := newTestPool(t, Options{})
	p.Apply(instances(1))
	token, _ := p.Pick(nil)
	p.Apply(nil)
	if got := token.Peer.State(); got != StateDraining {
		t.Errorf("state %v, want draining", got)
	}
	if n := len(p.Snapshot().Draining); n != 1 {
		t.Errorf("%d draining, want 1", n)
	}
	token.Done(Outcome{})
	if n := len(p.Snapshot().Draining); n != 0 {
		t.Errorf("%d draining, want 0", n)
	}
}
