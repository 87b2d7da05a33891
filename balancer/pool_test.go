package balancer

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
)

func TestAnEmptyPoolIsANormalState(t *testing.T) {
	p := newTestPool(t, Options{})
	changed := p.Changed()
	if _, err := p.Pick(nil); err != ErrNoPeers {
		t.Errorf("Pick = %v, want %v", err, ErrNoPeers)
	}
	p.Apply(instances(1))
	<-changed
	token := mustPick(t, p, nil)
	if got := token.Peer.Inflight(); got != 1 {
		t.Errorf("in flight %d, want 1", got)
	}
	token.Done(Outcome{Class: OutcomeOK, Status: 200})
	if got := token.Peer.Inflight(); got != 0 {
		t.Errorf("in flight %d, want 0", got)
	}
	p.Apply(nil)
	if _, err := p.Pick(nil); err != ErrNoPeers {
		t.Errorf("Pick = %v, want %v", err, ErrNoPeers)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{Policy: "fastest"}, {DrainTimeout: -1},
		{Limits: Limits{Requests: -1}}, {Limits: Limits{Retries: -1}},
		{RetryBudget: &RetryBudget{Ratio: -.1}}, {RetryBudget: &RetryBudget{MinPerSecond: math.NaN()}}, {RetryBudget: &RetryBudget{Ratio: math.Inf(1)}},
	} {
		if _, err := NewPool("star", o); err == nil || !strings.Contains(err.Error(), `pool "star"`) {
			t.Errorf("NewPool(%+v): error %v, want one that names the pool", o, err)
		}
		p := newTestPool(t, Options{Policy: PolicyRandom})
		if err := p.Reconfigure(o); err == nil {
			t.Errorf("Reconfigure(%+v): no error", o)
		}
		if p.options.Policy != PolicyRandom {
			t.Errorf("a refused Reconfigure changed the policy to %q", p.options.Policy)
		}
	}
}

// What a peer has must survive whatever does not make it another peer.
func TestWeightOnlyChangeKeepsState(t *testing.T) {
	p := newTestPool(t, Options{NewTransport: newTestTransport})
	p.Apply(instances(1))
	first := mustPick(t, p, nil)
	first.Done(Outcome{Class: OutcomeServerError, Latency: 7 * time.Millisecond})
	second := mustPick(t, p, nil)
	peer, transport, latency := second.Peer, second.Peer.Transport, second.Peer.Latency()

	changed := instance(0, 5)
	changed.Tags = []string{"v2"}
	changed.Meta = map[string]string{"zone": "b"}
	changed.Status = discovery.StatusWarning
	changes := p.Apply([]discovery.Instance{changed, instance(1, 1)})
	if len(changes.Updated) != 1 || len(changes.Added) != 1 || len(changes.Removed) != 0 {
		t.Errorf("changes %+v, want one update and one addition", changes)
	}
	if got := peerOf(t, p, changed); got != peer {
		t.Fatalf("the peer was replaced")
	}
	if peer.Weight() != 5 || peer.Instance().Tags[0] != "v2" || peer.Instance().Meta["zone"] != "b" {
		t.Errorf("weight %d, instance %+v; want what was applied", peer.Weight(), peer.Instance())
	}
	if peer.Inflight() != 1 || peer.Requests() != 1 || peer.Failures() != 1 || peer.Latency() != latency || latency == 0 {
		t.Errorf("in flight %d, requests %d, failures %d, latency %v; want 1, 1, 1, %v",
			peer.Inflight(), peer.Requests(), peer.Failures(), peer.Latency(), latency)
	}
	if peer.Transport != transport || transportOf(peer).drains.Load() != 0 || transportOf(peer).closes.Load() != 0 {
		t.Error("the transport was replaced, drained or closed")
	}
	if err := p.Reconfigure(Options{Policy: PolicyRoundRobin}); err != nil {
		t.Fatal(err)
	}
	if peerOf(t, p, changed) != peer || peer.Inflight() != 1 || peer.Transport != transport {
		t.Error("Reconfigure lost state")
	}
	second.Done(Outcome{})
}

func TestSameIDAtNewAddressIsAnotherPeer(t *testing.T) {
	p := newTestPool(t, Options{NewTransport: newTestTransport})
	p.Apply(instances(1))
	token := mustPick(t, p, nil)
	old := token.Peer
	moved := instance(0, 1)
	moved.Port++
	changes := p.Apply([]discovery.Instance{moved})
	if len(changes.Added) != 1 || len(changes.Removed) != 1 {
		t.Errorf("changes %+v, want one addition and one removal", changes)
	}
	next := mustPick(t, p, nil)
	if next.Peer == old {
		t.Error("the old address was picked")
	}
	if next.Peer.Transport == old.Transport {
		t.Error("the old transport is used for the new address")
	}
	if got := old.State(); got != StateDraining {
		t.Errorf("the old peer is %v, want draining", got)
	}
	next.Done(Outcome{})
	token.Done(Outcome{})
	if got := transportOf(old).closes.Load(); got != 1 {
		t.Errorf("the old transport was closed %d times, want once", got)
	}
}

func TestUnchangedSetChangesNothing(t *testing.T) {
	var got events
	p := newTestPool(t, Options{Notify: got.notify})
	set := instances(3)
	p.Apply(set)
	got.take()
	before := p.Snapshot()
	reversed := slices.Clone(set)
	slices.Reverse(reversed)
	if changes := p.Apply(reversed); !changes.Empty() {
		t.Errorf("changes %+v, want none", changes)
	}
	if p.Snapshot() != before {
		t.Error("there is a new snapshot")
	}
	if e := got.take(); e != nil {
		t.Errorf("events %q, want none", e)
	}
}

func TestHealthOfTheRegistry(t *testing.T) {
	f := func(status discovery.Status, weight int, detail string, want State, reasons ...string) {
		t.Helper()
		p := newTestPool(t, Options{})
		i := instance(0, weight)
		i.Status, i.Detail = status, detail
		p.Apply([]discovery.Instance{i})
		peer := peerOf(t, p, i)
		if got := peer.State(); got != want {
			t.Errorf("%v, weight %d: state %v, want %v", status, weight, got, want)
		}
		if got := peer.Reasons(); !slices.Equal(got, reasons) {
			t.Errorf("%v, weight %d: reasons %q, want %q", status, weight, got, reasons)
		}
		_, err := p.Pick(nil)
		if want == StateUp && err != nil || want != StateUp && err != ErrNoEligible {
			t.Errorf("%v, weight %d: Pick: %v", status, weight, err)
		}
	}
	f(discovery.StatusPassing, 1, "", StateUp)
	f(discovery.StatusPassing, 1<<40, "", StateUp)
	f(discovery.StatusPassing, 0, "", StateUnhealthy, "consul: weight 0")
	f(discovery.StatusPassing, -1, "", StateUnhealthy, "consul: weight 0")
	f(discovery.StatusWarning, 1, "disk: 91 %", StateUp)
	f(discovery.StatusWarning, 0, "disk: 91 %", StateUnhealthy, "consul: warning: disk: 91 %")
	f(discovery.StatusCritical, 0, "http: refused", StateUnhealthy, "consul: critical: http: refused")
	f(discovery.StatusCritical, 1, "", StateUnhealthy, "consul: critical")
	f(discovery.StatusMaintenance, 0, "", StateUnhealthy, "consul: maintenance")
}

// Nobody can undo what somebody else found.
func TestEachReasonHasItsOwner(t *testing.T) {
	p := newTestPool(t, Options{})
	i := instance(0, 1)
	p.Apply([]discovery.Instance{i})
	peer := peerOf(t, p, i)
	expect := func(want State, reasons ...string) {
		t.Helper()
		if got := peer.State(); got != want {
			t.Errorf("state %v, want %v", got, want)
		}
		if got := peer.Reasons(); !slices.Equal(got, reasons) {
			t.Errorf("reasons %q, want %q", got, reasons)
		}
		if eligible := len(p.Snapshot().Eligible) == 1; eligible != (reasons == nil) {
			t.Errorf("eligible: %v, with reasons %q", eligible, reasons)
		}
	}
	set := func(r Reason, down bool, why string) {
		t.Helper()
		if !p.SetReason(i.Key(), r, down, why) {
			t.Error("SetReason does not know the peer")
		}
	}
	expect(StateUp)
	set(ReasonEjected, true, "5 failures in a row")
	expect(StateEjected, "ejected: 5 failures in a row")
	set(ReasonActive, true, "")
	expect(StateUnhealthy, "active", "ejected: 5 failures in a row")
	set(ReasonDrain, true, "by alice")
	expect(StateDraining, "active", "ejected: 5 failures in a row", "drain: by alice")
	i.Status = discovery.StatusCritical
	p.Apply([]discovery.Instance{i})
	expect(StateDraining, "consul: critical", "active", "ejected: 5 failures in a row", "drain: by alice")
	set(ReasonDrain, false, "")
	set(ReasonEjected, false, "ignored")
	expect(StateUnhealthy, "consul: critical", "active")
	i.Status = discovery.StatusPassing
	p.Apply([]discovery.Instance{i})
	expect(StateUnhealthy, "active")
	set(ReasonActive, false, "")
	expect(StateUp)

	if p.SetReason(instance(1, 1).Key(), ReasonActive, true, "") {
		t.Error("SetReason knows a peer that is not there")
	}
	defer func() {
		if recover() == nil {
			t.Error("SetReason lets others set ReasonConsul")
		}
	}()
	p.SetReason(i.Key(), ReasonConsul, false, "")
}

func TestIneligiblePeersAreNotPicked(t *testing.T) {
	for _, policy := range Policies() {
		p := newTestPool(t, Options{Policy: policy, NewTransport: newTestTransport})
		p.Apply(instances(5))
		for i := range 4 {
			p.SetReason(instance(i, 1).Key(), ReasonActive, true, "")
			if got := transportOf(peerOf(t, p, instance(i, 1))).drains.Load(); got != 1 {
				t.Errorf("%s: transport drained %d times, want once", policy, got)
			}
		}
		for range 100 {
			token := mustPick(t, p, nil)
			if got := token.Peer.ID; got != instance(4, 1).Key() {
				t.Errorf("%s: picked %v", policy, got)
			}
			token.Done(Outcome{})
		}
		p.SetReason(instance(4, 1).Key(), ReasonEjected, true, "")
		if _, err := p.Pick(nil); err != ErrNoEligible {
			t.Errorf("%s: Pick = %v, want %v", policy, err, ErrNoEligible)
		}
		p.SetReason(instance(2, 1).Key(), ReasonActive, false, "")
		token := mustPick(t, p, nil)
		if got := token.Peer.ID; got != instance(2, 1).Key() {
			t.Errorf("%s: picked %v", policy, got)
		}
		token.Done(Outcome{})
	}
}

// A request goes to another peer each time, whatever the weights, until it has
// been everywhere.
func TestTriedPeersAreNotPickedAgain(t *testing.T) {
	for _, policy := range Policies() {
		for _, weights := range [][]int{{1}, {1, 1}, {1, 1, 1, 1}, {1000, 1, 1}, {5000, 5000, 5000, 1}} {
			p := newTestPool(t, Options{Policy: policy, RetryBudget: ampleRetries})
			p.Apply(withWeights(weights...))
			for range 50 {
				var q Query
				for range weights {
					token, err := p.Pick(&q)
					if err != nil {
						t.Fatalf("%s %v: with %d tried: %v", policy, weights, q.Tried.Len(), err)
					}
					if q.Tried.Has(token.Peer) {
						t.Fatalf("%s %v: picked a tried peer", policy, weights)
					}
					q.Tried.Add(token.Peer)
					token.Done(Outcome{})
				}
				if _, err := p.Pick(&q); err != ErrAllTried {
					t.Errorf("%s %v: all tried: %v, want %v", policy, weights, err, ErrAllTried)
				}
			}
		}
	}
}

func TestTriedSet(t *testing.T) {
	var s TriedSet
	peers := make([]Peer, maxTried+1)
	for i := range peers[:maxTried] {
		if s.Has(&peers[i]) {
			t.Errorf("has peer %d before it was added", i)
		}
		s.Add(&peers[i])
		s.Add(&peers[i])
		if !s.Has(&peers[i]) || s.Len() != i+1 {
			t.Errorf("after peer %d: has it: %v, length %d", i, s.Has(&peers[i]), s.Len())
		}
	}
	s.Add(&peers[maxTried])
	if s.Len() != maxTried || s.Has(&peers[0]) || !s.Has(&peers[1]) || !s.Has(&peers[maxTried]) {
		t.Error("a full set must give up the peer that was added first, and no other")
	}
}

func TestEventsTellEachChangeInOrder(t *testing.T) {
	var got events
	p := newTestPool(t, Options{Notify: got.notify})
	expect := func(want ...string) {
		t.Helper()
		if taken := got.take(); !slices.Equal(taken, want) {
			t.Errorf("events\n\t%s\nwant\n\t%s", strings.Join(taken, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
	a, b := instance(0, 1), instance(1, 1)
	b.Status, b.Detail = discovery.StatusCritical, "http: refused"
	p.Apply([]discovery.Instance{b, a})
	expect("added star-0000: up", "added star-0001: unhealthy: consul: critical: http: refused")

	b.Detail = "http: timeout" // no more than another output
	p.Apply([]discovery.Instance{a, b})
	expect()
	if got, want := peerOf(t, p, b).Reasons()[0], "consul: critical: http: timeout"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}

	a.Weight, a.Tags = 3, []string{"v2"}
	b.Status, b.Detail = discovery.StatusPassing, ""
	p.Apply([]discovery.Instance{a, b})
	expect("updated star-0000: up: weight 1 → 3, tags",
		"updated star-0001: up: critical → passing", "state star-0001: up: unhealthy → up")

	p.SetReason(b.Key(), ReasonEjected, true, "5 failures in a row")
	p.SetReason(b.Key(), ReasonEjected, true, "6 failures in a row")
	expect("state star-0001: ejected: up → ejected: ejected: 5 failures in a row")
	p.SetReason(b.Key(), ReasonDrain, true, "")
	p.SetReason(b.Key(), ReasonDrain, true, "again")
	expect("state star-0001: draining: ejected → draining: ejected: 6 failures in a row; drain", "drained star-0001: draining")
	p.SetReason(b.Key(), ReasonDrain, false, "")
	p.SetReason(b.Key(), ReasonEjected, false, "")
	expect("state star-0001: ejected: draining → ejected: ejected: 6 failures in a row", "state star-0001: up: ejected → up")

	var q Query
	q.Tried.Add(peerOf(t, p, b))
	token := mustPick(t, p, &q) // holds a
	c := instance(2, 1)
	p.Apply([]discovery.Instance{c})
	expect("removed star-0000: draining", "removed star-0001: draining", "added star-0002: up", "drained star-0001: draining")
	p.Apply([]discovery.Instance{a, c})
	expect("added star-0000: up: returned while draining")
	p.Apply(nil)
	expect("removed star-0000: draining", "removed star-0002: draining", "drained star-0002: draining")
	token.Done(Outcome{})
	expect("drained star-0000: draining")
}

// What an event tells of can be seen when it is told.
func TestEventsComeAfterTheSnapshot(t *testing.T) {
	var p *Pool
	var errs []error
	p = newTestPool(t, Options{Notify: func(e Event) {
		s := p.Snapshot()
		if e.Kind == EventAdded && !slices.Contains(s.All, e.Peer) {
			errs = append(errs, errors.New("added, but not in the snapshot"))
		}
		if e.Kind == EventRemoved && slices.Contains(s.All, e.Peer) {
			errs = append(errs, errors.New("removed, but in the snapshot"))
		}
		if e.Kind == EventDrained && slices.Contains(s.Draining, e.Peer) {
			errs = append(errs, errors.New("drained, but in the snapshot as draining"))
		}
		if e.Time.IsZero() || e.Pool != "star" {
			errs = append(errs, errors.New("no time or pool"))
		}
	}})
	p.Apply(instances(3))
	p.Apply(instances(1))
	p.Close()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func TestSinceIsTheStartOfTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{})
		i := instance(0, 1)
		p.Apply([]discovery.Instance{i})
		peer := peerOf(t, p, i)
		start := peer.Since()
		time.Sleep(time.Second)
		i.Weight = 2
		p.Apply([]discovery.Instance{i})
		if peer.Since() != start {
			t.Error("a change of weight changed Since")
		}
		p.SetReason(i.Key(), ReasonActive, true, "")
		if got := peer.Since().Sub(start); got != time.Second {
			t.Errorf("after a change of state Since is %v later, want 1s", got)
		}
	})
}

func TestOutcomesAreCounted(t *testing.T) {
	p := newTestPool(t, Options{})
	p.Apply(instances(1))
	var peer *Peer
	for c := range NumOutcomes {
		for range c + 1 {
			token := mustPick(t, p, nil)
			peer = token.Peer
			token.Done(Outcome{Class: OutcomeClass(c)})
		}
	}
	for c, n := range peer.Outcomes() {
		if n != uint64(c+1) {
			t.Errorf("%v: %d, want %d", OutcomeClass(c), n, c+1)
		}
	}
	if got := peer.Requests(); got != 45 {
		t.Errorf("requests %d, want 45", got)
	}
	if got := peer.Failures(); got != 2+3+4+5 {
		t.Errorf("failures %d, want 14", got)
	}
}

func TestNames(t *testing.T) {
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(StateUp.String()+StateWarming.String()+StateEjected.String()+StateUnhealthy.String()+StateDraining.String(),
		"upwarmingejectedunhealthydraining")
	f(State(99).String()+EventKind(99).String()+OutcomeClass(99).String()+Limit(99).String(), "unknownunknownunknownunknown")
	f((ReasonConsul | ReasonDrain).String(), "consul,drain")
	f(OutcomeStale.String(), "stale connection")
	f(LimitRetryBudget.String(), "retry budget")
	f((&Peer{ID: instance(0, 1).Key()}).String(), "star/star-0000 (127.0.0.1:10000)")
	text, _ := StateEjected.MarshalText()
	f(string(text), "ejected")
	text, _ = EventCut.MarshalText()
	f(string(text), "cut")
}
