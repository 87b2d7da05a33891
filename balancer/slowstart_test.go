package balancer

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/test/verify"
)

// The values are calculated with Envoy's formula.
func TestSlowStartFollowsEnvoysFormula(t *testing.T) {
	f := func(s SlowStart, age time.Duration, want float64) {
		t.Helper()
		s = complete(Options{SlowStart: s}).SlowStart
		got := s.factor(age)
		verify.That(t, math.Abs(got-want) <= 1e-9, "%+v: factor %v at %v, want %v", s, got, age, want)
	}
	minute := SlowStart{Window: time.Minute}
	f(minute, -time.Second, .1)
	f(minute, 0, .1)
	f(minute, 6*time.Second, .1)
	f(minute, 15*time.Second, .25)
	f(minute, 54*time.Second, .9)
	f(minute, time.Minute, 1)
	f(minute, time.Hour, 1)
	f(SlowStart{Window: time.Minute, Aggression: 2}, 15*time.Second, .5)
	f(SlowStart{Window: time.Minute, Aggression: .5}, 30*time.Second, .25)
	f(SlowStart{Window: time.Minute, MinWeight: .01}, 3*time.Second, .05)
	f(SlowStart{Window: time.Minute, MinWeight: 1}, 0, 1)
	f(SlowStart{}, 0, 1)
}

// shareOf returns the share of requests of the peer of i.
func shareOf(t *testing.T, p *Pool, i discovery.Instance) float64 {
	t.Helper()
	const picks = 4400 // a multiple of many sums of weights
	peer := peerOf(t, p, i)
	before := peer.Requests()
	requests(t, p, picks)
	return float64(peer.Requests()-before) / picks
}

func expectShare(t *testing.T, p *Pool, i discovery.Instance, want float64) {
	t.Helper()
	got := shareOf(t, p, i)
	verify.That(t, math.Abs(got-want) <= 0.002, "share %.3f, want %.3f", got, want)
}

func TestANewPeersShareGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got events
		p := newTestPool(t, Options{Policy: PolicyRoundRobin, SlowStart: SlowStart{Window: 10 * time.Second}, Notify: got.notify})
		set := instances(2)
		p.Apply(set[:1])
		time.Sleep(time.Minute)
		p.Apply(set)
		added := peerOf(t, p, set[1])
		verify.Equal(t, added.State(), StateWarming, "state")
		expectShare(t, p, set[1], .1/1.1)
		start := time.Now()
		for age := time.Second; age < 10*time.Second; age += time.Second {
			pass(age - time.Since(start))
			factor := age.Seconds() / 10
			expectShare(t, p, set[1], factor/(1+factor))
		}
		pass(time.Second)
		expectShare(t, p, set[1], .5)
		verify.That(t, added.State() == StateUp && added.Since().Sub(start) == 10*time.Second,
			"%v since %v, want up since 10s", added.State(), added.Since().Sub(start))
		want := []string{"added star-0000: up", "added star-0001: warming", "state star-0001: up: warming → up"}
		verify.Slices(t, got.take(), want, "events")
		// Without a warming peer nothing happens.
		generation := p.Snapshot().Generation
		pass(time.Hour)
		verify.That(t, p.Snapshot().Generation == generation && p.warming.timer == nil, "snapshots are made without need")
	})
}

// If all peers are new, none can take the load from the others.
func TestIfAllPeersAreNewTheyShareTheLoadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, Options{Policy: PolicyRoundRobin, MustPassFirst: true, SlowStart: SlowStart{Window: 10 * time.Second}})
		set := instances(4)
		expectUp := func(n int) {
			t.Helper()
			verify.Equal(t, len(p.Snapshot().Eligible), n, "eligible")
			for _, peer := range p.Snapshot().Eligible {
				verify.Equal(t, peer.State(), StateUp, "%v", peer)
			}
		}
		p.Apply(set[:3])
		time.Sleep(time.Minute) // the window begins when the first one passes
		for i := range 3 {
			setReason(p, set[i].Key(), ReasonActive, false, "")
			time.Sleep(time.Second)
		}
		expectUp(3)
		expectShare(t, p, set[1], 1./3)
		p.Apply(set)
		setReason(p, set[3].Key(), ReasonActive, false, "")
		expectUp(4)

		// All peers leave for a while.
		time.Sleep(time.Hour)
		var down, up []Verdict
		for _, peer := range p.Snapshot().All {
			down, up = append(down, Verdict{Peer: peer, Down: true}), append(up, Verdict{Peer: peer})
		}
		p.SetReasons(ReasonActive, down...)
		time.Sleep(time.Hour)
		p.SetReasons(ReasonActive, up[:2]...)
		time.Sleep(9 * time.Second)
		p.SetReasons(ReasonActive, up...)
		expectUp(4)
	})
}

func TestAPeerThatReturnsWarmsAgain(t *testing.T) {
	t.Parallel()
	for what, away := range map[string]func(p *Pool, i discovery.Instance, away bool){
		"ejected": func(p *Pool, i discovery.Instance, away bool) { setReason(p, i.Key(), ReasonEjected, away, "") },
		"checked": func(p *Pool, i discovery.Instance, away bool) { setReason(p, i.Key(), ReasonActive, away, "") },
		"drained": func(p *Pool, i discovery.Instance, away bool) { setReason(p, i.Key(), ReasonDrain, away, "") },
		"critical": func(p *Pool, i discovery.Instance, away bool) {
			if away {
				i.Status = discovery.StatusCritical
			}
			p.Apply([]discovery.Instance{instance(0, 1), i})
		},
		"removed": func(p *Pool, i discovery.Instance, away bool) {
			p.Apply(instances(map[bool]int{true: 1, false: 2}[away]))
		},
	} {
		for _, open := range []bool{false, true} { // whether a request in flight delays its end
			synctest.Test(t, func(t *testing.T) {
				p := newTestPool(t, Options{Policy: PolicyRoundRobin, SlowStart: SlowStart{Window: 10 * time.Second}})
				defer p.Close()
				set := instances(2)
				p.Apply(set)
				time.Sleep(time.Minute)
				for _, token := range []Token{mustPick(t, p, nil), mustPick(t, p, nil)} {
					if !open || token.Peer.ID != set[1].Key() {
						token.Done(Outcome{})
					}
				}
				away(p, set[1], true)
				time.Sleep(time.Second)
				away(p, set[1], false)
				verify.Equal(t, peerOf(t, p, set[1]).State(), StateWarming, "%s: state", what)
				expectShare(t, p, set[1], .1/1.1)
				verify.Equal(t, peerOf(t, p, set[0]).State(), StateUp, "%s: the other peer", what)
				// A peer that leaves while it warms starts again.
				time.Sleep(5 * time.Second)
				away(p, set[1], true)
				verify.Equal(t, len(p.Snapshot().Eligible), 1, "%s: eligible", what)
				away(p, set[1], false)
				expectShare(t, p, set[1], .1/1.1)
				pass(10 * time.Second)
				expectShare(t, p, set[1], .5)
			})
		}
	}
}

// A peer gets some requests from its start on, however little slow start leaves of its weight.
func TestWarmingLeavesAWeight(t *testing.T) {
	candidates := []candidate{{weight: discovery.MaxWeight}, {weight: 1}}
	for i := range candidates {
		candidates[i].peer = &Peer{}
		candidates[i].peer.condition.Store(&condition{})
	}
	candidates[0].peer.condition.Store(&condition{warmFrom: time.Now()})
	s := SlowStart{Window: time.Second, MinWeight: 1e-9, Aggression: 1}
	weigh(candidates, &s, time.Now())
	verify.That(t, candidates[0].weight >= 1 && candidates[1].weight == factorScale, "weights %d, %d; want at least 1, and %d", candidates[0].weight, candidates[1].weight, factorScale)
}

func TestSlowStartIsReconfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := instances(4)
		p := newTestPool(t, Options{Policy: PolicyRoundRobin}, set[:1]...)
		reconfigure := func(window time.Duration) {
			p.Reconfigure(complete(Options{Policy: PolicyRoundRobin, SlowStart: SlowStart{Window: window}}))
		}
		time.Sleep(time.Hour)
		p.Apply(set[:2])
		expectShare(t, p, set[1], .5) // off
		reconfigure(time.Minute)
		p.Apply(set[:3])
		verify.Equal(t, peerOf(t, p, set[2]).State(), StateWarming, "state")
		time.Sleep(10 * time.Second)
		reconfigure(8 * time.Second) // has ended by now
		verify.Equal(t, peerOf(t, p, set[2]).State(), StateUp, "state")
		p.Apply(set)
		reconfigure(0)
		verify.Equal(t, peerOf(t, p, set[3]).State(), StateUp, "state with slow start turned off")
		expectShare(t, p, set[3], .25)
		pass(time.Minute)
		verify.That(t, p.warming.timer == nil, "the timer runs on")
	})
}
