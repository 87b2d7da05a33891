package release

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/test/verify"
)

// An outage that hits canary and baseline alike, while the share changes, is not the canary's: a
// failure counts only by the share with which its client was assigned. Under a smaller one, half of
// the failures on the canary would be much evidence.
func TestAttemptsOfAFormerShareProveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSplit(t, "act: rollback", Options{})
		s.look(0)
		s.attempts(1000, "rest", 200, 0) // of the time before: it fails less often per request
		var waiting []balancer.Token
		for range 20 {
			waiting = append(waiting, s.pick("canary"), s.pick("rest"))
		}
		fail := func(tokens []balancer.Token) {
			for _, token := range tokens {
				token.Done(balancer.Outcome{Class: balancer.OutcomeTimeout, Latency: time.Second})
			}
		}
		s.configure("5%", "act: rollback")
		fail(waiting[:20]) // before the next look
		s.look(time.Second)
		fail(waiting[20:])
		state := s.look(2 * time.Second)
		verify.That(t, state.Judge != nil && state.Judge.Evidence < 10, "evidence %+v of failures under the former share", state.Judge)
		s.attempts(20, "canary", 500, 0)
		state = s.look(3 * time.Second)
		verify.That(t, state.Override != nil && state.Override.Share == 0, "no rollback by failures under the present share: %+v", state.Judge)
	})
}
