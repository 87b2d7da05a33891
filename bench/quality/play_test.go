//go:build linux

package main

import (
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/bench/quality/scenario"
	"sluice/test/verify"
)

const ms = time.Millisecond

// simulated does the work of one peer step by step.
func simulated(p *scenario.Peer, requests []scenario.Request, step time.Duration) []time.Duration {
	type job struct {
		left time.Duration
		n    int
	}
	ends := make([]time.Duration, len(requests))
	var waiting, working []job
	next, done := 0, 0
	for now := time.Duration(0); done < len(requests); now += step {
		for next < len(requests) && requests[next].At <= now {
			waiting = append(waiting, job{requests[next].Work, next})
			next++
		}
		for len(working) < p.Slots && len(waiting) > 0 {
			working, waiting = append(working, waiting[0]), waiting[1:]
		}
		for i := range working {
			working[i].left -= time.Duration(float64(step) / p.SlownessAt(now))
		}
		working = slices.DeleteFunc(working, func(j job) bool {
			if j.left <= 0 {
				ends[j.n] = now + step
				done++
			}
			return j.left <= 0
		})
	}
	return ends
}

func TestAQueueEndsWhenASimulationDoes(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	p := &scenario.Peer{Slots: 4, Slowness: []scenario.Interval{{From: 300 * ms, To: 600 * ms, By: 5}, {From: 600 * ms, To: 900 * ms, By: 0.5}}}
	var requests []scenario.Request
	for at := time.Duration(0); at < 2*time.Second; at += time.Duration(random.ExpFloat64() * float64(12*ms)) {
		requests = append(requests, scenario.Request{At: at, Work: time.Duration(random.ExpFloat64() * float64(40*ms))})
	}
	q := newQueue(p)
	const step = ms / 10
	for n, end := range simulated(p, requests, step) {
		difference := q.add(requests[n].At, requests[n].Work) - end
		verify.Require(t, difference.Abs() <= 500*step, "request %d ends %v from the simulation's end", n, difference)
	}
}

func TestTheBestPossibleIsOneQueue(t *testing.T) {
	t.Parallel()
	slow := []scenario.Interval{{To: scenario.Always, By: 100}}
	p := &play{Scenario: scenario.Scenario{Peers: []scenario.Peer{{Slots: 1, Slowness: slow}, {Slots: 1, Answer: scenario.Unavailable}, {Slots: 1}, {Slots: 1}}}}
	for range 4 {
		p.requests = append(p.requests, scenario.Request{Work: 10 * ms})
	}
	verify.Slices(t, p.best(), []time.Duration{10 * ms, 10 * ms, 20 * ms, 20 * ms}, "the latencies")
}

func TestReactionsAreReadFromShares(t *testing.T) {
	t.Parallel()
	p := &play{Scenario: scenario.Scenario{Duration: 12 * time.Second, Peers: []scenario.Peer{
		{Slowness: []scenario.Interval{{From: 4 * time.Second, To: 8 * time.Second, By: 10}}},
		{Slowness: []scenario.Interval{{From: 2 * time.Second, To: 2500 * ms, By: 10}}}, // too short to count
	}}}
	var arrivals []arrival
	for at := time.Duration(0); at < p.Duration; at += 5 * ms {
		n := len(arrivals) % 2
		if at > 5*time.Second && at < 10*time.Second {
			n = 1
		}
		arrivals = append(arrivals, arrival{at, n})
	}
	less, again := reactions(p, arrivals)
	verify.Require(t, len(less) == 1 && len(again) == 1, "%d and %d times", len(less), len(again))
	verify.That(t, less[0] >= time.Second && less[0] <= time.Second+shareWindow, "it has less than half of its share after %v, not 1 s", less[0])
	verify.That(t, again[0] >= 2*time.Second && again[0] <= 2*time.Second+shareWindow, "it has its share again after %v, not 2 s", again[0])
}

func TestNamesOfPlaysAreUnique(t *testing.T) {
	t.Parallel()
	names := make(map[string]bool)
	for _, p := range plays(1, scenario.Short) {
		verify.That(t, !names[p.name], "%s comes twice", p.name)
		names[p.name] = true
	}
}

// A proxy that does not start has an outcome with the reason, and nothing else.
func TestAProxyThatDoesNotStart(t *testing.T) {
	t.Parallel()
	b := &bench{programs: newPrograms(t.TempDir()), progress: io.Discard}
	b.programs.found["broken="] = program{command: func(settings) []string { return []string{"false"} }}
	p := plays(1, scenario.Short)[0]
	outcomes := verify.Result(b.runGroup(t.Context(), p, []proxy{{name: "broken", program: "broken"}})).Must(t)
	verify.That(t, len(outcomes) == 1 && outcomes[0].Requests == 0 && strings.Contains(outcomes[0].Error, "exit status 1"), "outcomes %v", outcomes)
}
