package healthcheck

import (
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/panics"
	"sluice/test/verify"
)

func TestProbeForgetsARemovedPeer(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, probe *script) {
		f.Apply(instances(2))
		time.Sleep(time.Minute)
		f.Apply(instances(1))
		synctest.Wait()
		before := probe.of(1)
		time.Sleep(time.Minute)
		verify.Equal(t, probe.of(1), before, "checks before and after the peer left")
		verify.That(t, probe.forgotten[instance(1).HostPort()] != 0, "Forget was not called")
	})
}

// clinging is a script that panics when it should forget the first peer.
type clinging struct {
	*script
	once sync.Once
}

func (c *clinging) Forget(string) { c.once.Do(func() { panic("of a test") }) }

// After a panic of what follows the pool, it is followed again.
func TestPanicOfAChecker(t *testing.T) {
	panics.Fatal.Store(false)
	defer panics.Fatal.Store(true)
	defer panics.Observe(func(panics.Contained) {})()
	checkedAs(t, Options{}, func(a *Active, probe *script) { a.Probe = &clinging{script: probe} }, func(t *testing.T, f *fixture, probe *script) {
		f.Apply(instances(4))
		pass(time.Minute)
		f.Apply(instances(2))
		pass(time.Minute)
		before := probe.of(3)
		probe.set(instance(0), true)
		pass(time.Minute)
		verify.Equal(t, f.eligible(), 1, "peers are eligible, of which one fails its checks")
		verify.Equal(t, probe.of(3), before, "checks of a peer that has left")
	})
}

// The verdict on a peer that was removed during its check is dropped.
func TestAVerdictOnARemovedPeerIsDropped(t *testing.T) {
	slow := func(a *Active, probe *script) { a.UnhealthyThreshold, probe.takes = 1, 500*time.Millisecond }
	checkedAs(t, Options{}, slow, func(t *testing.T, f *fixture, probe *script) {
		probe.set(instance(0), true)
		f.Apply(instances(1))
		time.Sleep(100 * time.Millisecond) // the check is running
		f.Apply(nil)
		synctest.Wait()
		probe.set(instance(0), false)
		f.Apply(instances(1)) // the same instance, another peer
		pass(450 * time.Millisecond)
		verify.That(t, f.eligible() == 1, "reasons %q", f.peer(0).Reasons())
		verify.Equal(t, f.checker.Stats().ChecksFailed, 0, "failed checks")
		before := probe.of(0)
		time.Sleep(105 * time.Second)
		verify.That(t, probe.of(0)-before <= 11,
			"%d checks in 105 s: the peer that is gone is still checked", probe.of(0)-before)
	})
}

func TestAVerdictByOldSettingsIsDropped(t *testing.T) {
	probe := newScript()
	probe.takes = 500 * time.Millisecond
	s := activeSettings(probe)
	s.Active.UnhealthyThreshold = 1
	bubble(t, s, 0, func(t *testing.T, f *fixture) {
		probe.set(instance(0), true)
		f.Apply(instances(1))
		time.Sleep(100 * time.Millisecond) // the check is running
		other := newScript()
		s.Active.Probe = other
		f.reconfigure(s)
		pass(time.Second)
		verify.That(t, f.eligible() == 1 && other.of(0) != 0,
			"%d checks by the new settings, reasons %q", other.of(0), f.peer(0).Reasons())
	})
}

// A peer that returns while it drains has its previous state, and is checked again.
func TestAPeerThatReturnsIsCheckedAgain(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, probe *script) {
		f.Apply(instances(1))
		synctest.Wait()
		token, _ := f.pick(0)
		probe.set(instance(0), true)
		time.Sleep(20 * time.Second)
		f.Apply(nil)
		synctest.Wait()
		time.Sleep(time.Second)
		f.Apply(instances(1))
		verify.That(t, f.peer(0) == token.Peer && f.eligible() == 0, "the peer lost its state")
		probe.set(instance(0), false)
		pass(5 * time.Second)
		verify.That(t, f.eligible() == 1, "reasons %q", f.peer(0).Reasons())
		token.Done(balancer.Outcome{})
	})
}

func TestReconfigurationPreservesHealth(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, probe *script) {
		f.Apply(instances(3))
		synctest.Wait()
		probe.set(instance(0), true)
		time.Sleep(20 * time.Second)
		other := newScript()
		other.set(instance(0), true)
		s := activeSettings(other)
		s.Active.Interval = time.Second
		f.reconfigure(s)
		synctest.Wait()
		verify.That(t, f.eligible() == 2 && probe.closed && !other.closed, "%d eligible, want 2; closed: old %v, new %v", f.eligible(), probe.closed, other.closed)
		time.Sleep(10*time.Second + time.Millisecond)
		verify.That(t, other.of(1) >= 9,
			"%d checks in 10 s with the new interval of 1 s", other.of(1))
		before := maps.Clone(probe.checks)
		time.Sleep(time.Minute)
		verify.DeepEqual(t, probe.checks, before, "checks by the old probe")
		// Without checks no peer is unhealthy.
		f.reconfigure(Settings{})
		synctest.Wait()
		verify.That(t, f.eligible() == 3 && other.closed, "%d eligible without checks, want 3; closed: %v", f.eligible(), other.closed)
		// With checks again, no peer is unhealthy before they fail.
		third := newScript()
		third.set(instance(0), true)
		s = activeSettings(third)
		s.Active.MustPassFirst = true // for new peers
		f.reconfigure(s)
		synctest.Wait()
		verify.Equal(t, f.eligible(), 3, "eligible with checks again")
		pass(20 * time.Second)
		verify.Equal(t, f.eligible(), 2, "eligible after some checks")
	})
}

// A critical peer that nobody has checked gets no request because a reload lets checks decide,
// however busy the reload is.
func TestReloadThatOverridesTheRegistry(t *testing.T) {
	probe := newScript()
	bubble(t, Settings{}, 0, func(t *testing.T, f *fixture) {
		f.options.SlowStart = balancer.SlowStart{Window: time.Hour, Aggression: 1, MinWeight: 0.1}
		f.reconfigure(Settings{})
		f.Apply(instances(1))
		pass(2 * time.Hour)
		set := instances(3)
		set[2].Status, set[2].Weight = discovery.StatusCritical, 0
		f.Apply(set)
		f.options.SlowStart = balancer.SlowStart{}
		f.options.Notify = func(balancer.Event) { // peer 1 is warm: the pool has its next snapshot
			for range 10000 {
				runtime.Gosched()
			}
		}
		probe.set(instance(2), true)
		s := activeSettings(probe)
		s.Active.OverridesRegistry = true
		f.reconfigure(s)
		synctest.Wait()
		verify.Equal(t, f.eligible(), 2, "eligible after the reload")
		pass(s.Active.Interval)
		verify.Slices(t, f.peer(2).Reasons(), []string{"active: script: status 500"}, "reasons after two failed checks")
		probe.set(instance(2), false)
		pass(s.Active.Interval)
		verify.Equal(t, f.eligible(), 3, "eligible after a check has passed")
	})
}

// The same where checks ran before: one failed check of a peer for which UnhealthyThreshold is
// larger is no passed one.
func TestReloadThatLetsRunningChecksOverrideTheRegistry(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, probe *script) {
		critical := instances(1)
		critical[0].Status, critical[0].Weight = discovery.StatusCritical, 0
		f.Apply(critical)
		synctest.Wait()
		probe.set(instance(0), true)
		s := activeSettings(probe)
		s.Active.OverridesRegistry = true
		f.reconfigure(s)
		for range 40 {
			pass(s.Active.FailingInterval / 2)
			verify.Equal(t, f.eligible(), 0, "eligible, although no check has passed since the reload")
		}
		verify.Slices(t, f.peer(0).Reasons(), []string{"active: script: status 500"}, "reasons")
		probe.set(instance(0), false)
		pass(s.Active.Interval)
		verify.Equal(t, f.eligible(), 1, "eligible after a check has passed")
	})
}

// Many verdicts at once cause few snapshots.
func TestManyVerdictsAreAppliedTogether(t *testing.T) {
	const peers = 2000
	probe := newScript()
	s := activeSettings(probe)
	s.Active.UnhealthyThreshold = 1
	f := newFixture(t, s, Options{})
	defer f.close()
	set := instances(peers)
	for _, i := range set {
		probe.set(i, true)
	}
	f.Apply(set)
	deadline := time.Now().Add(30 * time.Second)
	for f.eligible() > 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	verify.Require(t, f.eligible() <= 0, "%d of %d peers are eligible", f.eligible(), peers)
	n := f.Snapshot().Generation
	verify.That(t, n <= peers/4, "%d snapshots for %d verdicts", n, peers)
}

func TestCloseEndsChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		probe.takes = time.Hour
		s := activeSettings(probe)
		s.Active.Timeout = time.Hour
		f := newFixture(t, s, Options{})
		f.Apply(instances(5))
		synctest.Wait()
		start := time.Now()
		f.monitor.Close()
		waited := time.Since(start)
		verify.That(t, waited == 0 && probe.running == 0, "Close returned after %v, with %d running checks", waited, probe.running)
		f.close()
		f.reconfigure(Settings{}) // after Close, without effect
		verify.Equal(t, strings.Join(f.events(), "; "), "", "events")
	})
}

// A peer that need not pass a check first any more is as any other one in use: one failed check
// does not take it out of use.
func TestReloadThatEndsTheWaitForFirstChecks(t *testing.T) {
	slow := func(a *Active, probe *script) { a.MustPassFirst, probe.takes = true, time.Hour }
	checkedAs(t, Options{}, slow, func(t *testing.T, f *fixture, _ *script) {
		f.Apply(instances(1))
		synctest.Wait() // the first check runs
		verify.Equal(t, f.eligible(), 0, "eligible before the first check")
		probe := newScript()
		probe.set(instance(0), true)
		s := activeSettings(probe)
		f.reconfigure(s)
		verify.Equal(t, f.eligible(), 1, "eligible after the reload")
		for failed := 0; failed < s.Active.UnhealthyThreshold-1; {
			pass(time.Millisecond)
			failed = probe.of(0)
		}
		verify.Equal(t, f.eligible(), 1, "eligible after two failed checks")
		pass(s.Active.Interval)
		verify.Equal(t, f.eligible(), 0, "eligible after more failed checks")
	})
}

func TestAfterFirstChecks(t *testing.T) {
	slow := func(a *Active, probe *script) { a.MustPassFirst, probe.takes = true, 100*time.Millisecond }
	checkedAs(t, Options{MaxChecks: 1}, slow, func(t *testing.T, f *fixture, probe *script) { // nine at a time
		probe.set(instance(1), true)
		f.Apply(instances(20))
		var called time.Duration
		eligible := 0
		start := time.Now()
		f.checker.AfterFirstChecks(func() { called, eligible = time.Since(start), f.eligible() })
		time.Sleep(50 * time.Millisecond)
		f.Apply(slices.Delete(instances(20), 19, 20)) // one leaves before its first check
		pass(time.Second)
		verify.That(t, called >= 200*time.Millisecond && called <= 300*time.Millisecond && eligible == 18, "called after %v with %d eligible, want 200ms, or 300ms if the one that left was checked, and 18", called, eligible)
	})
}

// A reload may change where peers are checked.
func TestAfterFirstChecksAtAnotherPort(t *testing.T) {
	slow := func(a *Active, probe *script) { a.MustPassFirst, probe.takes = true, 500*time.Millisecond }
	checkedAs(t, Options{}, slow, func(t *testing.T, f *fixture, probe *script) {
		f.Apply(instances(2))
		var called atomic.Bool
		f.checker.AfterFirstChecks(func() { called.Store(true) })
		synctest.Wait() // the first checks run
		s := activeSettings(probe)
		s.Active.MustPassFirst, s.Active.Port = true, 9000
		f.reconfigure(s)
		synctest.Wait()
		verify.That(t, !called.Load(), "called although no check has ended")
		pass(s.Active.Interval)
		verify.That(t, called.Load() && f.eligible() == 2, "called: %v, with %d eligible, want 2", called.Load(), f.eligible())
	})
}

// A peer may leave before the checker has seen it.
func TestAfterFirstChecksOfAPeerThatLeavesAtOnce(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, _ *script) {
		c := f.monitor.NewChecker()
		c.pool, c.active = f.Pool, &Active{Schedule: Schedule{MustPassFirst: true}}
		f.Apply(instances(1))
		called := false
		c.AfterFirstChecks(func() { called = true })
		f.Apply(nil)
		c.sync()
		c.apply()
		verify.That(t, called, "not called")
	})
}

func TestAfterFirstChecksThatNeedNotPass(t *testing.T) {
	checkedAs(t, Options{}, func(_ *Active, probe *script) { probe.takes = time.Hour }, func(t *testing.T, f *fixture, _ *script) {
		f.Apply(instances(5))
		called := false
		f.checker.AfterFirstChecks(func() { called = true })
		verify.That(t, called, "not called at once")
	})
}

func TestStopEndsTheWaitForFirstChecks(t *testing.T) {
	for name, end := range map[string]func(*fixture){
		"stop":        func(f *fixture) { f.checker.Stop() },
		"reconfigure": func(f *fixture) { f.reconfigure(Settings{}) },
		"no peers":    func(f *fixture) { f.Apply(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			slow := func(a *Active, probe *script) { a.Timeout, a.MustPassFirst, probe.takes = time.Hour, true, time.Second }
			checkedAs(t, Options{MaxChecks: 1}, slow, func(t *testing.T, f *fixture, _ *script) {
				f.Apply(instances(5))
				called := false
				f.checker.AfterFirstChecks(func() { called = true })
				synctest.Wait()
				verify.That(t, !called, "called at once")
				end(f)
				synctest.Wait()
				verify.That(t, called, "not called")
			})
		})
	}
}
