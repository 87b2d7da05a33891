package load

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/test/verify"
)

// Whatever peers report, factors stay within their bounds and the peers that report share what their weights give them. Others,
// and peers whose factor is held, keep theirs.
func TestSteerIsBounded(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		var peers []*Peer
		for range 1 + random.IntN(12) {
			peers = append(peers, &Peer{Weight: float64(1 + random.IntN(100)), Factor: 1})
		}
		for range 1 + random.IntN(100) {
			before := make([]Peer, len(peers))
			counts, due := 0, 0.
			for i, p := range peers {
				p.Utilization, p.Reported, p.Held = 0, random.IntN(4) > 0, random.IntN(8) == 0
				if random.IntN(8) > 0 {
					p.Utilization = math.Pow(10, random.Float64()*24-12)
				}
				if p.Utilization > 0 && !p.Held {
					counts, due = counts+1, due+p.Weight
				}
				before[i] = *p
			}
			Steer(peers)
			sum := 0.
			for i, p := range peers {
				verify.That(t, p.Factor >= MinFactor && p.Factor <= MaxFactor, "factor %v", p.Factor)
				if p.Utilization == 0 || p.Held || counts < 2 {
					verify.That(t, p.Factor == before[i].Factor, "factor of a peer that does not count: %v → %v", before[i].Factor, p.Factor)
				} else {
					sum += p.Weight * p.Factor
				}
			}
			verify.That(t, counts < 2 || math.Abs(sum/due-1) < 1e-6, "the peers have %v of what their weights give", sum/due)
		}
	}
}

// A peer that always says that it is idle gets at most four times its share, and the others are as before among each other. An old
// report moves nothing, and a few that are wrong do not move those that are right.
func TestSteerWithWrongReports(t *testing.T) {
	peers := make([]*Peer, 10)
	for i := range peers {
		peers[i] = &Peer{Weight: 1, Factor: 1, Utilization: .5, Reported: true}
	}
	peers[0].Utilization = 1e-9
	peers[1].Utilization = 1e6
	for range 200 {
		Steer(peers)
	}
	verify.That(t, math.Abs(peers[0].Factor-MaxFactor) < 1e-6, "factor of a peer that boasts: %v", peers[0].Factor)
	verify.That(t, math.Abs(peers[1].Factor-MinFactor) < 1e-6, "factor of a peer that complains: %v", peers[1].Factor)
	for _, p := range peers[2:] {
		verify.That(t, math.Abs(p.Factor/((10-MaxFactor-MinFactor)/8)-1) < 1e-6, "factor of another peer: %v", p.Factor)
	}
	before := *peers[5]
	peers[5].Reported, peers[5].Utilization = false, 5
	Steer(peers)
	verify.That(t, math.Abs(peers[5].Factor/before.Factor-1) < 1e-3, "factor after no new report: %v → %v", before.Factor, peers[5].Factor)
}
