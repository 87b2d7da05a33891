//go:build linux

package main

import (
	"strings"
	"testing"
	"time"

	"sluice/bench/machine"
	"sluice/test/verify"
)

func TestReportHasATableForEachScenario(t *testing.T) {
	r := report{
		Command: "go run ./bench/rivals", Machine: machine.Machine{CPU: "fast", CPUs: 2},
		LeftOut: []leftOut{{"traefik", "build Traefik: no module proxy\nmuch more"}},
		Outcomes: []outcome{
			{Scenario: "join", Rival: "sluice", Requests: 2000, Recovered: true, Queries: 38, P99: 7 * time.Millisecond,
				Joins: []time.Duration{30 * time.Millisecond, 10 * time.Millisecond, 200 * time.Millisecond}},
			{Scenario: "kill", Rival: "sluice", Requests: 1800, Recovered: true, P99: 8 * time.Millisecond, Slowest: 1234 * time.Millisecond, Late: 25 * time.Millisecond},
			{Scenario: "kill", Rival: "fabio", Requests: 1801, Recovered: true, Failed: map[string]int{"502": 7, "cut": 9}, Failing: 1550 * time.Millisecond},
			{Scenario: "kill", Rival: "other", Requests: 1802, Failed: map[string]int{"502": 800}, Failing: 20 * time.Second},
			{Scenario: "kill", Rival: "broken", Error: "ended by itself\nits log"},
		},
	}
	text := strings.Join(strings.Fields(r.markdown()), " ")
	for _, want := range []string{
		"the latest of all was sent 25.0 ms after its time",
		"**Left out: traefik.** build Traefik: no module proxy ###",
		"| sluice | 30.0 | 200 | 38 | 2000 | 0 | – | 7.0 |",
		"| sluice | 1800 | 0 | – | – | 8.0 | 1234 |",
		"| fabio | 1801 | 16 | cut, 502 | 1.6 |",
		"| other | 1802 | 800 | 502 | to the end |",
		"broken came to no end: ended by itself",
	} {
		verify.That(t, strings.Contains(text, want), "not there: %s\nin: %s", want, text)
	}
	for _, unwanted := range []string{"much more", "its log", "| broken |", "hangs"} {
		verify.That(t, !strings.Contains(text, unwanted), "there is %q in: %s", unwanted, text)
	}
}
