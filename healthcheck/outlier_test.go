package healthcheck

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/test/verify"
)

// load sends requests to peers 0 to 4, of which the last one is worse, and returns the ejected
// peers.
func (f *fixture) load(peers, requests int, outcome func(peer, request int) balancer.Outcome) []int {
	f.t.Helper()
	for r := range requests {
		for n := range peers {
			f.request(n, outcome(n, r))
		}
	}
	pass(10 * time.Second)
	var ejected []int
	for n := range peers {
		if f.peer(n).State() == balancer.StateEjected {
			ejected = append(ejected, n)
		}
	}
	return ejected
}

func TestSuccessRateEjects(t *testing.T) {
	s := passiveSettings()
	s.Passive.ConsecutiveFailures = 0
	s.Passive.SuccessRate = &SuccessRate{StdevFactor: 1.9, Below: 0.95, MinRequests: 50, MinPeers: 5}
	bubble(t, s, func(t *testing.T, f *fixture) {
		f.Apply(instances(6))
		synctest.Wait()
		ejected := f.load(6, 100, func(peer, request int) balancer.Outcome {
			if peer == 2 && request%4 == 0 {
				return internal
			}
			return fine
		})
		verify.Require(t, slices.Equal(ejected, []int{2}), "ejected %v, want peer 2", ejected)
		why := f.peer(2).Reasons()[0]
		want := "ejected: success rate 75.0 % of 100 requests, mean of all peers 95.8 %; for 10s until "
		verify.That(t, strings.HasPrefix(why, want), "reason %q, want %q…", why, want)
		verify.Equal(t, f.checker.Stats().Ejections[CauseSuccessRate], 1, "ejections by success rate")
		// The previous interval does not count again.
		time.Sleep(10 * time.Second)
		ejected = f.load(6, 100, func(int, int) balancer.Outcome { return fine })
		verify.That(t, ejected == nil, "ejected %v in a good interval", ejected)
	})
}

func TestLatencyEjects(t *testing.T) {
	s := passiveSettings()
	s.Passive.Latency = &Latency{Factor: 3, Above: 50 * time.Millisecond, MinRequests: 20, MinPeers: 3}
	bubble(t, s, func(t *testing.T, f *fixture) {
		f.Apply(instances(4))
		synctest.Wait()
		ejected := f.load(4, 50, func(peer, request int) balancer.Outcome {
			latency := 20 * time.Millisecond
			switch {
			case peer == 3:
				latency = 200 * time.Millisecond
			case request%10 == 0: // a few slow answers do not count
				latency = 5 * time.Second
			}
			return balancer.Outcome{Class: balancer.OutcomeOK, Latency: latency}
		})
		verify.Require(t, slices.Equal(ejected, []int{3}), "ejected %v, want peer 3", ejected)
		why := f.peer(3).Reasons()[0]
		verify.That(t, strings.HasPrefix(why, "ejected: median latency ") && strings.Contains(why, " of 50 answers, median of all peers "), "reason %q", why)
	})
}

func TestSuccessRateOutliers(t *testing.T) {
	s := &SuccessRate{StdevFactor: 1.9, Below: 0.95, MinRequests: 100, MinPeers: 5}
	f := func(name string, rates []int, want ...int) {
		t.Helper()
		var peers []attempts
		for _, r := range rates {
			if r < 0 { // too few requests
				peers = append(peers, attempts{0, 99})
				continue
			}
			peers = append(peers, attempts{uint64(r), uint64(1000 - r)})
		}
		var got []int
		for _, o := range s.outliers(peers) {
			got = append(got, o.index)
		}
		verify.Slices(t, got, want, "%s: outliers", name)
	}
	f("all alike", []int{1000, 1000, 1000, 1000, 1000})
	f("all bad", []int{500, 500, 500, 500, 500})
	f("one bad", []int{1000, 900, 1000, 1000, 1000}, 1)
	f("good enough", []int{1000, 951, 1000, 1000, 1000})
	f("too few peers", []int{1000, 0, 1000, 1000})
	f("too few requests", []int{1000, -1, 1000, 1000, 1000, 1000})
	f("too few peers with requests", []int{1000, 0, 1000, 1000, -1})
	f("the worst first", []int{1000, 600, 1000, 500, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000}, 3, 1)
	f("no outlier", nil)
	s.MinRequests, s.MinPeers = 0, 0
	got := s.outliers([]attempts{{}, {}})
	verify.That(t, got == nil, "outliers %v among peers without requests", got)
}

func TestLatencyOutliers(t *testing.T) {
	l := &Latency{Factor: 3, Above: 10 * time.Millisecond, MinRequests: 10, MinPeers: 3}
	f := func(name string, medians []int, want ...int) {
		t.Helper()
		var peers []answers
		for _, ms := range medians {
			if ms < 0 { // too few answers
				peers = append(peers, answers{9, time.Second})
				continue
			}
			peers = append(peers, answers{10, time.Duration(ms) * time.Millisecond})
		}
		var got []int
		for _, o := range l.outliers(peers) {
			got = append(got, o.index)
		}
		verify.Slices(t, got, want, "%s: outliers", name)
	}
	f("all alike", []int{20, 20, 20})
	f("one slow", []int{20, 61, 20}, 1)
	f("not slow enough", []int{20, 60, 20})
	f("quick all the same", []int{1, 10, 1})
	f("the worst first", []int{20, 100, 20, 20, 200, 20}, 4, 1)
	f("half of them", []int{20, 100, 20, 100}, 1, 3)
	f("too few peers", []int{20, 100})
	f("too few answers", []int{20, -1, 20, 20})
	f("no outlier", nil)
	l.MinRequests, l.MinPeers = 0, 0
	got := l.outliers([]answers{{}, {}})
	verify.That(t, got == nil, "outliers %v among peers without answers", got)
}
