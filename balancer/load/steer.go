package load

import (
	"math"
	"slices"
	"time"
)

// Period is the time between two steps of [Steer].
const Period = time.Second

const (
	// MinFactor and MaxFactor bound what a peer gets, relative to what its weight gives, whatever it and others report.
	MinFactor, MaxFactor = 0.25, 4

	// gain is the part of a deviation that a step corrects. Chosen by TestReportedLoadEvensUtilization: with 0.08 shares swing where a
	// policy amplifies weights and reports are late by 10 s, with 0.035 they have not settled after 100 s.
	gain = 0.06
	// leak is the part of a factor, as a logarithm, that a step forgets: else the factors of replicas, of which the peers see only
	// the sum, could drift apart for ever. It costs 2 % of evenness at a factor of 3.
	leak = 0.001
	// maxDeviation bounds the logarithm of a deviation: a wild report moves a share by at most 9 % in a step.
	maxDeviation = 1.5
	// idle is a utilization at which differences mean little. It is added to each.
	idle = 0.02
)

// A Peer is one of the peers that share requests.
type Peer struct {
	Weight      float64 // in the registry, above 0
	Factor      float64 // in use, from MinFactor to MaxFactor
	Utilization float64 // reported last, above 0; 0: none that counts
	// Reported: the report is new since the last step. Only a new one moves the factor, since an old one says nothing about
	// what the last step did.
	Reported bool
	// Held: the factor does not move, since something else lowers the share for a while.
	Held bool
}

// Steer sets the next factors, such that the utilization of all peers becomes equal: an integral controller for each, on
// the logarithm, as in Dropbox's Robinhood (2024), whose set point is the median of the reports, so that a few that
// are wrong do not move it. Because it multiplies shares, many replicas that see the same reports act as one does.
//
// Peers without a report keep factor 1, the share of their weight. The others share what their weights give all of them, within
// the bounds.
func Steer(peers []*Peer) {
	var reports []float64
	for _, p := range peers {
		if p.Utilization > 0 && !p.Held {
			reports = append(reports, p.Utilization)
		}
	}
	if len(reports) < 2 { // nothing to compare
		return
	}
	slices.Sort(reports)
	target := (reports[(len(reports)-1)/2] + reports[len(reports)/2]) / 2
	var steered []*Peer
	for _, p := range peers {
		if p.Utilization <= 0 || p.Held {
			continue
		}
		if p.Reported {
			deviation := math.Log((target + idle) / (p.Utilization + idle))
			p.Factor = math.Pow(p.Factor, 1-leak) * math.Exp(gain*min(max(deviation, -maxDeviation), maxDeviation))
		}
		steered = append(steered, p)
	}
	share(steered)
}

// share multiplies the factors by one number and puts them within the bounds, such that the peers together have the share of
// their weights.
func share(peers []*Peer) {
	due := 0.
	least, most := math.Inf(1), 0. // factors
	for _, p := range peers {
		due += p.Weight
		least, most = min(least, p.Factor), max(most, p.Factor)
	}
	bounded := func(p *Peer, by float64) float64 { return min(max(p.Factor*by, MinFactor), MaxFactor) }
	low, high := MinFactor/most, MaxFactor/least // too little, too much
	for range 50 {
		middle := math.Sqrt(low * high)
		sum := 0.
		for _, p := range peers {
			sum += p.Weight * bounded(p, middle)
		}
		if sum < due {
			low = middle
		} else {
			high = middle
		}
	}
	for _, p := range peers {
		p.Factor = bounded(p, high)
	}
}
