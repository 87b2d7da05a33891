package healthcheck

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// outlier is a peer that fares worse than the others, by its index among them.
type outlier struct {
	index  int
	excess float64 // how bad it is, for the order in which outliers are ejected
	why    string
}

// attempts is what became of the attempts on a peer in an interval.
type attempts struct{ ok, failed uint64 }

func (a attempts) total() uint64 { return a.ok + a.failed }

func (a attempts) rate() float64 { return float64(a.ok) / float64(a.total()) }

// outliers returns the peers whose success rate is an outlier, the worst first.
// This is Envoy's detection of success rate outliers (and that of gRFC A50),
// with an absolute limit in addition: among peers that hardly ever fail, one
// failure more is no reason to eject anybody.
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
	mean, stdev := moments(rates)
	limit := mean - s.StdevFactor*stdev
	var found []outlier
	for i, a := range peers {
		if a.total() == 0 || a.total() < uint64(s.MinRequests) || a.rate() >= min(limit, s.Below) {
			continue
		}
		found = append(found, outlier{
			index:  i,
			excess: limit - a.rate(),
			why:    fmt.Sprintf("success rate %s of %d requests, that of all peers is %s", percent(a.rate()), a.total(), percent(mean)),
		})
	}
	return worstFirst(found)
}

// moments returns the mean of values and their standard deviation, taken as
// all there are and not as a sample, as Envoy does.
func moments(values []float64) (mean, stdev float64) {
	for _, v := range values {
		mean += v / float64(len(values))
	}
	for _, v := range values {
		stdev += (v - mean) * (v - mean) / float64(len(values))
	}
	return mean, math.Sqrt(stdev)
}

// answers is how fast a peer answered in an interval.
type answers struct {
	count  int
	median time.Duration
}

// outliers returns the peers that are too slow, the worst first. Medians are
// compared with their median, on which a few slow peers, and a few slow
// answers, have no influence.
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
			why:    fmt.Sprintf("median latency %s of %d answers, that of all peers is %s", rounded(a.median), a.count, rounded(typical)),
		})
	}
	return worstFirst(found)
}

func worstFirst(found []outlier) []outlier {
	slices.SortStableFunc(found, func(a, b outlier) int {
		switch {
		case a.excess > b.excess:
			return -1
		case a.excess < b.excess:
			return 1
		}
		return 0
	})
	return found
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

// rounded returns d with three significant digits at most.
func rounded(d time.Duration) time.Duration {
	for unit := time.Duration(1); ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
}
