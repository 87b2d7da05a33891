//go:build linux

package main

import (
	"maps"
	"slices"
	"testing"
	"time"

	"sluice/test/verify"
)

// at is a moment some milliseconds after the beginning of a scenario.
func at(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }

func TestRequestsOfTheScenarioAreCounted(t *testing.T) {
	ok := func(due int) sample { return sample{Due: at(due), Latency: 10 * time.Millisecond, Instance: "star-1"} }
	failed := func(due int, why string) sample {
		return sample{Due: at(due), Latency: time.Second, Late: 3 * time.Millisecond, Failure: why}
	}
	var o outcome
	o.count([]sample{
		failed(-5, "502"), // before it began
		failed(50, "cut"), // before anything happened
		ok(150), failed(300, "502"), ok(310),
		failed(1100, "502"), failed(1400, "timeout"),
		failed(5001, "502"), // after its end
	}, at(0), at(5000), []time.Time{at(100), at(1000)})
	want := map[string]int{"502": 2, "cut": 1, "timeout": 1}
	verify.That(t, maps.Equal(o.Failed, want) && o.failed() == 4, "failed %v, want %v", o.Failed, want)
	verify.That(t, o.Requests == 6, "%d requests, want 6", o.Requests)
	verify.That(t, o.Failing == 400*time.Millisecond, "failing for %v, want the 400ms after the second event", o.Failing)
	verify.That(t, o.Slowest == time.Second && o.Late == 3*time.Millisecond, "slowest %v, late %v", o.Slowest, o.Late)
	verify.Equal(t, o.reasons(), "502, cut, timeout", "reasons")
}

func TestQuantileOfFewValues(t *testing.T) {
	values := []time.Duration{5, 1, 4, 2, 3}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		verify.Equal(t, quantile(values, q), want, "quantile %v", q)
	}
	verify.That(t, slices.Equal(values, []time.Duration{5, 1, 4, 2, 3}), "the values were sorted in place")
	verify.Equal(t, quantile(nil, 0.5), 0, "quantile of nothing")
}
