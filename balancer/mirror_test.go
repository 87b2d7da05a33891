package balancer

import (
	"errors"
	"sync"
	"testing"
	"time"

	"sluice/test/verify"
)

// During the maintenance of a service, it gets no copies.
func TestNoCopiesDuringMaintenance(t *testing.T) {
	p := newTestPool(t, Options{}, instances(1)...)
	p.Maintenance.Store(new(Maintenance))
	_, err := p.PickMirror(Query{})
	verify.Equal(t, err, ErrNoEligible, "the error of a pick for a copy")
	p.Maintenance.Store(nil)
	mustPickMirror(t, p, Query{}).Done(Outcome{})
}

// mustPickMirror picks a peer for a copy.
func mustPickMirror(t *testing.T, p *Pool, q Query) Token {
	t.Helper()
	return verify.Result(p.PickMirror(q)).Must(t)
}

// Copies in flight, as many as can be, take no place from requests, and no more are sent to
// a peer that has no place left.
func TestCopiesTakeNoPlace(t *testing.T) {
	for name, limits := range map[string]Limits{
		"requests":              {Requests: 2},
		"requests of a peer":    {PeerRequests: 2},
		"connections of a peer": {PeerConnections: 2},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTestPool(t, Options{Limits: limits}, instances(1)...)
			held := []Token{mustPickMirror(t, p, Query{}), mustPickMirror(t, p, Query{})}
			verify.Equal(t, p.Snapshot().All[0].Inflight(), 2, "in flight")
			held = append(held, hold(t, p, 2)...)
			_, err := p.PickMirror(Query{})
			verify.That(t, err != nil, "a copy was sent to a service without a place")
			_, err = p.Pick(nil)
			verify.That(t, err != nil, "more requests than the limit")
			for _, token := range held {
				token.Done(Outcome{})
			}
			load, inflight := p.Snapshot().All[0].load.Load(), p.Admission.inflight.Load()
			verify.That(t, load == 0 && inflight == 0, "%d and %d in flight at the end", load, inflight)
			refusals, refused := p.Admission.Refusals(), uint64(0)
			for _, n := range refusals {
				refused += n
			}
			verify.That(t, refused == 1, "refusals %v, want that of the request", refusals)
		})
	}
}

// A copy leaves a peer's share of the turns, its group's counters and the retry budget alone,
// and counts for the peer.
func TestCopiesCountForThePeerOnly(t *testing.T) {
	streak := 0
	p := newTestPool(t, Options{
		Policy: PolicyRoundRobin, Groups: byTag("a"), RetryBudget: &RetryBudget{Ratio: 1},
		OnFailure: func(_ *Peer, _ Outcome, s Streak) { streak = max(streak, s.Any) },
	})
	_, err := p.PickMirror(Query{})
	verify.That(t, errors.Is(err, ErrNoPeers), "without peers: %v", err)
	p.Apply(withTags(""))
	_, err = p.PickMirror(Query{Group: p.Group("a").ID()})
	verify.That(t, errors.Is(err, ErrNoPeers), "for an empty group: %v", err)
	p.Apply(withTags("a", "a", ""))
	var clients []uint64
	p.Group("a").OnDone(func(client uint64, _ Outcome) { clients = append(clients, client) })
	q := Query{Group: p.Group("a").ID()}
	got := make(map[*Peer]int)
	before := p.Admission.budget.balance.Load()
	for range 20 {
		copied := mustPickMirror(t, p, Query{Group: q.Group, Client: 7})
		verify.Require(t, copied.Peer.Group().Name() == "a", "a copy for group a went to %v", copied.Peer)
		copied.Done(Outcome{Class: OutcomeServerError, Status: 500, Latency: time.Millisecond})
	}
	verify.Equal(t, streak, 10, "failures of copies in a row on one of two peers")
	n := p.Group("a").Attempts().Snapshot()
	verify.That(t, n.Total() == 0 && len(clients) == 0,
		"copies count as %d attempts on their group and %d of clients", n.Total(), len(clients))
	now := p.Admission.budget.balance.Load()
	verify.That(t, now <= before, "copies added %d to the retry budget", now-before)
	for range 20 {
		mustPickMirror(t, p, q).Done(Outcome{Latency: time.Millisecond})
		token := mustPick(t, p, &q)
		got[token.Peer]++
		token.Done(Outcome{Latency: time.Millisecond})
	}
	for peer, n := range got {
		verify.Equal(t, n, 10, "%v of 20 requests", peer)
		o := peer.Outcomes()
		verify.That(t, o[OutcomeServerError] == 10 && o[OutcomeOK] == 20, "%v has the outcomes %v, want those of copies too", peer, o)
	}
}

// A reload removes a mirror's group while the body of a request arrives: its copy does not go to
// the peers of clients, which have the request already.
func TestNoCopiesForAGroupThatIsGone(t *testing.T) {
	p := newTestPool(t, Options{Groups: byTag("a")}, withTags("a", "")...)
	copied := Query{Group: p.Group("a").ID()}
	p.Reconfigure(complete(Options{}))
	_, err := p.PickMirror(copied)
	verify.Equal(t, err, ErrNoPeers, "the error of a pick for a copy")
	mustPick(t, p, &copied).Done(Outcome{}) // a request does not fail
}

// Requests never find a place taken by a copy, whatever runs at the same time.
func TestCopiesBesideRequests(t *testing.T) {
	p := newTestPool(t, Options{Limits: Limits{PeerRequests: 1}}, instances(1)...)
	stop := make(chan struct{})
	var copying sync.WaitGroup
	defer copying.Wait()
	defer close(stop)
	for range 3 {
		copying.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if token, err := p.PickMirror(Query{}); err == nil {
					token.Done(Outcome{})
				}
			}
		})
	}
	for range 20_000 {
		picked(t, p, nil) // without another request in flight
	}
}
