package healthcheck

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// outlier is a peer that is worse than the others, by its index.
type outlier struct {
	index  int
	excess float64 // the worst is ejected first
	why    string
}

// attempts are the results of a peer in an interval.
type attempts struct{ ok, failed uint64 }

func (a attempts) total() uint64 { return a.ok + a.failed }

func (a attempts) rate() float64 { return float64(a.ok) / float64(a.total()) }

// outliers returns the outliers by success rate, the worst first: Envoy's algorithm
// (and gRFC A50), with the absolute limit Below, so that one failure among peers that
// hardly ever fail is no outlier.
func (s *SuccessRate) outliers(peers []attempts) []outlier {
	var rates []float64
	for _, a := range peers {
		if a.total() > 0 && a.total() >= uint64(s.MinRequests) {
			rates = append(rates, a.rate())
		}
	}
	if len(rates) == 0 || len(rates) < s.MinPeers {
		return nil
	}
	mean, stdev := meanAndDeviation(rates)
	limit := mean - s.StdevFactor*stdev
	var found []outlier
	for i, a := range peers {
		if a.total() == 0 || a.total() < uint64(s.MinRequests) || a.rate() >= min(limit, s.Below) {
			continue
		}
		found = append(found, outlier{
			index:  i,
			excess: limit - a.rate(),
			why:    fmt.Sprintf("success rate %s of %d requests, mean of all peers %s", percent(a.rate()), a.total(), percent(mean)),
		})
	}
	return worstFirst(found)
}

// meanAndDeviation returns the mean and the population standard deviation, as Envoy.
func meanAndDeviation(values []float64) (mean, stdev float64) {
	for _, v := range values {
		mean += v / float64(len(values))
	}
	for _, v := range values {
		stdev += (v - mean) * (v - mean) / float64(len(values))
	}
	return mean, math.Sqrt(stdev)
}

// answers are the latencies of a peer in an interval.
type answers struct {
	count  int
	median time.Duration
}

// outliers returns the outliers by latency, the worst first. The limit is relative to
// the median of the peers' medians, which a few slow peers do not move.
func (l *Latency) outliers(peers []answers) []outlier {
	var medians []time.Duration
	for _, a := range peers {
		if a.count > 0 && a.count >= l.MinRequests {
			medians = append(medians, a.median)
		}
	}
	if len(medians) == 0 || len(medians) < l.MinPeers {
		return nil
	}
	slices.Sort(medians)
	typical := medians[(len(medians)-1)/2]
	limit := max(time.Duration(l.Factor*float64(typical)), l.Above)
	var found []outlier
	for i, a := range peers {
		if a.count == 0 || a.count < l.MinRequests || a.median <= limit {
			continue
		}
		found = append(found, outlier{
			index:  i,
			excess: float64(a.median),
			why:    fmt.Sprintf("median latency %s of %d answers, median of all peers %s", rounded(a.median), a.count, rounded(typical)),
		})
	}
	return worstFirst(found)
}

func worstFirst(found []outlier) []outlier {
	slices.SortStableFunc(found, func(a, b outlier) int { return cmp.Compare(b.excess, a.excess) })
	return found
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

// rounded returns d with at most three significant digits.
func rounded(d time.Duration) time.Duration {
	for unit := time.Duration(1); ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
}
