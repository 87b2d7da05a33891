package balancer

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/test/verify"
)

// failures collects the calls of OnFailure.
type failures struct {
	mu      sync.Mutex
	streaks []Streak
}

func (f *failures) hear(_ *Peer, _ Outcome, s Streak) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streaks = append(f.streaks, s)
}

func TestStreakCountsByKind(t *testing.T) {
	var heard failures
	p := newTestPool(t, Options{OnFailure: heard.hear}, instances(1)...)
	peer := peerOf(t, p, instance(0, 1))
	f := func(class OutcomeClass, status int, want Streak) {
		t.Helper()
		before := len(heard.streaks)
		mustPick(t, p, nil).Done(Outcome{Class: class, Status: status})
		verify.Equal(t, peer.Streak(), want, "after %v %d", class, status)
		switch calls := heard.streaks[before:]; {
		case class.Failure() && (len(calls) != 1 || calls[0] != want):
			t.Errorf("after %v %d OnFailure got %+v, want %+v", class, status, calls, want)
		case !class.Failure() && len(calls) != 0:
			t.Errorf("OnFailure heard of %v", class)
		}
	}
	f(OutcomeConnectFailure, 0, Streak{1, 1, 1})
	f(OutcomeConnectFailure, 0, Streak{2, 2, 2})
	mustPick(t, p, nil).Done(Outcome{Class: OutcomeConnectFailure, Details: Details{Shared: true}})
	verify.Equal(t, peer.Streak(), Streak{2, 2, 2}, "after one that another attempt has reported")
	f(OutcomeTimeout, 0, Streak{0, 3, 3})
	f(OutcomeReset, 200, Streak{0, 4, 4})
	f(OutcomeServerError, 502, Streak{0, 5, 5})
	f(OutcomeServerError, 503, Streak{0, 6, 6})
	f(OutcomeServerError, 504, Streak{0, 7, 7})
	f(OutcomeServerError, 500, Streak{0, 0, 8})
	f(OutcomeServerError, 505, Streak{0, 0, 9})
	// Outcomes that the peer did not cause neither count nor end a streak.
	f(OutcomeStale, 0, Streak{0, 0, 9})
	f(OutcomeClientGone, 0, Streak{0, 0, 9})
	f(OutcomeLocal, 0, Streak{0, 0, 9})
	f(OutcomeConnectFailure, 0, Streak{1, 1, 10})
	f(OutcomeOK, 404, Streak{})
	f(OutcomeOK, 200, Streak{})
	f(OutcomeReset, 0, Streak{0, 1, 1})
}

func TestStreakStopsAtItsLimit(t *testing.T) {
	s := Streak{Connect: 65535, Gateway: 65535, Any: 65535}
	verify.Equal(t, unpackStreak(s.after(Outcome{Class: OutcomeConnectFailure}).pack()), s, "result")
}

// Attempts that started before the reset do not count.
func TestAttemptsFromBeforeAResetDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard failures
		p := newTestPool(t, Options{OnFailure: heard.hear}, instances(1)...)
		early := []Token{mustPick(t, p, nil), mustPick(t, p, nil)}
		time.Sleep(time.Second)
		peer := early[0].Peer
		trial := Streak{Gateway: 4, Any: 4}
		peer.ResetStreak(trial)
		early[0].Done(Outcome{Class: OutcomeOK})
		early[1].Done(Outcome{Class: OutcomeTimeout})
		verify.Equal(t, peer.Streak(), trial, "after the end of early attempts")
		verify.Equal(t, len(heard.streaks), 0, "calls of OnFailure")
		mustPick(t, p, nil).Done(Outcome{Class: OutcomeTimeout})
		verify.Slices(t, heard.streaks, []Streak{{0, 5, 5}}, "OnFailure")
		mustPick(t, p, nil).Done(Outcome{Class: OutcomeOK})
		verify.Equal(t, peer.Streak(), (Streak{}), "after a success")
	})
}

// OnFailure may eject the peer before the attempt ends.
func TestOnFailureMayCallThePool(t *testing.T) {
	var p *Pool
	p = newTestPool(t, Options{OnFailure: func(peer *Peer, _ Outcome, s Streak) {
		p.SetReasons(ReasonEjected, Verdict{Peer: peer, Down: s.Any >= 2, Why: "test"})
	}})
	p.Apply(instances(2))
	var q Query
	q.Tried.Add(peerOf(t, p, instance(1, 1)))
	mustPick(t, p, &q).Done(Outcome{Class: OutcomeReset})
	mustPick(t, p, &q).Done(Outcome{Class: OutcomeReset})
	expectPick(t, p, &q, ErrAllTried)
	p.Reconfigure(complete(Options{}))
	mustPick(t, p, nil).Done(Outcome{Class: OutcomeReset}) // no call
}

func TestManyVerdictsAreOneSnapshot(t *testing.T) {
	var got events
	p := newTestPool(t, Options{Notify: got.notify}, instances(3)...)
	held := mustPick(t, p, nil)
	leaving := held.Peer
	stay := remove(instances(3), leaving.ID)
	p.Apply(stay)
	got.take()
	before := p.Snapshot().Generation
	others := newTestPool(t, Options{}, instances(1)...)
	verdicts := []Verdict{
		{Peer: peerOf(t, p, stay[0]), Down: true, Why: "refused"},
		{Peer: leaving, Down: true},
		{Peer: peerOf(t, p, stay[1]), Down: true},
		{Peer: others.Snapshot().All[0], Down: true},
	}
	p.SetReasons(ReasonActive, verdicts...)
	verify.Equal(t, p.Snapshot().Generation-before, 1, "snapshots")
	lines := got.take()
	verify.That(t, len(lines) == 2 && strings.Contains(lines[0], "active: refused"), "events %q, want one for each peer in the set", lines)
	verify.That(t, leaving.Has(ReasonActive|ReasonDrain) && !leaving.Has(ReasonEjected), "a verdict on a peer that may return was lost")
	held.Done(Outcome{})
	p.SetReasons(ReasonActive, Verdict{Peer: leaving})
	verify.That(t, leaving.Has(ReasonActive), "a verdict on a peer that is gone counted")
}

func TestActiveChecksMayOverrideTheRegistry(t *testing.T) {
	p := newTestPool(t, Options{ActiveOverridesRegistry: true})
	i := instance(0, 7)
	apply := func(status discovery.Status, weight int) {
		i.Status, i.Weight = status, weight
		p.Apply([]discovery.Instance{i})
	}
	apply(discovery.StatusPassing, 7)
	peer := peerOf(t, p, i)
	expect := func(eligible bool, weight int) {
		t.Helper()
		got := len(p.Snapshot().Eligible) == 1
		verify.That(t, got == eligible && peer.Weight() == weight,
			"eligible %v with weight %d, want %v, %d (%q)", got, peer.Weight(), eligible, weight, peer.Reasons())
	}
	expect(false, 7) // not before it has passed
	p.SetReasons(ReasonActive, Verdict{Peer: peer})
	expect(true, 7)
	apply(discovery.StatusCritical, 0)
	expect(true, 7)
	i.Detail = "more output"
	apply(discovery.StatusCritical, 0)
	expect(true, 7)
	apply(discovery.StatusMaintenance, 0)
	expect(false, 0)
	apply(discovery.StatusCritical, 0)
	expect(true, 7)
	apply(discovery.StatusPassing, 0)
	expect(false, 0)
	apply(discovery.StatusCritical, 0)
	p.Reconfigure(complete(Options{}))
	expect(false, 0)
	p.Reconfigure(complete(Options{ActiveOverridesRegistry: true}))
	expect(false, 7) // no check has passed since
	p.SetReasons(ReasonActive, Verdict{Peer: peer})
	expect(true, 7)
}

func TestLatenciesAreMeasuredOnRequest(t *testing.T) {
	p := newTestPool(t, Options{}, instances(1)...)
	peer := peerOf(t, p, instance(0, 1))
	take := func(class OutcomeClass, d time.Duration) {
		mustPick(t, p, nil).Done(Outcome{Class: class, Latency: d})
	}
	count := func() int { l := peer.Latencies(); return l.Count() }
	take(OutcomeOK, time.Millisecond)
	verify.Equal(t, count(), 0, "latencies are measured without a handler")
	p.Reconfigure(complete(Options{MeasureLatencies: true}))
	take(OutcomeOK, time.Millisecond)
	take(OutcomeOK, 0) // not measured
	take(OutcomeServerError, time.Millisecond)
	before := peer.Latencies()
	p.Reconfigure(complete(Options{MeasureLatencies: true}))
	take(OutcomeOK, time.Second)
	take(OutcomeOK, time.Second)
	since := peer.Latencies().Since(before)
	near := since.Median() >= 800*ms && since.Median() <= 1200*ms
	verify.That(t, before.Count() == 1 && since.Count() == 2 && near,
		"%d before, %d since with median %v", before.Count(), since.Count(), since.Median())
	p.Reconfigure(complete(Options{}))
	verify.Equal(t, count(), 0, "latencies are still measured")
}

func TestLatencyBuckets(t *testing.T) {
	for i := 1; i < numLatencies; i++ {
		bound := time.Duration(latencyBound(i))
		verify.That(t, latencyBucket(bound) == i && latencyBucket(bound-1) == i-1, "bucket %d does not begin at %v", i, bound)
		before := latencyBound(i - 1)
		verify.That(t, i <= 1 || !(latencyBound(i)/before > 1.2501), "bucket %d is too wide: %v to %v", i-1, before, bound)
	}
	for _, d := range []time.Duration{-1, 0, 1, 1<<63 - 1} {
		i := latencyBucket(d)
		verify.That(t, i >= 0 && i < numLatencies, "%v is in bucket %d", d, i)
	}
	var l Latencies
	verify.Equal(t, l.Median(), 0, "a median of nothing")
	l[numLatencies-1] = 3
	verify.Equal(t, l.Median(), time.Duration(latencyBound(numLatencies-1)), "the median of what is too long")
}

// A stream reports that its peer works when it begins, not when it ends.
func TestConnectedEndsAStreak(t *testing.T) {
	var heard failures
	p := newTestPool(t, Options{OnFailure: heard.hear, MeasureLatencies: true}, instances(1)...)
	peer := peerOf(t, p, instance(0, 1))
	mustPick(t, p, nil).Done(Outcome{Class: OutcomeConnectFailure})
	stream := mustPick(t, p, nil)
	stream.Connected(time.Millisecond)
	verify.Equal(t, peer.Streak(), Streak{}, "connected")
	verify.Equal(t, peer.Inflight(), 1, "in flight")
	mustPick(t, p, nil).Done(Outcome{Class: OutcomeConnectFailure})
	stream.Done(Outcome{Class: OutcomeOK})
	latencies := peer.Latencies()
	verify.That(t, latencies.Count() == 1 && peer.Outcomes()[OutcomeOK] == 1 &&
		peer.Inflight() == 0,
		"done: %d latencies, %d good outcomes, %d in flight, want 1, 1 and 0",
		latencies.Count(), peer.Outcomes()[OutcomeOK], peer.Inflight())
}

// The end of a stream, or of a long response, does not end a streak of failures that came
// after the peer's answer: otherwise the connections that close on a dying peer would
// delay its ejection.
func TestOldAnswersDoNotEndAStreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{OnFailure: new(failures).hear}, instances(1)...)
		stream, download, request := mustPick(t, p, nil), mustPick(t, p, nil), mustPick(t, p, nil)
		peer := stream.Peer
		stream.Connected(time.Millisecond)
		time.Sleep(time.Second)
		mustPick(t, p, nil).Done(Outcome{Class: OutcomeConnectFailure})
		stream.Done(Outcome{Class: OutcomeOK})
		download.Done(Outcome{Class: OutcomeOK, Latency: time.Millisecond})
		verify.Equal(t, peer.Streak(), (Streak{1, 1, 1}), "after the end of old attempts")
		time.Sleep(time.Second)
		request.Done(Outcome{Class: OutcomeOK, Latency: 2 * time.Second})
		verify.Equal(t, peer.Streak(), (Streak{}), "after an answer")
		mustPick(t, p, nil).Done(Outcome{Class: OutcomeConnectFailure})
		mustPick(t, p, nil).Connected(time.Millisecond)
		verify.Equal(t, peer.Streak(), (Streak{}), "after a connection")
	})
}
