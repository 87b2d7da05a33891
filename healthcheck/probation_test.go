package healthcheck

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/test/verify"
)

// lost returns instances on probation.
func lost(n int) []discovery.Instance {
	set := instances(n)
	for i := range set {
		set[i].Probation = time.Now()
	}
	return set
}

// awaitCheck waits for the next check of peer n.
func (f *fixture) awaitCheck(probe *script, n int) {
	for before := probe.of(n); probe.of(n) == before; {
		pass(100 * time.Millisecond)
	}
}

func TestOneFailedCheckEndsProbation(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, probe *script) {
		f.Apply(instances(2))
		time.Sleep(30 * time.Second)
		f.Apply(lost(2))
		synctest.Wait()
		verify.Require(t, f.eligible() == 2, "%d eligible that have passed their checks, want 2", f.eligible())
		probe.set(instance(0), true)
		f.awaitCheck(probe, 0)
		verify.That(t, f.eligible() == 1 && !f.peer(0).Used(), "%d eligible after one failure, want 1", f.eligible())
		probe.set(instance(0), false)
		pass(2 * time.Second)
		verify.Equal(t, f.eligible(), 1, "eligible after two passes")
	})
}

func TestAFailureFromBeforeCountsOnProbation(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, probe *script) {
		f.Apply(instances(1))
		time.Sleep(30 * time.Second)
		probe.set(instance(0), true)
		f.awaitCheck(probe, 0)
		verify.Require(t, f.eligible() == 1, "one failure makes a registered peer unhealthy")
		f.Apply(lost(1))
		synctest.Wait()
		verify.Equal(t, f.eligible(), 0, "the peer is used, although its latest check failed")
		reasons := f.peer(0).Reasons()
		verify.That(t, reasons[1] == "active: script: status 500", "reasons %q", reasons)
	})
}

// max_ejected and the protection of the last peer do not apply on probation.
func TestPeersOnProbationAreEjectedWithoutALimit(t *testing.T) {
	passive := Passive{
		ConsecutiveFailures: 2, Ejection: time.Second, MaxEjection: time.Second, MaxEjected: .5,
		Interval: time.Second,
	}
	bubble(t, Settings{Passive: passive}, 2, func(t *testing.T, f *fixture) {
		f.Apply(lost(2))
		synctest.Wait()
		for n := range 2 {
			f.fail(n, 2, reset)
			synctest.Wait()
			time.Sleep(fullFor + time.Millisecond)
		}
		verify.Equal(t, f.eligible(), 0, "eligible")
		pass(time.Minute)
		verify.Equal(t, f.eligible(), 0, "eligible when their ejection is over")
	})
}

// What keeps other peers from being ejected, as too many are, does not keep a peer on probation in
// use.
func TestOneOnProbationIsEjectedWhileThereIsNoRoom(t *testing.T) {
	bubble(t, passiveSettings(), 0, func(t *testing.T, f *fixture) {
		set := instances(4)
		set[3].Probation = time.Now()
		f.Apply(set)
		synctest.Wait()
		for n := range 4 {
			f.fail(n, 5, reset) // at one moment: the third one finds no room
		}
		verify.That(t, f.checker.Stats().Refused > 0 && f.peer(2).State() == balancer.StateUp, "there was room: %+v", f.checker.Stats())
		verify.That(t, f.peer(3).Has(balancer.ReasonRegistry), "the peer on probation is used: %q", f.peer(3).Reasons())
	})
}
