package balancer

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/test/verify"
)

// Until its time is over, the peers of a pool that is out of use drain, and requests that were for it still get them.
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
			p.SetFactors(FactorHealth, Adjustment{Peer: early.Peer, By: .5})
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
			verify.That(t, p.Usable(0) == 2, "%d peers are usable", p.Usable(0))

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

func TestRetiredPoolWithoutPeersHasDrainedWhenItCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{})
		p.Retire(time.Second)
		expectPick(t, p, nil, ErrNoPeers)
		pass(time.Second)
		verify.That(t, drained(p), "not drained")
	})
}

// The last request on a peer that gets no others any more, because it is down, may end while the pool is retired.
func TestRetiredPoolLetsAPeerGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{DrainTimeout: time.Minute, NewTransport: newTestTransport})
		p.Apply(instances(2))
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
