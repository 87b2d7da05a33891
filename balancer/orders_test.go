package balancer

import (
	"slices"
	"testing"

	"sluice/discovery"
	"sluice/test/verify"
)

// An instance that is registered through two agents, or through another one than before, is the
// same peer with the same drain.
func TestAPeerOutlastsTheNodeOfItsRegistration(t *testing.T) {
	var got events
	p := newTestPool(t, Options{Policy: PolicySticky, Notify: got.notify})
	through := func(nodes ...string) discovery.Instance {
		set := instances(2)
		app := set[0]
		set = set[1:]
		for _, node := range nodes {
			app.Node = node
			set = append(set, app)
		}
		p.Apply(discovery.Normalize(set))
		return app
	}
	app := through("node-b")
	peer := peerOf(t, p, app)
	token := mustPick(t, p, &Query{Hash: peer.StickyID()})
	setReason(p, app.Key(), ReasonDrain, true, "broken")
	got.take()
	sticky := peer.StickyID()
	for _, nodes := range [][]string{{"node-b", "node-a"}, {"node-b", "node-c"}, {"node-z"}} {
		app := through(nodes...)
		verify.Require(t, peerOf(t, p, app) == peer && peer.State() == StateDraining &&
			peer.Inflight() == 1 && peer.StickyID() == sticky,
			"registered with %v: another peer: %v", nodes, p.Snapshot().All)
		verify.Equal(t, peer.Instance().Node, slices.Min(nodes), "registered with %v: the node", nodes)
	}
	want := []string{
		"updated star-0000: draining: node node-b → node-a", "updated star-0000: draining: node node-a → node-b",
		"updated star-0000: draining: node node-b → node-z",
	}
	verify.Slices(t, got.take(), want, "events")
	setReason(p, app.Key(), ReasonDrain, false, "")
	verify.Equal(t, peer.State(), StateUp, "state after the end of the drain")
	token.Done(Outcome{})
}

// A drain of a node applies to the instances that are registered with it, whenever they join or
// return.
func TestOrdersFollowTheInstance(t *testing.T) {
	p := newTestPool(t, Options{})
	set := instances(3)
	set[2].Node = "node-2"
	ofNode := func(i discovery.Instance) Orders { return Orders{Drain: i.Node == "node-2", Why: "new disks"} }
	p.SetOrders(ofNode)
	p.Apply(set)
	expectEligible(t, p, false, 0, 1)
	set = slices.Clone(set)
	set[0].Node, set[2].Node = "node-2", "node-1"
	p.Apply(set)
	expectEligible(t, p, false, 1, 2)
	verify.Slices(t, peerOf(t, p, set[0]).Reasons(), []string{"drain: new disks"}, "reasons")
	p.SetOrders(func(discovery.Instance) Orders { return Orders{} })
	expectEligible(t, p, false, 0, 1, 2)
	token := pickPeer(t, p, set[0])
	p.Apply(set[1:])
	p.SetOrders(ofNode) // while it leaves
	p.Apply(set)
	expectEligible(t, p, false, 1, 2)
	token.Done(Outcome{})
}

// An ordered weight replaces that of the registry, whatever the registry says meanwhile.
func TestAnOrderedWeight(t *testing.T) {
	set := instances(2)
	p := newTestPool(t, Options{Policy: PolicyRoundRobin}, set...)
	peer := peerOf(t, p, set[0])
	shares := func() (first int) {
		for range 120 {
			if picked(t, p, nil) == peer {
				first++
			}
		}
		return first
	}
	order := func(weight int) {
		p.SetOrders(func(i discovery.Instance) Orders {
			if i.Key() == set[0].Key() {
				return Orders{Weight: weight}
			}
			return Orders{}
		})
	}
	update := func(weight int, status discovery.Status) {
		set = slices.Clone(set)
		set[0].Weight, set[0].Status = weight, status
		p.Apply(set)
	}
	expect := func(weight int, state State, requests int) {
		t.Helper()
		verify.Equal(t, shares(), requests, "of 120 requests")
		verify.That(t, peer.Weight() == weight && peer.State() == state,
			"weight %d, state %v; want %d, %v", peer.Weight(), peer.State(), weight, state)
	}
	expect(1, StateUp, 60)
	order(5)
	expect(5, StateUp, 100)
	update(2, discovery.StatusPassing)
	expect(5, StateUp, 100)
	update(0, discovery.StatusPassing)
	expect(5, StateUp, 100)
	update(0, discovery.StatusCritical)
	expect(5, StateUnhealthy, 0)
	update(0, discovery.StatusPassing)
	order(0)
	expect(0, StateUnhealthy, 0)
	update(3, discovery.StatusPassing)
	expect(3, StateUp, 90)
	verify.Equal(t, peer.Instance().Weight, 3, "the registry's weight")
}
