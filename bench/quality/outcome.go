//go:build linux

package main

import (
	"math"
	"slices"
	"time"
)

// figures describe latencies, in milliseconds. Failed requests count as the slowest of all.
type figures struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
}

func (f figures) all() []float64 { return []float64{f.P50, f.P99, f.P999} }

// outcome is what one proxy did in one round of a scenario.
type outcome struct {
	Round    int             `json:"round"`
	Scenario string          `json:"scenario"`
	Proxy    string          `json:"proxy"`
	Latency  figures         `json:"latency"`
	Best     figures         `json:"best"`              // of the queue that knows everything
	Requests int             `json:"requests"`          // that were sent
	Failed   int             `json:"failed"`            // without a wrong body
	Reasons  map[failure]int `json:"reasons,omitempty"` // of the failed ones
	Wrong    int             `json:"wrong"`             // 200 with a wrong body
	Goodput  float64         `json:"goodput"`           // right answers a second, while requests were sent
	Most     int             `json:"most"`              // requests in flight at a peer
	Needless float64         `json:"needless"`          // share of those that waited, though another peer, at least as fast, had a free slot
	Share    float64         `json:"share"`             // of the last peer, which is the one that differs where one does
	Shares   [2]float64      `json:"shares"`            // the least and the most of its due that a sound peer got in five seconds
	Less     float64         `json:"less"`              // seconds until a slow peer has less than half its share; -1: none was slow
	Again    float64         `json:"again"`             // seconds until it has it again; -1
	Late     float64         `json:"late"`              // ms: the latest sending
	Busy     float64         `json:"busy"`              // share of the processor, of all that ran
	Error    string          `json:"error,omitempty"`
}

// quantile returns the smallest latency that the share q of all does not exceed, in milliseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	n := int(math.Ceil(q*float64(len(sorted)))) - 1
	return float64(sorted[max(n, 0)]) / float64(time.Millisecond)
}

func figuresOf(latencies []time.Duration) figures {
	slices.Sort(latencies)
	return figures{quantile(latencies, 0.5), quantile(latencies, 0.99), quantile(latencies, 0.999)}
}

// median returns the middle of values, the lower of two, and -1 for none.
func median[T float64 | time.Duration](values []T) T {
	if len(values) == 0 {
		return -1
	}
	return slices.Sorted(slices.Values(values))[(len(values)-1)/2]
}
