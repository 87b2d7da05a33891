package balancer

import (
	"slices"
	"testing"
	"time"

	"sluice/discovery"
)

// since is when the registry lost the instances of these tests.
var since = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// unlist returns set as what the registry no longer lists.
func unlist(set []discovery.Instance) []discovery.Instance {
	lost := slices.Clone(set)
	for n := range lost {
		lost[n].Unlisted = since
	}
	return lost
}

func TestAnUnlistedPeerIsUsedWhileItsCheckPasses(t *testing.T) {
	var got events
	p := newTestPool(t, Options{ActiveChecks: true, Notify: got.notify})
	set := instances(2)
	p.Apply(set)
	judge := func(n int, down bool) { p.SetReason(set[n].Key(), ReasonActive, down, "status 500") }
	judge(0, false)
	judge(1, false)
	got.take()

	p.Apply(unlist(set))
	expectEligible(t, p, false, 0, 1)
	peer := peerOf(t, p, set[0])
	if reasons := peer.Reasons(); peer.State() != StateUp || !slices.Equal(reasons, []string{"consul: not listed in service any more since 2026-01-02T03:04:05Z, still answers"}) {
		t.Errorf("state %v, reasons %q", peer.State(), reasons)
	}
	judge(0, true)
	expectEligible(t, p, false, 1)
	if reasons := peer.Reasons(); !slices.Equal(reasons, []string{"active: status 500", "consul: not listed in service any more since 2026-01-02T03:04:05Z"}) {
		t.Errorf("reasons %q", reasons)
	}
	judge(0, false)
	expectEligible(t, p, false, 0, 1)

	p.Apply(set)
	expectEligible(t, p, false, 0, 1)
	if peer.Reasons() != nil {
		t.Errorf("reasons %q of a peer that is listed", peer.Reasons())
	}
	events := slices.DeleteFunc(got.take(), func(line string) bool { return line[:5] == "state" })
	want := []string{
		"updated star-0000: up: not listed in service any more", "updated star-0001: up: not listed in service any more",
		"updated star-0000: up: listed again", "updated star-0001: up: listed again",
	}
	if !slices.Equal(events, want) {
		t.Errorf("events %q, want %q", events, want)
	}
}

func TestAnUnlistedPeerThatNoCheckHasPassedIsNotUsed(t *testing.T) {
	p := newTestPool(t, Options{ActiveChecks: true, PanicThreshold: 1})
	set := instances(2)
	p.Apply(set[:1])
	expectEligible(t, p, false, 0)
	p.Apply(unlist(set)) // 0 has not been checked yet, and 1 is new
	expectEligible(t, p, false)
	p.SetReason(set[1].Key(), ReasonActive, false, "")
	expectEligible(t, p, false, 1)
}

// Panic sets aside what checks say. Of an unlisted peer nobody says anything else.
func TestAnUnlistedPeerThatDoesNotAnswerIsNotUsedInPanic(t *testing.T) {
	p := newTestPool(t, Options{ActiveChecks: true, PanicThreshold: 1})
	set := instances(3)
	p.Apply(slices.Concat(set[:1], unlist(set[1:])))
	judge := func(n int, down bool) { p.SetReason(set[n].Key(), ReasonActive, down, "") }
	for n := range set {
		judge(n, false)
	}
	judge(0, true)
	judge(1, true)
	expectEligible(t, p, true, 0, 2)
}

// A peer that left and returns may be another process by now.
func TestAnUnlistedPeerThatReturnsIsCheckedAgain(t *testing.T) {
	p := newTestPool(t, Options{ActiveChecks: true})
	set := instances(1)
	p.Apply(set)
	p.SetReason(set[0].Key(), ReasonActive, false, "")
	token := mustPick(t, p, nil) // so that it drains
	defer token.Done(Outcome{})
	p.Apply(nil)
	p.Apply(unlist(set))
	expectEligible(t, p, false)
	p.SetReason(set[0].Key(), ReasonActive, false, "")
	expectEligible(t, p, false, 0)
}

func TestWithoutActiveChecksNoUnlistedPeerIsUsed(t *testing.T) {
	p := newTestPool(t, Options{ActiveChecks: true})
	set := instances(1)
	p.Apply(set)
	p.SetReason(set[0].Key(), ReasonActive, false, "")
	p.Apply(unlist(set))
	expectEligible(t, p, false, 0)
	reconfigure := func(o Options) {
		t.Helper()
		if err := p.Reconfigure(o); err != nil {
			t.Fatal(err)
		}
	}
	reconfigure(Options{PanicThreshold: 1})
	expectEligible(t, p, false)
	if reasons := peerOf(t, p, set[0]).Reasons(); !slices.Equal(reasons, []string{"consul: not listed in service any more since 2026-01-02T03:04:05Z"}) {
		t.Errorf("reasons %q", reasons)
	}
	reconfigure(Options{ActiveChecks: true})
	expectEligible(t, p, false) // what was said of it is old
	p.SetReason(set[0].Key(), ReasonActive, false, "")
	expectEligible(t, p, false, 0)
	reconfigure(Options{})
	p.Apply(set)
	expectEligible(t, p, false, 0)
}
