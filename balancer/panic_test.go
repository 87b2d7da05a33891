package balancer

import (
	"slices"
	"strings"
	"testing"

	"sluice/discovery"
	"sluice/test/verify"
)

// expectEligible fails unless exactly the numbered peers are eligible, and picked.
func expectEligible(t *testing.T, p *Pool, panicking bool, want ...int) {
	t.Helper()
	s := p.Snapshot()
	var got []discovery.Key
	for _, peer := range s.Eligible {
		got = append(got, peer.ID)
	}
	var keys []discovery.Key
	for _, n := range want {
		keys = append(keys, instance(n, 1).Key())
	}
	verify.That(t, s.Panic == panicking && slices.Equal(got, keys), "panic %v, eligible %v; want %v, %v", s.Panic, got, panicking, keys)
	picked := make(map[*Peer]bool)
	for range 1000 {
		if token, err := p.Pick(nil); err == nil {
			picked[token.Peer] = true
			token.Done(Outcome{})
		}
	}
	verify.Equal(t, len(picked), len(want), "peers are picked")
	for _, peer := range s.All {
		verify.Equal(t, peer.load.isQuiesced(), !slices.Contains(keys, peer.ID),
			"%v: quiesced", peer)
	}
}

func TestPanicUsesFailingPeers(t *testing.T) {
	var got events
	set := instances(4)
	p := newTestPool(t, Options{PanicThreshold: .5, NewTransport: newTestTransport, Notify: got.notify}, set...)
	setReasonOf := func(n int, r Reason, down bool) { setReason(p, set[n].Key(), r, down, "") }
	setReasonOf(0, ReasonActive, true)
	setReasonOf(1, ReasonEjected, true)
	expectEligible(t, p, false, 2, 3) // half is enough
	got.take()
	setReasonOf(2, ReasonActive, true)
	expectEligible(t, p, true, 0, 1, 2, 3)
	want := []string{"state star-0002: unhealthy: up → unhealthy: active", "panic: 1 of 4 peers are healthy"}
	verify.Slices(t, got.take(), want, "events")
	peer := peerOf(t, p, set[0])
	verify.That(t, peer.State() == StateUnhealthy && peer.Reasons() != nil, "state %v, reasons %q: panic does not make a peer healthy", peer.State(), peer.Reasons())
	setReasonOf(3, ReasonActive, true) // no healthy peer
	expectEligible(t, p, true, 0, 1, 2, 3)
	setReasonOf(3, ReasonActive, false)
	setReasonOf(2, ReasonActive, false)
	expectEligible(t, p, false, 2, 3)
	want = []string{
		"state star-0003: unhealthy: up → unhealthy: active", "state star-0003: up: unhealthy → up",
		"state star-0002: up: unhealthy → up", "panic_over: 2 of 4 peers are healthy",
	}
	verify.Slices(t, got.take(), want, "events")
}

// Panic does not use peers that an operator has drained, that the registry does not allow, or
// that have never passed a required check. They do not count for the threshold.
func TestPanicDoesNotUseDrainedAndUncheckedPeers(t *testing.T) {
	set := instances(7)
	set[0].Status = discovery.StatusCritical
	set[1].Status = discovery.StatusMaintenance
	set[2].Weight = 0
	p := newTestPool(t, Options{PanicThreshold: .5, MustPassFirst: true, NewTransport: newTestTransport}, set...)
	expectEligible(t, p, false) // no peer has passed
	unchecked := peerOf(t, p, set[6])
	verify.Slices(t, unchecked.Reasons(), []string{"active: not checked yet"}, "reasons")
	verify.Equal(t, transportOf(unchecked).suspicions.Load(), 0, "times suspected, without a request that could leave it")
	setReasonOf := func(n int, r Reason, down bool) { setReason(p, set[n].Key(), r, down, "") }
	for n := range 6 {
		setReasonOf(n, ReasonActive, false)
	}
	expectEligible(t, p, false, 3, 4, 5)
	setReasonOf(3, ReasonDrain, true)
	setReasonOf(4, ReasonActive, true)
	expectEligible(t, p, false, 5) // 1 of 2
	setReasonOf(5, ReasonEjected, true)
	expectEligible(t, p, true, 4, 5)
	drained := transportOf(peerOf(t, p, set[4])).drains.Load()
	setReasonOf(4, ReasonDrain, true) // during panic
	expectEligible(t, p, true, 5)
	verify.Equal(t, transportOf(peerOf(t, p, set[4])).drains.Load(), drained+1, "a peer drained in panic keeps its connections")
	setReasonOf(4, ReasonDrain, false)
	expectEligible(t, p, true, 4, 5)
	setReasonOf(6, ReasonActive, true) // its first check fails
	expectEligible(t, p, true, 4, 5)
	p.Apply(set[:5])
	expectEligible(t, p, true, 4)
	p.Apply(nil)
	s := p.Snapshot()
	verify.That(t, !s.Panic && len(s.Eligible) == 0, "an empty pool: %+v", s)
}

// Panic does not use an address that another service has.
func TestPanicDoesNotUseWhereAnotherServiceAnswers(t *testing.T) {
	set := instances(3)
	p := newTestPool(t, Options{PanicThreshold: 1, NewTransport: newTestTransport}, set...)
	judge := func(n int, down, other bool) {
		p.SetReasons(ReasonActive, Verdict{Peer: peerOf(t, p, set[n]), Down: down, Other: other})
	}
	judge(0, true, true)
	expectEligible(t, p, false, 1, 2)
	judge(1, true, false)
	expectEligible(t, p, true, 1, 2)
	judge(0, true, false) // nobody says who answers any more
	expectEligible(t, p, true, 0, 1, 2)
	judge(0, true, true)
	judge(0, false, true)
	expectEligible(t, p, true, 0, 1, 2)
}

// Who waits for a first check is used at once when nobody must pass one any more. Who has failed it
// stays out.
func TestNobodyWaitsForAFirstCheckAnyMore(t *testing.T) {
	for _, before := range []Options{{MustPassFirst: true}, {ActiveOverridesRegistry: true}} {
		before.NewTransport = newTestTransport
		p := newTestPool(t, before)
		set := instances(4)
		p.Apply(set[:3])
		setReason(p, set[0].Key(), ReasonActive, true, "status 500")
		setReason(p, set[1].Key(), ReasonActive, false, "")
		expectEligible(t, p, false, 1)
		p.Reconfigure(complete(Options{NewTransport: newTestTransport}))
		expectEligible(t, p, false, 1, 2)
		verify.That(t, peerOf(t, p, set[2]).Reasons() == nil, "reasons %q", peerOf(t, p, set[2]).Reasons())
		verify.Slices(t, peerOf(t, p, set[0]).Reasons(), []string{"active: status 500"}, "reasons")
		p.Reconfigure(complete(before))
		p.Apply(set)
		expectEligible(t, p, false, 1, 2) // only a new one must pass
	}
}

// A peer that another registry names otherwise goes on as it was, if it has been in use.
func TestAPeerThatMovesGoesOn(t *testing.T) {
	p := newTestPool(t, Options{MustPassFirst: true, NewTransport: newTestTransport})
	renamed := func(set []discovery.Instance, name string) (other []discovery.Instance) {
		for _, i := range set {
			i.Service, i.ID = name, name+"-"+i.ID
			other = append(other, i)
		}
		return other
	}
	set := instances(5)
	p.Apply(set[:4])
	for n := range 3 {
		setReason(p, set[n].Key(), ReasonActive, false, "")
	}
	setReason(p, set[1].Key(), ReasonActive, true, "status 500")
	before := slices.Clone(set[:4])
	before[2].Status = discovery.StatusCritical
	p.Apply(before)
	expect := func(set []discovery.Instance, want ...string) {
		t.Helper()
		for n, i := range set {
			peer := peerOf(t, p, i)
			verify.Equal(t, strings.Join(peer.Reasons(), "; "), want[n], "the reasons of %s", i.ID)
			verify.Equal(t, slices.Contains(p.Snapshot().Eligible, peer), want[n] == "", "whether %s may get requests", i.ID)
		}
	}
	const waits = "active: not checked yet"
	moved := renamed(set, "moved")
	p.ApplyMoved(moved)
	expect(moved, "", "active: status 500", waits, waits, waits)
	again := renamed(moved, "again")
	p.Apply(again) // they are new processes
	expect(again, waits, waits, waits, waits, waits)
}
