//go:build linux

package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// outcome is the result of a scenario for a rival.
type outcome struct {
	Scenario  string          `json:"scenario"`
	Rival     string          `json:"rival"`
	Error     string          `json:"error,omitempty"` // why the scenario did not end
	Requests  int             `json:"requests"`
	Failed    map[string]int  `json:"failed,omitempty"`   // by reason
	Failing   time.Duration   `json:"failing_ns"`         // longest time from an event to the last failure before the next event
	P99       time.Duration   `json:"p99_ns"`             // of all requests, with failed ones
	Slowest   time.Duration   `json:"slowest_ns"`         // likewise
	Recovered bool            `json:"recovered"`          // at the end all instances answered, and no request failed
	Joins     []time.Duration `json:"joins_ns,omitempty"` // from the registration of an instance to its first answer
	Queries   int64           `json:"queries,omitempty"`  // to Consul; only in some scenarios
	Late      time.Duration   `json:"late_ns"`            // longest delay of the sending of a request
}

// failed returns how many requests failed.
func (o outcome) failed() int {
	sum := 0
	for _, n := range o.Failed {
		sum += n
	}
	return sum
}

// run runs a scenario for a rival. The outcome has errors of the rival; other errors are returned.
func (s scenario) run(ctx context.Context, c *cluster, e entry) (outcome, error) {
	o := outcome{Scenario: s.name, Rival: e.name}
	st, err := newStage(ctx, c, e, s)
	if err != nil {
		o.Error = err.Error()
		return o, ctx.Err()
	}
	var before int64
	if st.relay != nil {
		before = st.relay.queries.Load()
	}
	playErr := s.play(ctx, st)
	end := time.Now()
	if st.relay != nil {
		o.Queries = st.relay.queries.Load() - before
	}
	o.Recovered, o.Joins = st.recovered, st.joins
	samples, err := st.close()
	o.count(samples, st.begin, end, st.events)
	if playErr != nil {
		o.Error = playErr.Error()
	}
	return o, cmp.Or(ctx.Err(), err)
}

// count sums up the requests that were due between begin and end.
func (o *outcome) count(samples []sample, begin, end time.Time, events []time.Time) {
	var latencies []time.Duration
	o.Failed = make(map[string]int)
	for _, s := range samples {
		if s.Due.Before(begin) || s.Due.After(end) {
			continue
		}
		latencies = append(latencies, s.Latency)
		o.Late = max(o.Late, s.Late)
		if s.Failure == "" {
			continue
		}
		o.Failed[s.Failure]++
		if since, ok := latestBefore(events, s.Due); ok {
			o.Failing = max(o.Failing, s.Due.Sub(since))
		}
	}
	o.Requests = len(latencies)
	o.P99, o.Slowest = quantile(latencies, 0.99), quantile(latencies, 1)
}

// latestBefore returns the last of some times, which are in order, that is not
// after t.
func latestBefore(times []time.Time, t time.Time) (time.Time, bool) {
	for _, at := range slices.Backward(times) {
		if !at.After(t) {
			return at, true
		}
	}
	return time.Time{}, false
}

// quantile returns the smallest of some values that at least a share q of them
// does not exceed, and 0 of none.
func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// reasons lists why requests failed, the most frequent reason first.
func (o outcome) reasons() string {
	names := slices.SortedFunc(maps.Keys(o.Failed), func(a, b string) int {
		return cmp.Or(cmp.Compare(o.Failed[b], o.Failed[a]), strings.Compare(a, b))
	})
	return strings.Join(names, ", ")
}
