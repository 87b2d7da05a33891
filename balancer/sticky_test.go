package balancer

import (
	"maps"
	"math"
	"testing"

	"sluice/config/units"
	"sluice/test/verify"
)

func TestStickyRequestsReturnToTheirPeer(t *testing.T) {
	set := instances(5)
	p := newTestPool(t, Options{Policy: PolicySticky, RetryBudget: ampleRetries}, set...)
	reached := make(map[*Peer]bool)
	for range 200 { // without a cookie: any peer
		reached[picked(t, p, nil)] = true
	}
	verify.Equal(t, len(reached), 5, "of 5 peers were picked")
	for _, peer := range p.Snapshot().All {
		q := Query{Hash: peer.StickyID()}
		for range 100 { // however busy it is
			got := mustPick(t, p, &q).Peer
			verify.Require(t, got == peer, "picked %v, want %v", got, peer)
		}
	}

	// One that is out for a while is named in vain, and then no more in vain.
	first := p.Snapshot().All[0]
	q := Query{Hash: first.StickyID()}
	setReason(p, first.ID, ReasonEjected, true, "")
	verify.That(t, mustPick(t, p, &q).Peer != first, "picked an ejected peer")
	setReason(p, first.ID, ReasonEjected, false, "")
	verify.Equal(t, mustPick(t, p, &q).Peer, first, "picked after it returned")
	q.Tried.Add(first)
	verify.That(t, mustPick(t, p, &q).Peer != first, "picked a tried peer")
	q = Query{Hash: 12345}
	mustPick(t, p, &q) // an unknown cookie
	p.Apply(set[1:])
	q = Query{Hash: first.StickyID()}
	verify.That(t, mustPick(t, p, &q).Peer != first, "picked a peer that has left")
}

// A session stays where it is while its peer's tier gets a part of the requests, and
// when it gets none any more: nothing is wrong with the peer. New clients go where
// the tiers want them.
func TestStickyRequestsReturnToTheirPeerInAnyTier(t *testing.T) {
	set := tagged(6, 2, "main") // 0 and 1 are backups
	p := newTestPool(t, backups(Options{Policy: PolicySticky}), set...)
	stay := func() {
		t.Helper()
		for _, peer := range p.Snapshot().Eligible {
			got := picked(t, p, &Query{Hash: peer.StickyID()})
			verify.That(t, got == peer, "a session moves from %v to %v", peer, got)
		}
	}
	stay()
	setReason(p, set[2].Key(), ReasonActive, true, "")
	setReason(p, set[3].Key(), ReasonActive, true, "")
	stay()
	got := sharesOf(t, p, 20000)
	verify.That(t, math.Abs(got[0]+got[1]-.3) <= .02, "the backup peers get %.3f of the new clients, want 0.3", got[0]+got[1])
	// Those whose peer is gone are like new ones, each time.
	gone := peerOf(t, p, set[2]).StickyID()
	backup := 0.
	for range 20000 {
		if got := picked(t, p, &Query{Hash: gone}).ID; got == set[0].Key() || got == set[1].Key() {
			backup++
		}
	}
	share := backup / 20000
	verify.That(t, math.Abs(share-.3) <= .02, "the backup peers get %.3f of those whose peer is out, want 0.3", share)
}

func TestStickyIDs(t *testing.T) {
	ids := func(name, key string) map[uint64]bool {
		p := NewPool(name, complete(Options{Policy: PolicySticky, StickyKey: units.NewSecret(key)}))
		p.Apply(instances(3))
		set := make(map[uint64]bool)
		for _, peer := range p.Snapshot().All {
			set[peer.StickyID()] = true
		}
		verify.That(t, len(set) == 3 && !set[0], "ids %v of 3 peers", set)
		return set
	}
	verify.That(t, maps.Equal(ids("star", ""), ids("star", "")) &&
		maps.Equal(ids("star", "k"), ids("moon", "k")),
		"replicas with the same key name peers differently")
	verify.That(t, !maps.Equal(ids("star", ""), ids("moon", "")) &&
		!maps.Equal(ids("star", "k"), ids("star", "l")),
		"names do not depend on the key")

	p := newTestPool(t, Options{Policy: PolicySticky}, instances(1)...)
	peer := p.Snapshot().All[0]
	before := peer.StickyID()
	p.Reconfigure(complete(Options{Policy: PolicySticky, StickyKey: units.NewSecret("k")}))
	verify.That(t, peer.StickyID() != before, "another key does not change names")
}

// A client returns to the peer to which it has a connection of its own, by every policy, while it
// is eligible.
func TestOwnPeerIsPicked(t *testing.T) {
	for _, policy := range []Policy{PolicyRoundRobin, PolicyEWMA, PolicySticky, PolicyHash} {
		p := newTestPool(t, Options{Policy: policy, RetryBudget: ampleRetries}, instances(5)...)
		own := p.Snapshot().All[3]
		for range 20 {
			verify.Equal(t, mustPick(t, p, &Query{Own: own, Hash: 1}).Peer, own,
				"%s: picked", policy)
		}
		q := Query{Own: own}
		q.Tried.Add(own)
		verify.That(t, mustPick(t, p, &q).Peer != own, "%s: picked a tried peer", policy)
		setReason(p, own.ID, ReasonEjected, true, "")
		verify.That(t, mustPick(t, p, &Query{Own: own}).Peer != own, "%s: picked an ejected peer", policy)
		p.Apply(instances(2))
		verify.That(t, mustPick(t, p, &Query{Own: own}).Peer != own, "%s: picked a peer that has left", policy)
	}
}
