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

func TestEachChangeHasAnEventInOrder(t *testing.T) {
	var got events
	p := newTestPool(t, Options{Notify: got.notify})
	expect := func(want ...string) {
		t.Helper()
		taken := got.take()
		verify.That(t, slices.Equal(taken, want), "events\n\t%s\nwant\n\t%s", strings.Join(taken, "\n\t"), strings.Join(want, "\n\t"))
	}
	a, b := instance(0, 1), instance(1, 1)
	b.Status, b.Detail = discovery.StatusCritical, "http: refused"
	p.Apply([]discovery.Instance{b, a})
	expect("added star-0000: up", "added star-0001: unhealthy: consul: critical: http: refused")
	before := p.Snapshot()
	verify.That(t, p.Apply([]discovery.Instance{a, b}).Empty() && p.Snapshot() == before, "the same set in another order makes a difference")
	expect()

	b.Detail = "http: timeout" // only another output
	p.Apply([]discovery.Instance{a, b})
	expect()
	verify.Equal(t, peerOf(t, p, b).Reasons()[0], "consul: critical: http: timeout", "reason")

	a.Weight, a.Tags = 3, []string{"v2"}
	b.Status, b.Detail = discovery.StatusPassing, ""
	p.Apply([]discovery.Instance{a, b})
	expect("updated star-0000: up: weight 1 → 3, tags",
		"updated star-0001: up: critical → passing", "state star-0001: up: unhealthy → up")

	setReason(p, b.Key(), ReasonEjected, true, "5 failures in a row")
	setReason(p, b.Key(), ReasonEjected, true, "6 failures in a row")
	expect("state star-0001: ejected: up → ejected: ejected: 5 failures in a row")
	setReason(p, b.Key(), ReasonDrain, true, "")
	setReason(p, b.Key(), ReasonDrain, true, "again")
	expect("state star-0001: draining: ejected → draining: ejected: 6 failures in a row; drain", "drained star-0001: draining")
	setReason(p, b.Key(), ReasonDrain, false, "")
	setReason(p, b.Key(), ReasonEjected, false, "")
	expect("state star-0001: ejected: draining → ejected: ejected: 6 failures in a row", "state star-0001: up: ejected → up")

	var q Query
	q.Tried.Add(peerOf(t, p, b))
	token := mustPick(t, p, &q) // a is in flight
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

// The snapshot contains a change before its event.
func TestEventsComeAfterTheSnapshot(t *testing.T) {
	var p *Pool
	p = newTestPool(t, Options{Notify: func(e Event) {
		s := p.Snapshot()
		verify.That(t, e.Kind != EventAdded || slices.Contains(s.All, e.Peer),
			"added, but not in the snapshot")
		verify.That(t, e.Kind != EventRemoved || !slices.Contains(s.All, e.Peer),
			"removed, but in the snapshot")
		verify.That(t, e.Kind != EventDrained || !slices.Contains(s.Draining, e.Peer),
			"drained, but in the snapshot as draining")
		verify.That(t, !e.Time.IsZero() && e.Pool == "star", "no time or pool")
	}})
	p.Apply(instances(3))
	p.Apply(instances(1))
	p.Close()
}

func TestSinceIsTheStartOfTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := instance(0, 1)
		p := newTestPool(t, Options{}, i)
		peer := peerOf(t, p, i)
		start := peer.Since()
		time.Sleep(time.Second)
		i.Weight = 2
		p.Apply([]discovery.Instance{i})
		verify.Equal(t, peer.Since(), start, "a change of weight changed Since")
		setReason(p, i.Key(), ReasonActive, true, "")
		verify.Equal(t, peer.Since().Sub(start), time.Second, "after a change of state Since is later")
	})
}

func TestNames(t *testing.T) {
	verify.Equal(t, (ReasonRegistry | ReasonDrain).String(), "consul,drain", "reasons")
	verify.Equal(t, OutcomeStale.String(), "stale connection", "an outcome")
	verify.Equal(t, (&Peer{ID: instance(0, 1).Key()}).String(), "star/star-0000 (127.0.0.1:10000)",
		"a peer")
}
