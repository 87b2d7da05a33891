package healthcheck

import (
	"cmp"
	"fmt"
	"math"
	"testing"

	"sluice/test/long"
	"sluice/test/verify"
)

// trials are intervals of peers whose attempts are bad at random.
type trials struct {
	random    *generator
	peers     int
	attempts  int     // of each peer in an interval
	bad       float64 // share of the first peer
	others    float64 // share of the other peers
	tolerated float64
}

func (c *trials) draw(p float64) sample {
	s := sample{all: float64(c.attempts)}
	for range c.attempts {
		if c.random.random.Float64() < p {
			s.bad++
		}
	}
	return s
}

// alarms returns the share of intervals in which the first peer was anomalous.
func (c *trials) alarms(intervals int) float64 {
	n, e := 0, evidence{}
	for range intervals {
		if c.interval(&e) {
			n++
		}
	}
	return float64(n) / float64(intervals)
}

// until returns the average number of intervals until the first peer was anomalous, at most 30.
func (c *trials) until(rounds int) float64 {
	sum := 0
	for range rounds {
		e := evidence{}
		for range 30 {
			sum++
			if c.interval(&e) {
				break
			}
		}
	}
	return float64(sum) / float64(rounds)
}

func (c *trials) interval(e *evidence) bool {
	var others sample
	for range c.peers - 1 {
		others = others.plus(c.draw(c.others))
	}
	if e.add(c.draw(c.bad), others, c.tolerated) <= enough {
		return false
	}
	*e = evidence{}
	return true
}

// Equal peers, and peers that are worse by no more than ratio or are good enough, are as rarely
// anomalous as docs/health.md says, with any traffic and number of peers.
func TestFalseAlarms(t *testing.T) {
	long.Sequential(t)
	random := seeded(t)
	for _, peers := range []int{2, 3, 10} {
		for _, attempts := range []int{10, 100, 1000, 10000} {
			intervals := max(800_000/(peers*attempts), 30)
			for _, p := range []float64{0.0005, 0.01, 0.1, 0.5} {
				c := trials{random, peers, attempts, p, p, 0.01}
				equal := c.alarms(min(intervals, 5000))
				verify.That(t, equal <= 0.001, "%d peers with %d attempts, %v bad: anomalous in %v of the intervals", peers, attempts, p, equal)
				c.bad = ratio * p
				worse := c.alarms(min(intervals, 5000))
				verify.That(t, worse <= 1./certainty, "%d peers with %d attempts, %v bad, one %v: anomalous in %v of the intervals", peers, attempts, p, c.bad, worse)
			}
			c := trials{random, peers, attempts, 0.01, 0, 0.01}
			tolerated := c.alarms(min(intervals, 5000))
			verify.That(t, tolerated <= 1./certainty, "%d peers with %d attempts, one has the tolerated share: anomalous in %v of the intervals", peers, attempts, tolerated)
		}
	}
}

// How many intervals it takes until one peer is anomalous.
func TestTimeToDetect(t *testing.T) {
	long.Sequential(t)
	random := seeded(t)
	const never = 30
	// The times that each answer takes are exponentially distributed: 1 in 8 of the others takes 3
	// medians, half of one that is 3 × slower.
	cases := []struct {
		what                   string
		bad, others, tolerated float64
		most                   map[string]float64 // intervals by peers and attempts
	}{
		{"fails 5 %", 0.05, 0.0005, 0.01, map[string]float64{"2×1000": 2, "10×100": 4, "2×10000": 1.01, "10×1000": 1.01}},
		{"fails 30 %", 0.3, 0.0005, 0.01, map[string]float64{"2×100": 1.1, "3×100": 1.01, "10×10": 3, "10×100": 1.01, "3×1000": 1.01}},
		{"3 × slower", 0.5, 0.125, slowShare, map[string]float64{"2×100": 2, "3×100": 1.5, "10×100": 1.1, "2×1000": 1.01, "10×1000": 1.01}},
	}
	for _, c := range cases {
		for _, peers := range []int{2, 3, 10} {
			line := fmt.Sprintf("| %d | %s |", peers, c.what)
			for _, attempts := range []int{10, 100, 1000, 10000} {
				trials := trials{random, peers, attempts, c.bad, c.others, c.tolerated}
				got := trials.until(min(max(1_000_000/(peers*attempts), 10), 400))
				line += fmt.Sprintf(" %.1f |", got)
				most := cmp.Or(c.most[fmt.Sprintf("%d×%d", peers, attempts)], never)
				verify.That(t, got <= most, "%d peers with %d attempts, one %s: found after %.2f intervals, want at most %v", peers, attempts, c.what, got, most)
			}
			t.Log(line)
		}
	}
}

func TestEvidence(t *testing.T) {
	f := func(name string, peer, others sample, want float64) {
		t.Helper()
		var e evidence
		got := e.add(peer, others, 0.01)
		verify.That(t, math.Abs(got-want) < 0.001, "%s: surprise %v, want %v", name, got, want)
	}
	f("nothing", sample{}, sample{}, 0)
	f("no attempts at the others", sample{9, 10}, sample{}, 0)
	f("no attempts at the peer", sample{}, sample{9, 10}, 0)
	f("all bad", sample{10, 10}, sample{10, 10}, 0)
	f("better", sample{1, 1000}, sample{50, 1000}, 0)
	// Of two peers with the same attempts, the first may have 60 % of the bad ones.
	total := 10 + 10*0.01/ratio
	want := 10*math.Log(10/(0.6*total)) + (total-10)*math.Log((total-10)/(0.4*total))
	f("two peers", sample{10, 10}, sample{0, 10}, want)

	// Evidence of the past counts, and less and less.
	var e evidence
	verify.That(t, e.add(sample{6, 10}, sample{0, 10}, 0) < enough, "6 failures of one of two peers are enough")
	verify.That(t, e.add(sample{8, 10}, sample{0, 10}, 0) > enough, "14 failures of one of two peers in two intervals are not enough")
	for range 3 {
		e.add(sample{}, sample{}, 0)
	}
	verify.That(t, e.add(sample{6, 10}, sample{0, 10}, 0) < enough, "failures of five intervals ago are enough")

	// A peer that was better than the others is found as soon as it is worse.
	e = evidence{}
	for range 20 {
		verify.Equal(t, e.add(sample{50, 1000}, sample{100, 1000}, 0), 0, "surprise of a better peer")
	}
	verify.That(t, e.add(sample{300, 1000}, sample{100, 1000}, 0) > enough, "a good past hides 300 failures")
}
