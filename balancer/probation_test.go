package balancer

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/test/verify"
)

// since is the time at which the registry lost the instances.
var since = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// lose returns set on probation.
func lose(set []discovery.Instance) []discovery.Instance {
	lost := slices.Clone(set)
	for n := range lost {
		lost[n].Probation = since
	}
	return lost
}

// pickPeer picks the peer of i.
func pickPeer(t *testing.T, p *Pool, i discovery.Instance) Token {
	t.Helper()
	q := &Query{}
	for _, peer := range p.Snapshot().All {
		if peer.ID != i.Key() {
			q.Tried.Add(peer)
		}
	}
	return mustPick(t, p, q)
}

// gone is the outcome of an attempt at a host that refuses the connection.
var gone = Outcome{Class: OutcomeConnectFailure, Details: Details{Absent: true}}

func TestAPeerOnProbationIsUsedUntilItRefusesAConnection(t *testing.T) {
	var got events
	set := instances(2)
	p := newTestPool(t, Options{Notify: got.notify}, set...)
	got.take()
	p.Apply(lose(set))
	expectEligible(t, p, false, 0, 1)
	peer := peerOf(t, p, set[0])
	verify.Equal(t, peer.State(), StateUp, "state")
	verify.Slices(t, peer.Reasons(), []string{"consul: lost since 2026-01-02T03:04:05Z, used until it fails"},
		"reasons")

	for _, o := range []Outcome{{Class: OutcomeOK, Status: 200}, {Class: OutcomeServerError, Status: 500}, {Class: OutcomeTimeout}, {Class: OutcomeReset}, {Class: OutcomeStale}, {Class: OutcomeClientGone}, {Class: OutcomeLocal}} {
		pickPeer(t, p, set[0]).Done(o)
		expectEligible(t, p, false, 0, 1)
	}
	pickPeer(t, p, set[0]).Done(gone)
	expectEligible(t, p, false, 1)
	verify.Equal(t, peer.State(), StateUnhealthy, "state")
	verify.Slices(t, peer.Reasons(), []string{"consul: lost since 2026-01-02T03:04:05Z, and failed since: no connection"},
		"reasons")
	p.Apply(lose(set)) // the same loss
	expectEligible(t, p, false, 1)

	p.Apply(set)
	expectEligible(t, p, false, 0, 1)
	verify.That(t, peer.Reasons() == nil, "reasons %q of a peer that is listed", peer.Reasons())
	pickPeer(t, p, set[0]).Done(gone)
	expectEligible(t, p, false, 0, 1) // no longer on probation
	events := slices.DeleteFunc(got.take(), func(line string) bool { return strings.HasPrefix(line, "state") })
	want := []string{
		"updated star-0000: up: lost by the registry, on probation", "updated star-0001: up: lost by the registry, on probation",
		"updated star-0000: up: listed again", "updated star-0001: up: listed again",
	}
	verify.Slices(t, events, want, "events")
}

// Attempts that wait for a connection together fail together when sluice itself has stood still:
// that is one sample. The next one decides, unless the peer has answered since.
func TestOneMomentWithoutAConnectionDoesNotEndProbation(t *testing.T) {
	for _, counted := range []bool{false, true} { // Options.OnFailure is set
		synctest.Test(t, func(t *testing.T) {
			o := Options{}
			if counted {
				o.OnFailure = func(*Peer, Outcome, Streak) {}
			}
			set := instances(1)
			p := newTestPool(t, o, set...)
			p.Apply(lose(set))
			failure, answer := Outcome{Class: OutcomeConnectFailure}, Outcome{Class: OutcomeOK, Status: 200, Latency: ms}
			attempts := func(outcomes ...Outcome) {
				var tokens []Token
				for range outcomes {
					tokens = append(tokens, mustPick(t, p, nil))
				}
				time.Sleep(time.Second)
				for n, o := range outcomes {
					tokens[n].Done(o)
				}
			}
			used := func(want bool) {
				t.Helper()
				verify.Equal(t, peerOf(t, p, set[0]).State() == StateUp, want, "the peer is used")
			}
			attempts(failure, failure, failure)
			used(true)
			attempts(answer)
			attempts(failure, failure)
			used(true)
			attempts(Outcome{Class: OutcomeReset}) // it is there
			attempts(failure)
			used(true)
			attempts(failure)
			used(false)
		})
	}
}

func TestAPeerThatWasFailingIsNotUsedOnProbation(t *testing.T) {
	set := instances(2)
	p := newTestPool(t, Options{PanicThreshold: 1}, set...)
	setReason(p, set[0].Key(), ReasonActive, true, "status 500")
	p.Apply(lose(set))
	expectEligible(t, p, false, 1)
}

func TestAPeerOnProbationMayHaveToPassFirst(t *testing.T) {
	p := newTestPool(t, Options{MustPassFirst: true})
	set := instances(2)
	p.Apply(lose(set)) // from the snapshot
	expectEligible(t, p, false)
	setReason(p, set[0].Key(), ReasonActive, false, "")
	setReason(p, set[1].Key(), ReasonActive, true, "status 500")
	expectEligible(t, p, false, 0)
	setReason(p, set[1].Key(), ReasonActive, false, "")
	expectEligible(t, p, false, 0)
}

// A peer that left and is lost later is on probation for the second loss.
func TestEachLossStartsANewProbation(t *testing.T) {
	set := instances(1)
	p := newTestPool(t, Options{}, set...)
	p.Apply(lose(set))
	pickPeer(t, p, set[0]).Done(gone)
	expectEligible(t, p, false)
	again := lose(set)
	again[0].Probation = since.Add(time.Hour)
	p.Apply(again)
	expectEligible(t, p, false, 0)
}
