package balancer

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
)

// An instance that an operator has drained gets no request after a new registration, until the
// operator ends the drain.
func TestADrainOutlastsReRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got events
		p := newTestPool(t, Options{NewTransport: newTestTransport, Notify: got.notify})
		set := instances(2)
		p.Apply(set)
		id := set[1].Key()
		p.SetReason(id, ReasonDrain, true, "upgrade")
		if s := p.StandingDrains(); s != nil {
			t.Errorf("standing drains %v while the instance is there, want none", s)
		}
		ordered := time.Now()
		time.Sleep(time.Minute)
		before := peerOf(t, p, set[1])
		p.Apply(set[:1])
		want := []StandingDrain{{ID: id, Node: "node-1", Why: "upgrade", Since: ordered}}
		if s := p.StandingDrains(); !slices.Equal(s, want) {
			t.Errorf("standing drains %v, want %v", s, want)
		}
		got.take()
		p.Apply(set)
		after := peerOf(t, p, set[1])
		if after == before {
			t.Fatal("the retired peer was reused")
		}
		if after.State() != StateDraining || !slices.Equal(after.Reasons(), []string{"drain: upgrade"}) {
			t.Errorf("state %v, reasons %q", after.State(), after.Reasons())
		}
		if e, want := got.take(), []string{"added star-0001: draining: drain: upgrade"}; !slices.Equal(e[:1], want) {
			t.Errorf("events %q, want %q first", e, want)
		}
		for range 50 {
			token := mustPick(t, p, nil)
			if token.Peer == after {
				t.Fatal("picked")
			}
			token.Done(Outcome{})
		}
		if !p.SetReason(id, ReasonDrain, false, "") || after.State() != StateUp {
			t.Errorf("state %v after the end of the drain", after.State())
		}
		p.Apply(set[:1])
		p.Apply(set)
		if state := peerOf(t, p, set[1]).State(); state != StateUp {
			t.Errorf("state %v: an ended drain is in force", state)
		}
	})
}

func TestADrainEndsWhileTheInstanceIsAbsent(t *testing.T) {
	for _, inflight := range []bool{false, true} { // whether the peer still exists
		p := newTestPool(t, Options{})
		set := instances(1)
		p.Apply(set)
		token := mustPick(t, p, nil)
		if !inflight {
			token.Done(Outcome{})
		}
		id := set[0].Key()
		p.SetReason(id, ReasonDrain, true, "")
		p.Apply(nil)
		if !p.SetReason(id, ReasonDrain, false, "") {
			t.Error("SetReason refuses a known instance")
		}
		if p.SetReason(instance(7, 1).Key(), ReasonDrain, false, "") || p.SetReason(instance(7, 1).Key(), ReasonDrain, true, "") {
			t.Error("SetReason accepts an unknown instance")
		}
		p.Apply(set)
		if state := peerOf(t, p, set[0]).State(); state != StateUp {
			t.Errorf("in flight %v: state %v, want up", inflight, state)
		}
		if inflight {
			p.Apply(nil)
			p.SetReason(id, ReasonDrain, true, "") // while it drains
			p.Apply(set)
			if state := peerOf(t, p, set[0]).State(); state != StateDraining {
				t.Errorf("state %v, want draining", state)
			}
			token.Done(Outcome{})
		}
	}
}

// If ids change with each deployment, standing drains accumulate: the oldest are dropped.
func TestStandingDrainsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{})
		present := instance(0, 1)
		p.Apply([]discovery.Instance{present})
		p.SetReason(present.Key(), ReasonDrain, true, "")
		for n := range maxStandingDrains + 50 {
			time.Sleep(time.Second)
			i := instance(n+1, 1)
			p.Apply([]discovery.Instance{present, i})
			p.SetReason(i.Key(), ReasonDrain, true, "")
		}
		p.Apply([]discovery.Instance{present})
		standing := p.StandingDrains()
		if len(standing) != maxStandingDrains-1 || standing[0].ID != instance(52, 1).Key() {
			t.Errorf("%d standing drains, the first of %v", len(standing), standing[0].ID)
		}
		p.Apply(nil)
		p.Apply([]discovery.Instance{present})
		if state := peerOf(t, p, present).State(); state != StateDraining {
			t.Errorf("state %v: the drain of a present instance was dropped", state)
		}
	})
}

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
	p.SetReason(app.Key(), ReasonDrain, true, "broken")
	got.take()
	sticky := peer.StickyID()
	for _, nodes := range [][]string{{"node-b", "node-a"}, {"node-b", "node-c"}, {"node-z"}} {
		app := through(nodes...)
		if peerOf(t, p, app) != peer || peer.State() != StateDraining || peer.Inflight() != 1 || peer.StickyID() != sticky {
			t.Fatalf("registered with %v: another peer: %v", nodes, p.Snapshot().All)
		}
		if node := peer.Instance().Node; node != slices.Min(nodes) {
			t.Errorf("registered with %v: the node is %q", nodes, node)
		}
	}
	want := []string{
		"updated star-0000: draining: node node-b → node-a", "updated star-0000: draining: node node-a → node-b",
		"updated star-0000: draining: node node-b → node-z",
	}
	if e := got.take(); !slices.Equal(e, want) {
		t.Errorf("events %q, want %q", e, want)
	}
	p.SetReason(app.Key(), ReasonDrain, false, "")
	if peer.State() != StateUp {
		t.Errorf("state %v after the end of the drain", peer.State())
	}
	token.Done(Outcome{})

	p.SetReason(app.Key(), ReasonDrain, true, "broken again")
	p.Apply(instances(2)[1:])
	if s := p.StandingDrains(); len(s) != 1 || s[0].Node != "node-z" {
		t.Errorf("standing drains %+v, want one of node-z", s)
	}
	if back := peerOf(t, p, through("node-y")); back.State() != StateDraining {
		t.Errorf("state %v of an instance that returned through another agent", back.State())
	}
}
