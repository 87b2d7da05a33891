package balancer

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/discovery"
	"sluice/test/verify"
)

func TestAnEmptyPoolIsANormalState(t *testing.T) {
	p := newTestPool(t, Options{})
	changed := p.Changed()
	_, err := p.Pick(nil)
	verify.That(t, err == ErrNoPeers, "Pick = %v, want %v", err, ErrNoPeers)
	p.Apply(instances(1))
	<-changed
	token := mustPick(t, p, nil)
	verify.Equal(t, token.Peer.Inflight(), 1, "in flight")
	token.Done(Outcome{Class: OutcomeOK, Status: 200})
	verify.Equal(t, token.Peer.Inflight(), 0, "in flight")
	p.Apply(nil)
	_, err = p.Pick(nil)
	verify.That(t, err == ErrNoPeers, "Pick = %v, want %v", err, ErrNoPeers)
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{Policy: "fastest"}, {DrainTimeout: -1},
		{Limits: Limits{Requests: -1}}, {Limits: Limits{Retries: -1}},
		{RetryBudget: &RetryBudget{Ratio: -.1}}, {RetryBudget: &RetryBudget{MinPerSecond: math.NaN()}}, {RetryBudget: &RetryBudget{Ratio: math.Inf(1)}},
	} {
		o = complete(o)
		_, err := NewPool("star", o)
		verify.That(t, err != nil && strings.Contains(err.Error(), `pool "star"`), "NewPool(%+v): error %v, want one that names the pool", o, err)
		p := newTestPool(t, Options{Policy: PolicyRandom})
		err = p.Reconfigure(o)
		verify.That(t, err != nil, "Reconfigure(%+v): no error", o)
		verify.Equal(t, p.options.Policy, PolicyRandom, "a refused Reconfigure changed the policy to")
	}
}

// The state of a peer survives each change that does not create another peer.
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
	verify.That(t, len(changes.Updated) == 1 && len(changes.Added) == 1 && len(changes.Removed) == 0, "changes %+v, want one update and one addition", changes)
	got := peerOf(t, p, changed)
	verify.Require(t, got == peer, "the peer was replaced")
	if peer.Weight() != 5 || peer.Instance().Tags[0] != "v2" || peer.Instance().Meta["zone"] != "b" {
		t.Errorf("weight %d, instance %+v; want what was applied", peer.Weight(), peer.Instance())
	}
	if peer.Inflight() != 1 || peer.Requests() != 1 || peer.Failures() != 1 || peer.Latency() != latency || latency == 0 {
		t.Errorf("in flight %d, requests %d, failures %d, latency %v; want 1, 1, 1, %v",
			peer.Inflight(), peer.Requests(), peer.Failures(), peer.Latency(), latency)
	}
	verify.That(t, peer.Transport == transport && transportOf(peer).drains.Load() == 0 && transportOf(peer).closes.Load() == 0, "the transport was replaced, drained or closed")
	verify.NoError(t, p.Reconfigure(complete(Options{Policy: PolicyRoundRobin})))
	verify.That(t, peerOf(t, p, changed) == peer && peer.Inflight() == 1 && peer.Transport == transport, "Reconfigure lost state")
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
	verify.That(t, len(changes.Added) == 1 && len(changes.Removed) == 1, "changes %+v, want one addition and one removal", changes)
	next := mustPick(t, p, nil)
	verify.That(t, next.Peer != old, "the old address was picked")
	verify.That(t, next.Peer.Transport != old.Transport, "the old transport is used for the new address")
	verify.Equal(t, old.State(), StateDraining, "the old peer")
	next.Done(Outcome{})
	token.Done(Outcome{})
	verify.Equal(t, transportOf(old).closes.Load(), 1, "the old transport was times closed")
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
	changes := p.Apply(reversed)
	verify.That(t, changes.Empty(), "changes %+v, want none", changes)
	verify.Equal(t, p.Snapshot(), before, "there is a new snapshot")
	e := got.take()
	verify.That(t, e == nil, "events %q, want none", e)
}

func TestHealthOfTheRegistry(t *testing.T) {
	f := func(status discovery.Status, weight int, detail string, want State, reasons ...string) {
		t.Helper()
		p := newTestPool(t, Options{})
		i := instance(0, weight)
		i.Status, i.Detail = status, detail
		p.Apply([]discovery.Instance{i})
		peer := peerOf(t, p, i)
		verify.Equal(t, peer.State(), want, "%v, weight %d: state", status, weight)
		verify.Slices(t, peer.Reasons(), reasons, "%v, weight %d: reasons", status, weight)
		_, err := p.Pick(nil)
		verify.That(t, (want != StateUp || err == nil) && (want == StateUp || err == ErrNoEligible), "%v, weight %d: Pick: %v", status, weight, err)
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

// Only the owner of a reason can clear it.
func TestEachReasonHasItsOwner(t *testing.T) {
	p := newTestPool(t, Options{})
	i := instance(0, 1)
	p.Apply([]discovery.Instance{i})
	peer := peerOf(t, p, i)
	expect := func(want State, reasons ...string) {
		t.Helper()
		verify.Equal(t, peer.State(), want, "state")
		verify.Slices(t, peer.Reasons(), reasons, "reasons")
		verify.Equal(t, len(p.Snapshot().Eligible) == 1, (reasons == nil), "eligible:, with reasons %q", reasons)
	}
	set := func(r Reason, down bool, why string) {
		t.Helper()
		verify.That(t, setReason(p, i.Key(), r, down, why), "SetReason does not know the peer")
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

	verify.That(t, !p.SetReason(instance(1, 1).Key(), ReasonActive, true, ""), "SetReason accepts an unknown peer")
	defer func() {
		verify.That(t, recover() != nil, "SetReason accepts ReasonRegistry")
	}()
	p.SetReason(i.Key(), ReasonRegistry, false, "")
}

func TestIneligiblePeersAreNotPicked(t *testing.T) {
	for _, policy := range Policies() {
		p := newTestPool(t, Options{Policy: policy, NewTransport: newTestTransport})
		p.Apply(instances(5))
		for i := range 4 {
			p.SetReason(instance(i, 1).Key(), ReasonActive, true, "")
			verify.Equal(t, transportOf(peerOf(t, p, instance(i, 1))).drains.Load(), 1, "%s: transport times drained", policy)
		}
		for range 100 {
			token := mustPick(t, p, nil)
			verify.Equal(t, token.Peer.ID, instance(4, 1).Key(), "%s: picked", policy)
			token.Done(Outcome{})
		}
		p.SetReason(instance(4, 1).Key(), ReasonEjected, true, "")
		_, err := p.Pick(nil)
		verify.That(t, err == ErrNoEligible, "%s: Pick = %v, want %v", policy, err, ErrNoEligible)
		p.SetReason(instance(2, 1).Key(), ReasonActive, false, "")
		token := mustPick(t, p, nil)
		verify.Equal(t, token.Peer.ID, instance(2, 1).Key(), "%s: picked", policy)
		token.Done(Outcome{})
	}
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
	verify.Equal(t, peer.Requests(), 45, "requests")
	verify.Equal(t, peer.Failures(), 2+3+4+5, "failures")
}
