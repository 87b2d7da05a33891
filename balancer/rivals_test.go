package balancer

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// Peers share requests with those of their group and tier. A cold peer is no rival, and in panic
// nobody is.
func TestRivals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := withTags("a", "a", "b", "b", "b")
		sizes := func(p *Pool) (sizes []int) {
			for _, peers := range p.Snapshot().Rivals() {
				sizes = append(sizes, len(peers))
			}
			return sizes
		}
		f := func(name string, o Options, want ...int) {
			t.Helper()
			p := newTestPool(t, o, set...)
			defer p.Close()
			verify.Slices(t, sizes(p), want, "%s: rivals", name)
		}
		f("alone", Options{}, 5)
		f("groups", Options{Groups: byTag("a")}, 2, 3)
		f("tiers", Options{Tiers: []Selector{{Tags: []string{"a"}}}}, 2, 3)

		p := newTestPool(t, Options{PanicThreshold: 0.5, SlowStart: SlowStart{Window: 10 * time.Second, Aggression: 1, MinWeight: 0.1}})
		defer p.Close()
		p.Apply(set[:4])
		time.Sleep(time.Minute)
		p.Apply(set)
		verify.Slices(t, sizes(p), []int{4}, "rivals with a cold peer")
		time.Sleep(time.Minute)
		verify.Slices(t, sizes(p), []int{5}, "rivals when all are warm")
		for _, i := range set[:3] {
			setReason(p, i.Key(), ReasonEjected, true, "")
		}
		verify.That(t, p.Snapshot().Panic && sizes(p) == nil, "panic %v, rivals %v", p.Snapshot().Panic, sizes(p))
	})
}

// A peer that has lost weight is warming and says why, also in its event; with all of it back it is
// up.
func TestLostWeightIsAState(t *testing.T) {
	var events []string
	p := newTestPool(t, Options{Notify: func(e Event) { events = append(events, e.Detail) }}, instances(2)...)
	defer p.Close()
	peer := p.Snapshot().All[0]
	for _, c := range []struct {
		by    float64
		why   string
		state State
		event string
	}{
		{0.5, "slow", StateWarming, "up → warming: weight: slow"},
		{0.25, "slower", StateWarming, ""},
		{1, "", StateUp, "warming → up"},
	} {
		events = nil
		p.SetFactors(Adjustment{Peer: peer, By: c.by, Why: c.why})
		verify.Equal(t, peer.State(), c.state, "state")
		verify.Equal(t, strings.Join(events, "; "), c.event, "event")
	}
}
