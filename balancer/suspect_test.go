package balancer

import (
	"slices"
	"testing"
	"time"

	"sluice/discovery"
	"sluice/test/verify"
)

func TestOnlyFailingChecksMakeAPeerSuspect(t *testing.T) {
	apply := func(change func(*discovery.Instance)) func(*Pool, []discovery.Instance) {
		return func(p *Pool, set []discovery.Instance) {
			set = slices.Clone(set)
			change(&set[0])
			p.Apply(set)
		}
	}
	reason := func(r Reason) func(*Pool, []discovery.Instance) {
		return func(p *Pool, set []discovery.Instance) { setReason(p, set[0].Key(), r, true, "") }
	}
	for _, test := range []struct {
		name   string
		happen func(*Pool, []discovery.Instance)
		want   int32
	}{
		{"critical", apply(func(i *discovery.Instance) { i.Status, i.Weight = discovery.StatusCritical, 0 }), 1},
		{"maintenance", apply(func(i *discovery.Instance) { i.Status, i.Weight = discovery.StatusMaintenance, 0 }), 0},
		{"weight 0", apply(func(i *discovery.Instance) { i.Weight = 0 }), 0},
		{"left", func(p *Pool, set []discovery.Instance) { p.Apply(set[1:]) }, 0},
		{"active check", reason(ReasonActive), 1},
		{"ejected", reason(ReasonEjected), 0},
		{"operator", reason(ReasonDrain), 0},
		{"active check, drained before", func(p *Pool, set []discovery.Instance) {
			setReason(p, set[0].Key(), ReasonDrain, true, "")
			setReason(p, set[0].Key(), ReasonActive, true, "")
		}, 1},
		{"another output of the same check", func(p *Pool, set []discovery.Instance) {
			setReason(p, set[0].Key(), ReasonActive, true, "a")
			setReason(p, set[0].Key(), ReasonActive, true, "b")
		}, 1},
		{"fails, recovers, fails", func(p *Pool, set []discovery.Instance) {
			for _, down := range []bool{true, false, true} {
				setReason(p, set[0].Key(), ReasonActive, down, "")
			}
		}, 2},
		{"needed in panic", func(p *Pool, set []discovery.Instance) {
			for _, i := range set[1:] {
				setReason(p, i.Key(), ReasonEjected, true, "")
			}
			setReason(p, set[0].Key(), ReasonActive, true, "")
		}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := instances(4)
			p := newTestPool(t, Options{PanicThreshold: .5, NewTransport: newTestTransport}, set...)
			suspect := transportOf(peerOf(t, p, set[0]))
			test.happen(p, set)
			verify.Equal(t, suspect.suspicions.Load(), test.want, "times suspected")
		})
	}
}

// The latency of a failing peer is not that after its recovery.
func TestLatencyIsResetWhenChecksPassAgain(t *testing.T) {
	for _, r := range []string{"consul", "active"} {
		t.Run(r, func(t *testing.T) {
			set := instances(1)
			p := newTestPool(t, Options{Policy: PolicyEWMA, NewTransport: newTestTransport}, set...)
			peer := peerOf(t, p, set[0])
			pick := func() Token { return mustPick(t, p, nil) }
			fail := func(down bool) {
				if r == "active" {
					setReason(p, set[0].Key(), ReasonActive, down, "")
					return
				}
				changed := set[0]
				if down {
					changed.Status, changed.Weight = discovery.StatusCritical, 0
				}
				p.Apply([]discovery.Instance{changed})
			}
			pick().Done(Outcome{Latency: 1}) // the first answer is no sample
			slow, still := pick(), pick()
			slow.Done(Outcome{Latency: 5 * time.Second})
			fail(true)
			verify.That(t, peer.Latency() >= 4*time.Second,
				"latency %v before the peer recovers", peer.Latency())
			fail(false)
			verify.Equal(t, peer.Latency(), 0, "latency after the peer has recovered")
			still.Done(Outcome{Latency: 20 * time.Second})
			verify.Equal(t, peer.Latency(), 0, "latency after an answer to a request from before")
			pick().Done(Outcome{Latency: 1})
			verify.Equal(t, peer.Latency(), 0, "latency after the first answer")
			pick().Done(Outcome{Latency: 7 * time.Millisecond})
			verify.Equal(t, peer.Latency(), 7*time.Millisecond, "latency after an answer")
		})
	}
}
