package healthcheck

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/test/verify"
)

// activeSettings are an interval of 10 s, 1 s after a failed check, without jitter.
func activeSettings(p Probe) Settings {
	return Settings{Active: &Active{
		Probe:    p,
		Schedule: Schedule{Interval: 10 * time.Second, FailingInterval: time.Second, Timeout: time.Second, UnhealthyThreshold: 3, HealthyThreshold: 2},
	}}
}

func TestIntervals(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, probe *script) {
		f.Apply(instances(1))
		pass(100*time.Second - time.Millisecond)
		n := probe.of(0)
		verify.That(t, n >= 10 && n <= 11, "%d checks in 100 s, want 10 or 11", n) // the second check is early
		probe.set(instance(0), true)
		pass(20 * time.Second)
		n = probe.of(0) - n
		verify.That(t, n >= 11 && n <= 21,
			"%d checks in 20 s in which they fail, want one a second after the first", n)
		probe.set(instance(0), false)
		pass(3 * time.Second)
		verify.Equal(t, f.eligible(), 1, "the peer is unhealthy 3 s after its recovery")
	})
}

func TestUnhealthyAndBack(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, probe *script) {
		f.Apply(instances(2))
		time.Sleep(30 * time.Second)
		probe.set(instance(0), true)
		pass(13 * time.Second)
		verify.Equal(t, f.eligible(), 1, "eligible")
		verify.Slices(t, f.peer(0).Reasons(), []string{"active: script: status 500"}, "reasons")
		probe.set(instance(0), false)
		pass(2 * time.Second)
		verify.Equal(t, f.eligible(), 2, "eligible after two passes")
		want := []string{"star-00000: up → unhealthy: active: script: status 500", "star-00000: unhealthy → up"}
		verify.Slices(t, f.events(), want, "events")
		s := f.checker.Stats()
		verify.That(t, s.ChecksFailed >= 3 && s.ChecksPassed >= 6, "stats %+v", s)
	})
}

// The reason has the current cause, without an event for each change.
func TestReasonHasTheCurrentCause(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, probe *script) {
		probe.set(instance(0), true)
		f.Apply(instances(1))
		time.Sleep(5 * time.Second)
		probe.mu.Lock()
		probe.takes = time.Minute
		probe.mu.Unlock()
		pass(5 * time.Second)
		verify.Slices(t, f.peer(0).Reasons(), []string{"active: script: timed out"}, "reasons")
		verify.Equal(t, len(f.events()), 1, "events")
	})
}

// A peer chooses texts that are in the error of a check, such as the names in its certificate.
func TestReasonIsShort(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, probe *script) {
		probe.fault = "certificate is valid for " + strings.Repeat("é.test, ", 20_000)
		f.Apply(instances(1))
		probe.set(instance(0), true)
		pass(15 * time.Second)
		got := strings.Join(f.peer(0).Reasons(), "; ")
		verify.That(t, strings.Contains(got, "script: certificate is valid for é.test, "), "reasons %.200q, want the beginning of the fault", got)
		verify.That(t, strings.HasSuffix(got, "…") && len(got) < 500, "the reasons have %d bytes and end with %q, want 500 with …", len(got), got[max(0, len(got)-10):])
	})
}

func TestMustPassFirst(t *testing.T) {
	const takes = time.Millisecond
	checkedAs(t, Options{}, func(a *Active, p *script) { a.MustPassFirst, p.takes = true, takes }, func(t *testing.T, f *fixture, probe *script) {
		probe.set(instance(1), true)
		f.Apply(instances(2))
		verify.Equal(t, f.eligible(), 0, "a peer gets requests before its first check")
		pass(takes)
		verify.That(t, f.eligible() == 1, "%d eligible after the first check, want the one that passed", f.eligible())
		verify.Slices(t, f.peer(1).Reasons(), []string{"active: script: status 500"}, "reasons")
		probe.set(instance(1), false)
		pass(2*(time.Second+takes) - time.Millisecond)
		verify.Equal(t, f.eligible(), 1, "one pass after a failure makes a peer healthy")
		pass(time.Millisecond)
		verify.Equal(t, f.eligible(), 2, "two passes do not make a peer healthy")
	})
}

// Drained peers and those in maintenance are also checked, so their health is known when they
// return.
func TestPeersWithoutRequestsAreChecked(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, probe *script) {
		i := instance(0)
		i.Status, i.Weight = discovery.StatusMaintenance, 0
		f.Apply([]discovery.Instance{i})
		probe.set(i, true)
		time.Sleep(time.Minute)
		f.Apply(instances(1))
		verify.Equal(t, f.eligible(), 0, "the peer gets requests, although its checks fail")
	})
}

func TestConcurrencyIsBounded(t *testing.T) {
	slow := func(_ *Active, probe *script) { probe.takes = 500 * time.Millisecond }
	checkedAs(t, Options{MaxChecks: 10}, slow, func(t *testing.T, f *fixture, probe *script) {
		const most = 10 + 10*awaitPerWorker
		f.Apply(instances(900))
		pass(time.Second)
		running, overdue := f.monitor.Load()
		verify.That(t, running == most && overdue != 0, "%d running, %d overdue; want %d and the rest", running, overdue, most)
		pass(4 * time.Second)
		for n := range 900 {
			verify.That(t, probe.of(n) != 0, "peer %d was not checked", n)
		}
		verify.Equal(t, probe.most, most, "checks at a time")
	})
}

// The checks of peers that are added together are spread over the interval.
func TestChecksSpread(t *testing.T) {
	checkedAs(t, Options{}, func(a *Active, _ *script) { a.Jitter = 0.1 }, func(t *testing.T, f *fixture, probe *script) {
		f.Apply(instances(1000))
		pass(60 * time.Second)
		begin := time.Now().Add(-10 * time.Second)
		var perSecond [10]int
		for _, times := range probe.times {
			for _, at := range times {
				if since := at.Sub(begin); since >= 0 && since < 10*time.Second {
					perSecond[since/time.Second]++
				}
			}
		}
		lowest, highest := slices.Min(perSecond[:]), slices.Max(perSecond[:])
		verify.That(t, lowest >= 50 && highest <= 150, "checks by second %v, want about 100 in each", perSecond)
	})
}

func TestAnotherPort(t *testing.T) {
	probe := newScript()
	s := activeSettings(probe)
	s.Active.Port = 9999
	bubble(t, s, 0, func(t *testing.T, f *fixture) {
		six := instance(0)
		six.Address = "::1"
		f.Apply([]discovery.Instance{six, instance(1)})
		synctest.Wait()
		verify.That(t, probe.checks["[::1]:9999"] == 1 && probe.checks["127.0.0.1:9999"] == 1, "checks of %v", probe.checks)
		s.Active.Port = 0
		f.reconfigure(s)
		synctest.Wait()
		verify.Equal(t, probe.checks["[::1]:10000"], 1, "checks of %v", probe.checks)
	})
}
