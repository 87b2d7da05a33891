//go:build linux

package main

import (
	"strings"
	"testing"
	"time"

	"sluice/bench/machine"
)

// twoRuns is a measurement of every kind of workload.
func twoRuns() document {
	run := func(factor time.Duration) []result {
		us := factor * time.Microsecond
		return []result{
			{Workload: "small", About: "small ones", work: workload{path: "/small"}, Series: []series{
				{Proxy: "nginx", Rounds: rounds(20 * us)}, {Proxy: "sluice", Rounds: rounds(10 * us)},
			}},
			{Workload: "idle", About: "idle ones", work: workload{kind: kindIdle}, Series: []series{
				{Proxy: "sluice", Idle: &idle{Before: 1 << 20, During: 3 << 20}},
			}},
			{Workload: "twocores", About: "two cores", work: workload{kind: kindWide}, Series: []series{
				{Proxy: "sluice-one", Rounds: rounds(9 * us)}, {Proxy: "sluice", Rounds: rounds(10 * us)},
			}},
			{Workload: "pools", About: "pools", work: workload{kind: kindPools}, baselines: []string{"sluice-1"}, Series: []series{
				{Proxy: "sluice-1", Rounds: rounds(100 * us)}, {Proxy: "sluice-1000", Rounds: rounds(103 * us)},
			}},
		}
	}
	return document{command: "go run ./bench", machine: machine.Machine{CPU: "fast", CPUs: 2}, runs: [][]result{run(1), run(2)}}
}

func TestDocumentHasAFigureOfEachRun(t *testing.T) {
	text := strings.Join(strings.Fields(twoRuns().tables()), " ")
	for _, want := range []string{
		"12000 requests, 0 failed.",
		"| small ones | sluice | 10.0, 20.0 | 0.50, 0.50 | – |",
		"| small ones | nginx | 1000, 1000 | – | – |",
		"| idle ones | sluice | 1.0, 1.0 | 3.0, 3.0 |",
		"| two cores | sluice | 10.0, 20.0 | 1.80, 1.80 |",
		"| pools | sluice-1000 | 103.0, 206.0 | 1.03, 1.03 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("not there: %s\nin: %s", want, text)
		}
	}
	for _, unwanted := range []string{"sluice-one", "| small ones | nginx | 20.0"} {
		if strings.Contains(text, unwanted) {
			t.Errorf("there is %s in: %s", unwanted, text)
		}
	}
}
