package balancer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sluice/test/long"
	"sluice/test/verify"
)

// forEachLoad runs f for services with few and many peers, with low and high load.
func forEachLoad(t *testing.T, f func(t *testing.T, peers int, rate float64)) {
	for _, peers := range []int{2, 3, 10} {
		for _, rate := range []float64{1, 10, 100} {
			t.Run(fmt.Sprintf("%d peers, %v requests per s", peers, rate), func(t *testing.T) { f(t, peers, rate) })
		}
	}
}

// After one slow answer a peer gets its next request within seconds, and soon as many requests as
// the others.
func TestAPeerIsTriedAgainSoonAfterOneSlowAnswer(t *testing.T) {
	long.Sequential(t)
	t.Parallel()
	const (
		rest  = 30 * time.Second // time for the recovery
		after = 60 * time.Second // then requests are counted
	)
	forEachLoad(t, func(t *testing.T, peers int, rate float64) {
		seeds := min(20, 400/int(rate))                                     // few for many requests
		turn := time.Duration(float64(peers) / rate * float64(time.Second)) // between two requests of a peer
		for _, slow := range []time.Duration{100 * ms, 2 * time.Second, 30 * time.Second} {
			var waits []time.Duration
			count := 0
			for seed := range uint64(seeds) {
				r := simulation{
					policy: PolicyEWMA, rate: rate, seed: seed, warmUp: 20 * time.Second,
					duration: 20*time.Second + 10*turn + slow + rest + after,
					servers:  fleet(peers, server{service: 5 * ms}, func(s *server) { s.once = slow }),
				}.run()
				next := time.Duration(1 << 62)
				for _, at := range r.picks[peers-1] {
					if at <= r.answered {
						continue
					}
					next = min(next, at)
					if since := at - r.answered; since > rest && since <= rest+after {
						count++
					}
				}
				waits = append(waits, next-r.answered)
			}
			slices.Sort(waits)
			median, last := waits[seeds/2], waits[seeds-1]
			share := float64(count) / float64(seeds) / after.Seconds() / rate * float64(peers)
			t.Logf("an answer after %v: tried again after %v, at most %v; later it has %.2f of what is due", slow, median.Round(ms), last.Round(ms), share)
			// The rest is random: a peer like all others waits for its turn.
			limit := 4*time.Second + turn
			verify.That(t, median <= limit, "an answer after %v: tried again after %v, want at most %v", slow, median, limit)
			limit = 4*time.Second + 8*turn
			verify.That(t, last <= limit, "an answer after %v: at worst tried again after %v, want at most %v", slow, last, limit)
			verify.That(t, share >= 0.75 && share <= 1.25, "an answer after %v: later it gets %.2f of its share", slow, share)
		}
	})
}

// A peer that stays slow gets few requests, although it is tried again.
func TestASlowPeerGetsFewRequests(t *testing.T) {
	long.Sequential(t)
	t.Parallel()
	seeds := long.Count(t, 4, 10)
	forEachLoad(t, func(t *testing.T, peers int, rate float64) {
		slow, all := 0, 0
		for seed := range uint64(seeds) {
			r := simulation{
				policy: PolicyEWMA, rate: rate, seed: seed, warmUp: 30 * time.Second, duration: 5 * time.Minute,
				servers: fleet(peers, server{service: 5 * ms}, func(s *server) { s.service = time.Second }),
			}.run()
			for _, n := range r.perServer {
				all += n
			}
			slow += r.perServer[peers-1]
		}
		share := float64(slow) / float64(all)
		perMinute := float64(slow) / float64(seeds) / 4.5
		t.Logf("%.2f %% of the requests, %.1f a minute", share*100, perMinute)
		verify.That(t, perMinute <= 8 && share <= 0.5/float64(peers), "the slow one gets %.2f %% of the requests, %.1f a minute", share*100, perMinute)
	})
}
