package balancer

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/route/places"
	"sluice/test/verify"
)

// drained reports whether the pool has drained, without waiting.
func drained(p *Pool) bool {
	select {
	case <-p.Drained():
		return true
	default:
		return false
	}
}

func TestDrainWithOpenStreamIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got events
		o := Options{DrainTimeout: 10 * time.Second, NewTransport: newTestTransport, Notify: got.notify}
		p := newTestPool(t, o, instances(1)...)
		stream := mustPick(t, p, nil)
		p.Apply(nil)
		got.take()
		pass(10*time.Second - 1)
		verify.Equal(t, transportOf(stream.Peer).closes.Load(), 0, "closed before the timeout")
		pass(time.Nanosecond)
		verify.Equal(t, transportOf(stream.Peer).closes.Load(), 1, "times closed at the timeout")
		verify.Slices(t, got.take(), []string{"cut star-0000: draining: its drain took too long, 1 in flight after 10s"}, "events")
		verify.Equal(t, len(p.Snapshot().Draining), 0, "draining")
		stream.Done(Outcome{Class: OutcomeReset})
		verify.Equal(t, stream.Peer.Inflight(), 0, "in flight")
		verify.Equal(t, transportOf(stream.Peer).closes.Load(), 1, "times closed")
		verify.Slices(t, got.take(), nil, "events")
	})
}

// With CutRemoved, a peer that leaves is cut at once, and is another one if it returns. A pool that
// is closed drains.
func TestRemovedPeerIsCut(t *testing.T) {
	var got events
	o := Options{OneLeader: true, CutRemoved: true, NewTransport: newTestTransport, Notify: got.notify}
	p := newTestPool(t, o, instances(2)...)
	kept, cut := mustPick(t, p, nil), Token{}
	for cut = mustPick(t, p, nil); cut.Peer == kept.Peer; cut = mustPick(t, p, nil) {
	}
	got.take()
	p.Apply(instances(2)[1:])
	verify.Contains(t, strings.Join(got.take(), "\n"), "draining: it no longer leads, 1 in flight", "the event of the cut does not say why")
	if kept.Peer.ID == instances(1)[0].Key() {
		kept, cut = cut, kept
	}
	verify.That(t, transportOf(cut.Peer).closes.Load() == 1 && transportOf(kept.Peer).closes.Load() == 0, "the transport of the peer that has left is closed %d times, the other one %d", transportOf(cut.Peer).closes.Load(), transportOf(kept.Peer).closes.Load())
	verify.Equal(t, len(p.Snapshot().Draining), 0, "draining")
	p.Apply(instances(2))
	verify.That(t, peerOf(t, p, instances(1)[0]) != cut.Peer, "a peer whose transport is closed was taken back")
	p.Close()
	verify.Equal(t, transportOf(kept.Peer).closes.Load(), 0, "closed with the pool, with requests in flight")
}

// What the options have said while a peer drained counts for it when it returns.
func TestAPeerThatReturnsHasTheOptionsOfNow(t *testing.T) {
	set := withTags("a")
	p := newTestPool(t, Options{Groups: byTag("a")}, set...)
	token := mustPick(t, p, nil)
	p.Apply(nil)
	p.Reconfigure(complete(Options{MeasureLatencies: true}))
	p.Apply(set)
	verify.That(t, token.Peer.Group() == nil, "it is in a group that the pool does not have")
	token.Done(Outcome{Latency: time.Second})
	latencies := peerOf(t, p, set[0]).Latencies()
	verify.Equal(t, latencies.Count(), 1, "measured latencies")
}

func TestAPeerThatReturnsWhileDrainingIsReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := instances(1)
		p := newTestPool(t, Options{DrainTimeout: 10 * time.Second, NewTransport: newTestTransport}, set...)
		token := mustPick(t, p, nil)
		peer := token.Peer
		setReason(p, peer.ID, ReasonEjected, true, "")
		p.Apply(nil)
		time.Sleep(9 * time.Second)
		p.Apply(set)
		verify.Require(t, peerOf(t, p, set[0]) == peer, "another peer replaced it")
		verify.That(t, peer.State() == StateEjected && peer.Inflight() == 1, "state %v, in flight %d; want what it was", peer.State(), peer.Inflight())
		setReason(p, peer.ID, ReasonEjected, false, "")
		mustPick(t, p, nil).Done(Outcome{})

		// The first timeout does not cut it, also not after it left again.
		time.Sleep(5 * time.Second)
		p.Apply(nil)
		pass(9 * time.Second)
		verify.That(t, transportOf(peer).closes.Load() == 0 && len(p.Snapshot().Draining) == 1, "cut before its time")
		pass(2 * time.Second)
		verify.Equal(t, transportOf(peer).closes.Load(), 1, "not cut in time")
		p.Apply(set)
		verify.That(t, peerOf(t, p, set[0]) != peer,
			"a peer whose transport is closed was taken back")
		token.Done(Outcome{})
		verify.That(t, mustPick(t, p, nil).Peer != peer, "picked the old peer")
	})
}

// A pick from an old snapshot increments the in-flight count before it notices that the peer
// has left. If the last request ends in between, the pick must end the drain.
func TestALatePickDoesNotStopADrain(t *testing.T) {
	p := newTestPool(t, Options{NewTransport: newTestTransport}, instances(1)...)
	peer := mustPick(t, p, nil).Peer
	p.Apply(nil)
	verify.Require(t, !peer.acquire(quiesced-1), "a late pick got a peer that has left")
	verify.Equal(t, peer.Inflight(), 1, "in flight after a late pick")
	peer.load.Add(-1) // the last request ends, which is not noticed
	verify.Require(t, !peer.acquire(quiesced-1), "a late pick got a peer that has drained")
	n := len(p.Snapshot().Draining)
	verify.That(t, n == 0 && transportOf(peer).closes.Load() == 1, "nothing is in flight and the drain did not end")
	verify.That(t, !peer.acquire(quiesced-1) && peer.Inflight() == 0 && transportOf(peer).closes.Load() == 1, "a late pick disturbed a peer that is gone")
}

// A timer that has fired may wait for the mutex while the peer returns and leaves again.
func TestALateTimerDoesNotCutALaterDrain(t *testing.T) {
	p := newTestPool(t, Options{NewTransport: newTestTransport}, instances(1)...)
	token := mustPick(t, p, nil)
	p.Apply(nil)
	departure := token.Peer.departures
	p.Apply(instances(1))
	p.cut(token.Peer, departure, complete(Options{}).DrainTimeout)
	verify.That(t, peerOf(t, p, instance(0, 1)) == token.Peer && transportOf(token.Peer).closes.Load() == 0, "cut after it had returned")
	p.Apply(nil)
	p.cut(token.Peer, departure, complete(Options{}).DrainTimeout)
	verify.That(t, len(p.Snapshot().Draining) == 1 && transportOf(token.Peer).closes.Load() == 0, "cut by the timer of an earlier drain")
	token.Done(Outcome{})
}

func TestAnOperatorDrainsAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got events
		p := newTestPool(t, Options{NewTransport: newTestTransport, Notify: got.notify}, instances(1)...)
		token := mustPick(t, p, nil)
		peer := token.Peer
		setReason(p, peer.ID, ReasonDrain, true, "")
		expectPick(t, p, nil, ErrNoEligible)
		got.take()
		time.Sleep(time.Hour) // a drain by an operator has no timeout
		token.Done(Outcome{})
		verify.Slices(t, got.take(), []string{"drained star-0000: draining"}, "events")
		tr := transportOf(peer)
		verify.That(t, tr.drains.Load() == 1 && tr.closes.Load() == 0, "%d drains, %d closes, want 1, 0", tr.drains.Load(), tr.closes.Load())
		setReason(p, peer.ID, ReasonDrain, false, "")
		mustPick(t, p, nil).Done(Outcome{})
		setReason(p, peer.ID, ReasonDrain, true, "")
		want := []string{
			"state star-0000: up: draining → up",
			"state star-0000: draining: up → draining: drain",
			"drained star-0000: draining",
		}
		verify.Slices(t, got.take(), want, "events")
	})
}

func TestCloseDrainsEveryPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{DrainTimeout: 10 * time.Second, NewTransport: newTestTransport}, instances(3)...)
		all := p.Snapshot().All
		first, second := mustPick(t, p, nil), mustPick(t, p, nil)
		p.Close()
		p.Close()
		expectPick(t, p, nil, ErrNoPeers)
		changes := p.Apply(instances(3))
		verify.That(t, changes.Empty() && len(p.Snapshot().All) == 0, "a closed pool accepts peers")
		p.Reconfigure(complete(Options{DrainTimeout: 10 * time.Second}))
		verify.That(t, !drained(p), "drained with two requests in flight")
		first.Done(Outcome{})
		verify.That(t, !drained(p), "drained with a request in flight")
		pass(11 * time.Second)
		verify.That(t, drained(p), "not drained after the timeout")
		for _, peer := range all {
			verify.Equal(t, transportOf(peer).closes.Load(), 1, "%v: times closed", peer)
		}
		second.Done(Outcome{})
		empty := newTestPool(t, Options{})
		empty.Close()
		verify.That(t, drained(empty), "a pool without peers is not drained")
	})
}

// Until its time is over, the peers of a pool that is out of use drain, and requests that were for
// it still get them.
func TestRetiredPoolServesLateRequests(t *testing.T) {
	for _, closed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var got events
			p := newTestPool(t, Options{
				DrainTimeout: 10 * time.Second, SlowStart: SlowStart{Window: 3 * time.Second}, NewTransport: newTestTransport, Notify: got.notify,
			})
			p.Apply(instances(3))
			all := p.Snapshot().All
			left := mustPick(t, p, nil)
			p.Apply(remove(instances(3), left.Peer.ID))
			early := mustPick(t, p, nil)
			got.take()
			p.Retire(5 * time.Second)
			p.Retire(time.Hour)
			events := got.take()
			verify.That(t, len(events) == 2 && len(p.Snapshot().All) == 0 && len(p.Snapshot().Draining) == 3, "events %q", events)
			changes := p.Apply(instances(3))
			verify.That(t, changes.Empty(), "a retired pool accepts peers")
			p.SetFactors(Adjustment{Peer: early.Peer, By: .5})
			pass(4 * time.Second)
			left.Done(Outcome{})
			verify.That(t, transportOf(left.Peer).closes.Load() == 1 && !drained(p), "the peer that left before drains")
			late := mustPick(t, p, nil)
			verify.Equal(t, late.Peer.State(), StateDraining, "state of the peer")
			q := new(Query)
			for _, peer := range all {
				if peer != left.Peer {
					q.Tried.Add(peer)
				}
			}
			expectPick(t, p, q, ErrAllTried)
			late.Done(Outcome{})
			n, _ := p.Snapshot().Usable(0)
			verify.That(t, n == 2, "%d peers are usable", n)

			if closed {
				p.Close()
			} else {
				pass(time.Second)
			}
			expectPick(t, p, nil, ErrNoPeers)
			verify.That(t, len(p.Snapshot().Draining) == 1 && !drained(p), "the request in flight is forgotten")
			pass(10*time.Second - 1)
			verify.That(t, !drained(p), "the request is cut before its time")
			pass(1)
			verify.That(t, drained(p), "not drained after the timeout")
			for _, peer := range all {
				verify.Equal(t, transportOf(peer).closes.Load(), 1, "%v: times closed", peer)
			}
			early.Done(Outcome{})
			verify.Equal(t, early.Peer.Inflight(), 0, "in flight")
			p.Close()
		})
	}
}

// remove returns a set without an instance.
func remove(set []discovery.Instance, id discovery.Key) (rest []discovery.Instance) {
	for _, i := range set {
		if i.Key() != id {
			rest = append(rest, i)
		}
	}
	return rest
}

// Nobody waits for a peer of a pool that gets none any more: in its place there may be another one,
// for the next request.
func TestNobodyWaitsForAPeerOfARetiredPool(t *testing.T) {
	for name, end := range map[string]func(*Pool){"retired": func(p *Pool) { p.Retire(5 * time.Second) }, "closed": (*Pool).Close} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTestPool(t, Options{Limits: Limits{Pending: 1}})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				time.AfterFunc(time.Second, func() { end(p) })
				start := time.Now()
				_, err := p.Await(ctx, places.Many, func() (Token, error) { return p.Pick(nil) })
				verify.That(t, err == ErrNoPeers && time.Since(start) == time.Second, "%v after %v", err, time.Since(start))
			})
		})
	}
}

// The last request on a peer that gets no others any more, because it is down, may end while the
// pool is retired.
func TestRetiredPoolLetsAPeerGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{DrainTimeout: time.Minute, NewTransport: newTestTransport}, instances(2)...)
		last := mustPick(t, p, nil)
		p.SetReasons(ReasonEjected, Verdict{Peer: last.Peer, Down: true})
		p.Retire(time.Second)
		last.Done(Outcome{})
		verify.That(t, transportOf(last.Peer).closes.Load() == 1 && !drained(p), "the peer that is down has not drained")
		verify.That(t, mustPick(t, p, nil).Peer != last.Peer, "the peer that is down is picked")
		pass(time.Minute + time.Second)
		verify.That(t, drained(p), "not drained")
	})
}
