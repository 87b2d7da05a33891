package balancer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sluice/test/long"
	"sluice/test/verify"
)

// After one slow answer a peer gets its next request within seconds, and soon as many requests as
// the others.
func TestAPeerIsTriedAgainSoonAfterOneSlowAnswer(t *testing.T) {
	long.Sequential(t)
	t.Parallel()
	const (
		rest  = 30 * time.Second // time for the recovery
		after = 60 * time.Second // then requests are counted
	)
	for _, peers := range []int{2, 3, 10} {
		for _, rate := range []float64{1, 10, 100} {
			t.Run(fmt.Sprintf("%d peers, %v requests per s", peers, rate), func(t *testing.T) {
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
					// The rest is random: a peer like all others waits for its
					// turn.
					limit := 4*time.Second + turn
					verify.That(t, median <= limit, "an answer after %v: tried again after %v, want at most %v", slow, median, limit)
					limit = 4*time.Second + 8*turn
					verify.That(t, last <= limit, "an answer after %v: at worst tried again after %v, want at most %v", slow, last, limit)
					verify.That(t, share >= 0.75 && share <= 1.25, "an answer after %v: later it gets %.2f of its share", slow, share)
				}
			})
		}
	}
}
