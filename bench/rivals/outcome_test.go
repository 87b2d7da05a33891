//go:build linux

package main

import (
	"maps"
	"slices"
	"testing"
	"time"
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
	if want := map[string]int{"502": 2, "cut": 1, "timeout": 1}; !maps.Equal(o.Failed, want) || o.failed() != 4 {
		t.Errorf("failed %v, want %v", o.Failed, want)
	}
	if o.Requests != 6 {
		t.Errorf("%d requests, want 6", o.Requests)
	}
	if o.Failing != 400*time.Millisecond {
		t.Errorf("failing for %v, want the 400ms after the second event", o.Failing)
	}
	if o.Slowest != time.Second || o.Late != 3*time.Millisecond {
		t.Errorf("slowest %v, late %v", o.Slowest, o.Late)
	}
	if got := o.reasons(); got != "502, cut, timeout" {
		t.Errorf("reasons %q, want the most frequent first", got)
	}
}

func TestQuantileOfFewValues(t *testing.T) {
	values := []time.Duration{5, 1, 4, 2, 3}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v = %v, want %v", q, got, want)
		}
	}
	if !slices.Equal(values, []time.Duration{5, 1, 4, 2, 3}) {
		t.Error("the values were sorted in place")
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("quantile of nothing = %v", got)
	}
}
