package balancer

import (
	"math"
	"testing"
	"time"

	"sluice/test/verify"
)

func TestLatencyThatAPickCompares(t *testing.T) {
	const usual = 20 * ms
	f := func(what string, latency, age, want time.Duration) {
		t.Helper()
		p := new(Peer)
		if latency > 0 {
			p.latency.observe(latency, latency, begin)
		}
		d := drawing{&candidate{peer: p}, float64(latency)}
		got := d.latency(float64(usual), begin+int64(age))
		verify.That(t, near(got, float64(want)), "%s: %v, want %v", what, time.Duration(got), want)
	}
	f("no sample", 0, 0, usual)
	f("as the others", usual, 0, usual)
	f("slower", 50*ms, 0, 50*ms)
	f("far slower", time.Minute, 0, maxSlower*usual)
	f("far faster", ms, 0, 12*ms)
	f("slower a while ago", 50*ms, minDecay, 20*ms+11036*time.Microsecond)
	f("slower long ago", 50*ms, time.Minute, usual)
	f("faster long ago", 15*ms, time.Minute, 15*ms)
}

// judged returns what judge says of peers with these estimates.
func judged(estimates []float64) (usual float64, alone int) {
	var drawn []drawing
	for _, e := range estimates {
		drawn = append(drawn, drawing{estimate: e})
	}
	return judge(drawn)
}

func TestUsualLatencyIsTheLowerMedianOfTheKnown(t *testing.T) {
	f := func(want float64, estimates ...float64) {
		t.Helper()
		usual, _ := judged(estimates)
		verify.Equal(t, usual, want, "%v", estimates)
	}
	f(0, 0, 0)
	f(5, 0, 5)
	f(5, 9, 5)
	f(7, 9, 5, 7, 0)
	f(3, 6, 5, 4, 3, 2, 1)
}

// Only one far below many others does other work than they do. Of several, of few, or beside one
// that is nearly as fast, each is as fast as it answers.
func TestWhichPeerIsImplausiblyFast(t *testing.T) {
	f := func(want int, estimates ...float64) {
		t.Helper()
		_, alone := judged(estimates)
		verify.Equal(t, alone, want, "%v", estimates)
	}
	f(0, 1, 20, 19, 21, 22, 18)
	f(3, 18, 20, 19, 1, 21, 22)
	f(-1, 1, 1, 20, 19, 21, 22)
	f(-1, 1, 20, 16, 21, 22, 18)
	f(-1, 1, 20, 0, 21, 22, 18) // one without samples
	f(-1, 1, 20, 20)
}

// An implausibly fast peer gets what its weight gives, and less when it keeps its requests.
func TestAnImplausiblyFastPeerGetsItsShare(t *testing.T) {
	for _, n := range []int{10, 30} {
		p := newTestPool(t, Options{}, instances(n)...)
		all := p.Snapshot().All
		candidates := make([]candidate, n)
		for i, peer := range all {
			candidates[i] = candidate{peer: peer, weight: 1, burden: 1}
			peer.latency.observe(40*ms, 40*ms, begin)
			peer.load.Store(2)
		}
		odd := all[3]
		odd.latency = estimate{}
		odd.latency.observe(ms, 40*ms, begin)
		e := newEWMA(&pickerInput{candidates: candidates})
		random := generator(t)
		share := func(load int64) float64 {
			odd.load.Store(load)
			const picks = 20_000
			got := 0
			for range picks {
				if e.pick(Query{random: random.Uint64}, begin, nil) == odd {
					got++
				}
			}
			return float64(got) / picks * float64(n)
		}
		idle, busy := share(0), share(20)
		verify.That(t, math.Abs(idle-1) < .25, "%d peers: %.2f of its share", n, idle) // 6.5 standard deviations or more
		verify.Equal(t, busy, 0, "%d peers, 20 requests in flight: part of its share", n)
	}
}

// Six peers of any larger number are different ones, each as likely as any other, and none was
// tried.
func TestPeersAreDrawnAlike(t *testing.T) {
	random := generator(t)
	for _, n := range []int{2, 6, 7, 10, 100} {
		p := newTestPool(t, Options{}, instances(n)...)
		all := p.Snapshot().All
		candidates := make([]candidate, n)
		for i := range candidates {
			candidates[i] = candidate{peer: all[i], weight: 1, burden: 1}
		}
		e := newEWMA(&pickerInput{candidates: candidates}).(*ewma)
		count := make(map[*Peer]int)
		q := Query{random: random.Uint64}
		q.Tried.Add(all[0])
		const draws = 20_000
		for range draws {
			var drawn [choices]drawing
			seen := make(map[*Peer]bool)
			for _, d := range drawn[:e.draw(&q, &drawn)] {
				verify.Require(t, !seen[d.peer] && d.peer != all[0], "%d peers: %v twice, or tried", n, d.peer)
				seen[d.peer] = true
				count[d.peer]++
			}
		}
		due := min(float64(choices)/float64(n), 1)
		for _, peer := range all[1:] {
			got, deviation := float64(count[peer]), math.Sqrt(draws*due*(1-due))
			verify.That(t, math.Abs(got-draws*due) <= 5*deviation, "%d peers: %v is drawn %v times, want %v", n, peer, got, draws*due)
		}
	}
}

// A peer is not slow because it gets the slow requests.
func TestAPeerIsAsSlowAsByComparisonWithItsRequests(t *testing.T) {
	p := newTestPool(t, Options{}, instances(5)...)
	for step := range 2000 {
		for i, peer := range p.Snapshot().All {
			endpoint, latency := uint32(1), 10*ms
			switch i {
			case 0:
				endpoint, latency = 2, 500*ms
			case 4:
				latency = 30 * ms
			}
			peer.measure(Outcome{Class: OutcomeOK, Latency: latency, Details: Details{Endpoint: endpoint}}, begin+int64(step+1)*int64(10*ms)-int64(latency))
		}
	}
	all := p.Snapshot().All
	with := func(i, j int) float64 { return float64(all[i].Latency()) / float64(all[j].Latency()) }
	verify.That(t, math.Abs(with(0, 1)-1) < .1, "with slow requests %v, with fast ones %v", all[0].Latency(), all[1].Latency())
	verify.That(t, math.Abs(with(4, 1)-3) < .3, "a slow peer %v, the others %v", all[4].Latency(), all[1].Latency())
}
