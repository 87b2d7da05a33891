package balancer

import (
	"testing"
	"time"

	"sluice/test/verify"
)

// A peer that is sound but for its beginning has from half to twice what is due to it in
// every five seconds after the first ten.
func TestAColdStartIsForgotten(t *testing.T) {
	t.Parallel()
	const window, patience, seeds = 5 * time.Second, 10 * time.Second, 10
	last := func(n int, service time.Duration, f func(*server)) []server {
		return fleet(n, server{service: service}, f)
	}
	for _, c := range []struct {
		name    string
		rate    float64
		servers []server
	}{
		{"the first two answers of one of three take 300 ms", 30, last(3, 2*ms, func(s *server) { s.once, s.more = 300*ms, 1 })},
		{"one of three answers first after 250 ms", 30, last(3, 5*ms, func(s *server) { s.once = 250 * ms })},
		{"one of two answers first after 60 ms", 20, last(2, ms/2, func(s *server) { s.once = 60 * ms })},
		{"one of two answers first after 60 ms, more requests", 100, last(2, ms/2, func(s *server) { s.once = 60 * ms })},
		{"one of two answers first after 1 s", 30, last(2, 2*ms, func(s *server) { s.once = time.Second })},
		{"one joins two, and is cold for 300 ms", 30, last(3, 2*ms, func(s *server) { s.joins, s.cold = 15*time.Second, 300*ms })},
		{"one joins two, and is cold for 400 ms", 200, last(3, 2*ms, func(s *server) { s.joins, s.cold = 15*time.Second, 400*ms })},
		{"one of nine times the weight is cold for 80 ms", 100, last(2, 2*ms, func(s *server) { s.weight, s.cold = 9, 80*ms })},
		{"one of nine times the weight is cold for 400 ms", 100, last(2, 2*ms, func(s *server) { s.weight, s.cold = 9, 400*ms })},
		{"all are cold for 400 ms", 100, fleet(3, server{service: 2 * ms, cold: 400 * ms}, nil)},
	} {
		n := len(c.servers)
		begin := c.servers[n-1].joins + patience
		const windows = 6
		picks, weight := make([][windows]int, n), 0
		for seed := range uint64(seeds) {
			r := simulation{policy: PolicyEWMA, rate: c.rate, duration: begin + windows*window, servers: c.servers, seed: seed}.run()
			for i, times := range r.picks {
				for _, at := range times {
					if at >= begin {
						picks[i][min(int((at-begin)/window), windows-1)]++
					}
				}
			}
		}
		for _, s := range c.servers {
			weight += max(s.weight, 1)
		}
		for i, s := range c.servers {
			for w, got := range picks[i] {
				all := 0
				for j := range picks {
					all += picks[j][w]
				}
				due := float64(all) * float64(max(s.weight, 1)) / float64(weight)
				of := float64(got) / due
				verify.That(t, of >= .5 && of <= 2, "%s: from %v on, peer %d has %.2f of its share", c.name, patience+time.Duration(w)*window, i, of)
			}
		}
	}
}

// A first answer is no sample, nor is an answer to a request that was sent before it: they may
// have waited for the same. A failure is one at once.
func TestAFirstAnswerIsNoSample(t *testing.T) {
	for _, c := range []struct {
		class OutcomeClass
		want  time.Duration
	}{{OutcomeOK, 0}, {OutcomeSuperseded, 0}, {OutcomeServerError, time.Second}, {OutcomeReset, time.Second}} {
		p := Peer{pool: new(Pool)}
		p.measure(Outcome{Class: c.class, Latency: 300 * ms}, begin)
		verify.Equal(t, p.Latency(), c.want, "%v: latency after the first outcome", c.class)
		p.measure(Outcome{Class: OutcomeOK, Latency: 301 * ms}, begin+int64(200*ms))
		if c.want == 0 {
			verify.Equal(t, p.Latency(), 0, "%v: latency after an answer to an earlier request", c.class)
			p.measure(Outcome{Class: OutcomeOK, Latency: 2 * ms}, begin+int64(600*ms))
			verify.Equal(t, p.Latency(), 2*ms, "%v: latency after a later answer", c.class)
		}
	}
	p := Peer{pool: new(Pool)}
	p.measure(Outcome{Class: OutcomeOK, Latency: 20 * ms}, begin)
	for i := range 3 { // errors at once
		p.measure(Outcome{Class: OutcomeServerError, Latency: ms}, begin+int64(time.Second)*int64(i+1))
	}
	verify.Equal(t, p.Latency(), 0, "latency after quick errors of a peer with one answer")
}
