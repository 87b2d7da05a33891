package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/test/long"
	"sluice/test/verify"
)

// reporting is a service whose peers report their utilization each second.
type reporting struct {
	t      *testing.T
	random *rand.Rand
	pool   *Pool
	able   map[discovery.Key]float64 // requests a second that are a utilization of 1; 0: does not report
	shares map[*Peer]float64         // of the picks of the last second, over able: the utilization in some unit
}

// second sends requests for a second of each peer, and lets the peers report.
func (r *reporting) second() {
	s := r.pool.Snapshot()
	groups := []GroupID{0}
	if len(s.Groups) > 0 {
		groups = nil
		for _, part := range s.Groups {
			if len(part.Eligible) > 0 {
				groups = append(groups, part.Group.ID())
			}
		}
	}
	const requests = 3000
	counts := make(map[*Peer]int)
	for n := range requests {
		token, err := r.pool.Pick(&Query{Group: groups[n%len(groups)]})
		verify.Require(r.t, err == nil, "pick: %v", err)
		counts[token.Peer]++
		token.Done(Outcome{Latency: 10 * time.Millisecond})
	}
	r.shares = make(map[*Peer]float64)
	for _, p := range s.All {
		if able := r.able[p.ID]; able > 0 {
			r.shares[p] = float64(counts[p])/able + 1e-4 // one without requests is idle
			p.ReportLoad(r.shares[p])
		}
	}
	pass(time.Second)
}

func (r *reporting) seconds(n int) {
	for range n {
		r.second()
	}
}

// Where reported load meets tiers, groups, subsets, slow start, orders, the factor of health, peers without reports, peers that come and
// go, and a reload: what may be compared gets even, and what something else decides stays as that decides.
func TestReportedLoadMeetsOthers(t *testing.T) {
	for n := range long.Count(t, 5, 150) {
		seed := uint64(time.Now().UnixNano()) + uint64(n)
		synctest.Test(t, func(t *testing.T) {
			t.Logf("seed %d", seed)
			time.Sleep(time.Until(epoch) + time.Hour) // nanotime counts from there
			random := rand.New(rand.NewPCG(seed, 0))
			r := &reporting{t: t, random: random, able: make(map[discovery.Key]float64)}
			o := Options{Policy: []Policy{PolicyRoundRobin, PolicyRandom}[random.IntN(2)], ReportedLoad: true, Random: numbers(seed)}
			var set []discovery.Instance
			for i := range 4 + random.IntN(6) {
				j := instance(i, []int{1, 1, 2}[random.IntN(3)])
				j.Tags = [][]string{{"near"}, {"near", "b"}, {"far"}}[random.IntN(3)]
				r.able[j.Key()] = []float64{0, 1000, 1500, 2000, 2000}[random.IntN(5)]
				set = append(set, j)
			}
			set[0].Tags, set[1].Tags = []string{"near"}, []string{"near"}
			if random.IntN(2) == 0 {
				o.Tiers = []Selector{{Tags: []string{"near"}}}
			}
			if random.IntN(2) == 0 {
				o.Groups = []GroupSelector{{Name: "b", Selector: Selector{Tags: []string{"b"}}}}
			}
			if random.IntN(3) == 0 {
				o.Subset = Subset{Size: 3, Replica: 0, Replicas: 2}
			}
			if random.IntN(2) == 0 {
				o.SlowStart.Window = 20 * time.Second
			}
			r.pool = newTestPool(t, o)
			defer r.pool.Close()
			r.pool.Apply(set[1:])
			r.seconds(9)
			for _, p := range r.pool.Snapshot().All { // still in the blackout
				by, _ := p.Factor(FactorLoad)
				verify.Equal(t, by, 1, "factor in the blackout")
			}
			r.seconds(20)
			r.pool.Apply(set)
			all := r.pool.Snapshot().All
			ordered, held := all[random.IntN(len(all))], all[random.IntN(len(all))]
			r.pool.SetOrders(func(i discovery.Instance) Orders {
				if i.Key() == ordered.ID {
					return Orders{Weight: 3}
				}
				return Orders{}
			})
			r.seconds(25) // longer than the slow start
			r.pool.SetFactors(FactorHealth, Adjustment{Peer: held, By: .5})
			before, _ := held.Factor(FactorLoad)
			r.seconds(5)
			verify.NoError(t, r.pool.Reconfigure(complete(o))) // a reload
			kept, _ := held.Factor(FactorLoad)
			r.seconds(60)
			after, _ := held.Factor(FactorLoad)
			if held != ordered {
				verify.That(t, after == before && kept == before, "the factor of load of a peer with one of health: %v → %v → %v", before, kept, after)
			}
			s := r.pool.Snapshot()
			parts := s.Groups
			if parts == nil {
				parts = []*Part{&s.Part}
			}
			for _, part := range parts {
				for _, tier := range part.inTiers {
					r.checkEven(tier, ordered, held)
				}
			}
			for _, p := range s.All {
				by, _ := p.Factor(FactorLoad)
				verify.That(t, by == 1 || p != ordered && r.able[p.ID] > 0, "factor %v of %v", by, p)
			}
			gone := s.All[random.IntN(len(s.All))]
			r.pool.Apply(slices.DeleteFunc(slices.Clone(set), func(i discovery.Instance) bool { return i.Key() == gone.ID }))
			by, _ := gone.Factor(FactorLoad)
			load, _ := gone.ReportedLoad()
			verify.That(t, by == 1 && load == 0, "a peer that has left: factor %v, load %v", by, load)
			r.pool.Apply(set)
			r.seconds(3)
			pass(loadExpiry + 2*time.Second)
			r.expectNone("after the last reports have expired")
			verify.That(t, !r.pool.steers.Load(), "the timer runs without reports")
			r.seconds(30)
			o.ReportedLoad = false
			verify.NoError(t, r.pool.Reconfigure(complete(o)))
			r.expectNone("when switched off")
			r.seconds(5)
			r.expectNone("while switched off")
		})
	}
}

func (r *reporting) expectNone(when string) {
	r.t.Helper()
	for _, p := range r.pool.Snapshot().All {
		by, _ := p.Factor(FactorLoad)
		load, _ := p.ReportedLoad()
		verify.That(r.t, by == 1 && load == 0, "%s: factor %v, load %v", when, by, load)
	}
}

// checkEven checks that peers that may be compared have about the same utilization, averaged over a while, but for those
// whose factor is at a bound.
func (r *reporting) checkEven(tier []*Peer, except ...*Peer) {
	r.t.Helper()
	sums := make(map[*Peer]float64)
	for range 10 {
		r.second()
		for p, share := range r.shares {
			sums[p] += share / 10
		}
	}
	low, high := math.Inf(1), 0.
	text := ""
	for _, p := range tier {
		by, _ := p.Factor(FactorLoad)
		if r.able[p.ID] == 0 || slices.Contains(except, p) || by < .26 || by > 3.9 {
			continue
		}
		low, high = min(low, sums[p]), max(high, sums[p])
		text += fmt.Sprintf(" %s %.3f × %.2f", p.ID.ID, sums[p], by)
	}
	verify.That(r.t, high <= 1.15*low+.01 || high == 0, "utilizations from %.3f to %.3f:%s", low, high, text)
}

// While a peer is in slow start its reports move nothing: it is not as busy as its weight would make it.
func TestReportedLoadDuringSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(epoch) + time.Hour) // nanotime counts from there
		p := newTestPool(t, Options{Policy: PolicyRoundRobin, ReportedLoad: true, SlowStart: SlowStart{Window: time.Minute}})
		defer p.Close()
		set := instances(3)
		p.Apply(set[:2])
		pass(2 * time.Minute)
		p.Apply(set)
		fresh := peerOf(t, p, set[2])
		reports := func(seconds int) float64 {
			for range seconds {
				for _, peer := range p.Snapshot().All {
					peer.ReportLoad(.5)
				}
				fresh.ReportLoad(.1)
				pass(time.Second)
			}
			by, _ := fresh.Factor(FactorLoad)
			return by
		}
		verify.Equal(t, reports(55), 1, "factor in slow start")
		verify.That(t, reports(20) > 1.5, "factor after slow start: %v", reports(0))
	})
}
