//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/bench/machine"
	"sluice/test/verify"
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
				{Proxy: "sluice", Idle: &idle{Connections: 1024, Before: 1 << 20, During: 3 << 20}},
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
		"| small | small ones |",
		"| small | sluice | 10.0, 20.0 | 0.50, 0.50 | – | – |",
		"| small | nginx | 1000, 1000 | – | – |",
		"| idle | sluice | 1.0, 1.0 | 3.0, 3.0 | 2.00, 2.00 |",
		"| twocores | sluice | 10.0, 20.0 | 1.80, 1.80 |",
		"| pools | sluice-1000 | 103.0, 206.0 | 1.03, 1.03 |",
	} {
		verify.That(t, strings.Contains(text, want), "not there: %s\nin: %s", want, text)
	}
	for _, unwanted := range []string{"sluice-one", "| small | nginx | 20.0"} {
		verify.That(t, !strings.Contains(text, unwanted), "there is %s in: %s", unwanted, text)
	}
}

// A goal is reached if each run reaches it. One that was not measured has no row.
func TestGoals(t *testing.T) {
	d := document{runs: [][]result{
		{{Workload: "small", About: "small ones", Series: []series{
			{Proxy: "nginx", Rounds: rounds(20)}, {Proxy: "relay", Rounds: rounds(10)}, {Proxy: "sluice", Rounds: rounds(10)},
		}},
			{Workload: "twocores", About: "two cores", Series: []series{{Proxy: "sluice-one", Rounds: rounds(98)}, {Proxy: "sluice", Rounds: rounds(100)}}}},
		{{Workload: "small", About: "small ones", Series: []series{
			{Proxy: "nginx", Rounds: rounds(20)}, {Proxy: "relay", Rounds: rounds(10)}, {Proxy: "sluice", Rounds: rounds(12)},
		}},
			{Workload: "twocores", About: "two cores", Series: []series{{Proxy: "sluice-one", Rounds: rounds(95)}, {Proxy: "sluice", Rounds: rounds(100)}}}},
	}}
	var got []string
	for _, row := range d.goals() {
		got = append(got, strings.Join(row, " | "))
	}
	want := []string{
		"work | what | goal | runs | reached",
		"small | CPU, × a bare relay | ≤ 1.05 | 1.00, 1.20 | no",
		"small | CPU, × nginx | ≤ 1.00 | 0.50, 0.60 | yes",
		"twocores | work of two cores, × one's | ≥ 1.95 | 1.96, 1.90 | no",
	}
	verify.That(t, slices.Equal(got, want), "got %q, want %q", got, want)
}

// Each goal is of a workload, so that a new name does not lose it.
func TestGoalsAreOfWorkloads(t *testing.T) {
	for _, g := range goals {
		verify.That(t, slices.Contains(workloadNames(), g.workload), "no workload %s", g.workload)
	}
}

// Failed requests are in the document, with their round. One without a workload in a run is not
// complete.
func TestDocumentSaysWhichRequestsFailed(t *testing.T) {
	d := twoRuns()
	d.runs[1][0].Series[0].Rounds[0].Load.Status = 3
	want := "12000 requests, 3 failed.\n\n- Run 2, small, nginx, round 1: 0 connections failed, 3 answers not 2xx, 0 timeouts of 1000 requests\n"
	text := d.tables()
	verify.That(t, strings.Contains(text, want), "not there: %s\nin: %s", want, text)
	b := &bench{options: options{runCount: 2, workloads: make([]workload, len(d.runs[0]))}}
	verify.That(t, d.complete(b), "it is not complete")
	d.runs[1] = d.runs[1][1:]
	verify.That(t, !d.complete(b), "it is complete without a workload")
}
