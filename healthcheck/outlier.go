package healthcheck

import "math"

const (
	// ratio is how many times the others' share of bad attempts a peer may have.
	ratio = 1.5
	// certainty: by chance alone at most one interval in so many makes a peer that has no more than
	// that anomalous.
	certainty = 100
	// memory is the part of the evidence that remains after an interval.
	memory = 0.75
	// slowShare is the share of slow answers that any peer may have.
	slowShare = 0.1
)

// sample is attempts, and the bad ones of them.
type sample struct{ bad, all float64 }

func (s sample) plus(o sample) sample  { return sample{s.bad + o.bad, s.all + o.all} }
func (s sample) minus(o sample) sample { return sample{s.bad - o.bad, s.all - o.all} }

// evidence says whether a peer is worse than those that share its requests. Of all bad attempts in
// an interval, a peer with ratio times the others' share of bad ones has at most
//
//	ratio × its attempts / (ratio × its attempts + the others' attempts)
//
// on average. Intervals add up, later ones count more. That a peer has by chance as many has a
// probability of at most e^-surprise, by the bound of W. Hoeffding, "Probability Inequalities for
// Sums of Bounded Random Variables" (1963), Theorem 1, which needs no least number of peers or
// attempts.
type evidence struct {
	bad      float64 // attempts of the peer
	expected float64 // of total
	total    float64 // bad attempts of all peers
}

// enough is the surprise that makes a peer anomalous: each interval is looked at twice.
var enough = math.Log(2 * certainty)

// add adds an interval and returns the surprise, of the interval alone or of all, whichever is
// more. Shares of bad attempts up to tolerated are no evidence: the others count as having that of
// which it is ratio times.
func (e *evidence) add(peer, others sample, tolerated float64) float64 {
	var now evidence
	if peer.all > 0 && others.all > 0 {
		now.bad, now.total = peer.bad, peer.bad+max(others.bad, others.all*tolerated/ratio)
		now.expected = now.total * ratio * peer.all / (ratio*peer.all + others.all)
	}
	e.bad, e.expected, e.total = memory*e.bad+now.bad, memory*e.expected+now.expected, memory*e.total+now.total
	return max(now.surprise(), e.surprise())
}

// surprise is 0 for a peer that is not worse.
func (e *evidence) surprise() float64 {
	if e.bad <= e.expected {
		return 0
	}
	s := e.bad * math.Log(e.bad/e.expected)
	if rest := e.total - e.bad; rest > 0 {
		s += rest * math.Log(rest/(e.total-e.expected))
	}
	return s
}
