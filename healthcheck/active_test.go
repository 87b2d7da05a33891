package healthcheck

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/discovery"
)

// activeSettings are 10 s between checks, 1 s while failing, without jitter.
func activeSettings(p Probe) Settings {
	return Settings{Active: &Active{
		Probe: p, Interval: 10 * time.Second, FailingInterval: time.Second, Timeout: time.Second,
		UnhealthyThreshold: 3, HealthyThreshold: 2,
	}}
}

func TestThresholds(t *testing.T) {
	a := &Active{UnhealthyThreshold: 3, HealthyThreshold: 2}
	f := func(down bool, results, want string) {
		t.Helper()
		j := judgement{down: down}
		got := ""
		for _, r := range results {
			j.take(r == '+', false, a)
			if j.down {
				got += "d"
			} else {
				got += "u"
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", results, got, want)
		}
	}
	f(false, "+++", "uuu")
	f(false, "---+-+++", "uudddduu")
	f(false, "--+--+---", "uuuuuuuud")
	f(false, "---+--++", "uudddddu")
	// A peer that waits for its first check needs one pass, and no other peer.
	f(true, "+-", "uu")
	f(true, "-+-++", "ddddu")
}

func TestANewPeerIsCheckedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		f := judged(t, activeSettings(probe), Options{})
		defer f.close()
		f.Apply(instances(1))
		synctest.Wait()
		if n, _ := probe.count(instance(0)); n != 1 {
			t.Errorf("%d checks at once, want 1", n)
		}
		if f.eligible() != 1 {
			t.Error("a peer that need not pass first is not eligible")
		}
		time.Sleep(5 * time.Second)
		f.Apply(instances(2))
		synctest.Wait()
		if n, _ := probe.count(instance(1)); n != 1 {
			t.Errorf("%d checks of the second peer, want 1", n)
		}
	})
}

func TestIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		f := judged(t, activeSettings(probe), Options{})
		defer f.close()
		f.Apply(instances(1))
		time.Sleep(100*time.Second - time.Millisecond)
		synctest.Wait()
		n, _ := probe.count(instance(0))
		if n < 10 || n > 11 { // the second check comes early
			t.Errorf("%d checks in 100 s, want 10 or 11", n)
		}
		probe.set(instance(0), true)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		m, _ := probe.count(instance(0))
		if m -= n; m < 11 || m > 21 {
			t.Errorf("%d checks in 20 s in which they fail, want one a second after the first", m)
		}
		probe.set(instance(0), false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if f.eligible() != 1 {
			t.Error("the peer is down 3 s after it works again")
		}
	})
}

func TestUnhealthyAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		f := judged(t, activeSettings(probe), Options{})
		defer f.close()
		f.Apply(instances(2))
		time.Sleep(30 * time.Second)
		probe.set(instance(0), true)
		time.Sleep(13 * time.Second)
		synctest.Wait()
		if got := f.peer(0).Reasons(); f.eligible() != 1 || !slices.Equal(got, []string{"active: script: status 500"}) {
			t.Errorf("%d eligible, reasons %q", f.eligible(), got)
		}
		probe.set(instance(0), false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if f.eligible() != 2 {
			t.Errorf("%d eligible after two passes, want 2", f.eligible())
		}
		want := []string{
			"star-00000: up → unhealthy: active: script: status 500",
			"star-00000: unhealthy → up",
		}
		if got := f.events(); !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
		if s := f.checker.Stats(); s.ChecksFailed < 3 || s.ChecksPassed < 6 {
			t.Errorf("stats %+v", s)
		}
	})
}

// The reason says what is wrong now, without an event for each new cause.
func TestTheReasonKeepsUpWithTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		f := judged(t, activeSettings(probe), Options{})
		defer f.close()
		probe.set(instance(0), true)
		f.Apply(instances(1))
		time.Sleep(5 * time.Second)
		probe.mu.Lock()
		probe.takes = time.Minute
		probe.mu.Unlock()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := f.peer(0).Reasons(); !slices.Equal(got, []string{"active: script: timed out"}) {
			t.Errorf("reasons %q", got)
		}
		if got := f.events(); len(got) != 1 {
			t.Errorf("events %q, want one", got)
		}
	})
}

func TestMustPassFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		s := activeSettings(probe)
		s.Active.MustPassFirst = true
		f := judged(t, s, Options{})
		defer f.close()
		probe.set(instance(1), true)
		f.Apply(instances(2))
		if f.eligible() != 0 {
			t.Error("a peer gets requests before it was checked")
		}
		synctest.Wait()
		if f.eligible() != 1 {
			t.Errorf("%d eligible after the first check, want the one that passed", f.eligible())
		}
		if got := f.peer(1).Reasons(); !slices.Equal(got, []string{"active: script: status 500"}) {
			t.Errorf("reasons %q", got)
		}
		probe.set(instance(1), false)
		time.Sleep(2*time.Second - time.Millisecond)
		synctest.Wait()
		if f.eligible() != 1 {
			t.Error("one pass after a failure is enough, want two")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if f.eligible() != 2 {
			t.Error("two passes are not enough")
		}
	})
}

func TestOverridesConsul(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		s := activeSettings(probe)
		s.Active.OverridesConsul = true
		f := judged(t, s, Options{})
		defer f.close()
		critical := instance(0)
		critical.Status, critical.Weight, critical.Detail = discovery.StatusCritical, 0, "agent lost"
		f.Apply([]discovery.Instance{critical})
		synctest.Wait()
		if f.eligible() != 1 {
			t.Errorf("a critical peer that passes: %q", f.peer(0).Reasons())
		}
		probe.set(instance(0), true)
		time.Sleep(13 * time.Second)
		synctest.Wait()
		if f.eligible() != 0 {
			t.Error("a peer that fails its checks gets requests")
		}
		// From now on both must be good.
		probe.set(instance(0), false)
		s.Active.OverridesConsul = false
		f.reconfigure(s)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := f.peer(0).Reasons(); !slices.Equal(got, []string{"consul: critical: agent lost"}) {
			t.Errorf("reasons %q", got)
		}
	})
}

// Peers in maintenance or drained are checked too, so that what is known of
// them is right when they return.
func TestPeersWithoutRequestsAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		f := judged(t, activeSettings(probe), Options{})
		defer f.close()
		i := instance(0)
		i.Status, i.Weight = discovery.StatusMaintenance, 0
		f.Apply([]discovery.Instance{i})
		probe.set(i, true)
		time.Sleep(time.Minute)
		f.Apply(instances(1))
		if f.eligible() != 0 {
			t.Error("the peer gets requests, though it fails its checks")
		}
	})
}

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		probe.takes = 500 * time.Millisecond
		f := judged(t, activeSettings(probe), Options{MaxChecks: 10})
		defer f.close()
		f.Apply(instances(100))
		time.Sleep(time.Second)
		synctest.Wait()
		running, overdue := f.monitor.Load()
		if running != 10 || overdue == 0 {
			t.Errorf("%d running, %d overdue; want 10 and the rest", running, overdue)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		for n := range 100 { // nobody is left behind
			if checks, _ := probe.count(instance(n)); checks == 0 {
				t.Errorf("peer %d was not checked", n)
			}
		}
		if probe.most != 10 {
			t.Errorf("%d checks at a time, want 10", probe.most)
		}
	})
}

// Peers that come together are checked spread over the interval.
func TestChecksSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		s := activeSettings(probe)
		s.Active.Jitter = 0.1
		f := judged(t, s, Options{})
		defer f.close()
		f.Apply(instances(1000))
		time.Sleep(60 * time.Second)
		synctest.Wait()
		begin := time.Now().Add(-10 * time.Second)
		var perSecond [10]int
		for _, times := range probe.times {
			for _, at := range times {
				if since := at.Sub(begin); since >= 0 && since < 10*time.Second {
					perSecond[since/time.Second]++
				}
			}
		}
		if lowest, highest := slices.Min(perSecond[:]), slices.Max(perSecond[:]); lowest < 50 || highest > 150 {
			t.Errorf("checks by second %v, want about 100 in each", perSecond)
		}
	})
}

func TestARemovedPeerIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		f := judged(t, activeSettings(probe), Options{})
		defer f.close()
		f.Apply(instances(2))
		time.Sleep(time.Minute)
		f.Apply(instances(1))
		synctest.Wait()
		before, _ := probe.count(instance(1))
		time.Sleep(time.Minute)
		if after, _ := probe.count(instance(1)); after != before {
			t.Errorf("%d checks after the peer left", after-before)
		}
		if probe.forgotten[instance(1).HostPort()] == 0 {
			t.Error("the probe was not told")
		}
	})
}

// A verdict on a peer that left while it was checked is dropped.
func TestAVerdictOnAPeerThatIsGoneIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		probe.takes = 500 * time.Millisecond
		s := activeSettings(probe)
		s.Active.UnhealthyThreshold = 1
		f := judged(t, s, Options{})
		defer f.close()
		probe.set(instance(0), true)
		f.Apply(instances(1))
		time.Sleep(100 * time.Millisecond) // the check is under way
		f.Apply(nil)
		synctest.Wait()
		probe.set(instance(0), false)
		f.Apply(instances(1)) // the same instance, another peer
		time.Sleep(450 * time.Millisecond)
		synctest.Wait()
		if f.eligible() != 1 {
			t.Errorf("reasons %q", f.peer(0).Reasons())
		}
		if s := f.checker.Stats(); s.ChecksFailed != 0 {
			t.Errorf("stats %+v, want no failed check", s)
		}
		before, _ := probe.count(instance(0))
		time.Sleep(105 * time.Second)
		if after, _ := probe.count(instance(0)); after-before > 11 {
			t.Errorf("%d checks in 105 s: the peer that is gone is still checked", after-before)
		}
	})
}

// So is one that was come to in a way that does not count any more.
func TestAVerdictByOldSettingsIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		probe.takes = 500 * time.Millisecond
		s := activeSettings(probe)
		s.Active.UnhealthyThreshold = 1
		f := judged(t, s, Options{})
		defer f.close()
		probe.set(instance(0), true)
		f.Apply(instances(1))
		time.Sleep(100 * time.Millisecond) // the check is under way
		other := newScript()
		s.Active.Probe = other
		f.reconfigure(s)
		time.Sleep(time.Second)
		synctest.Wait()
		if n, _ := other.count(instance(0)); f.eligible() != 1 || n == 0 {
			t.Errorf("%d checks by the new settings, reasons %q", n, f.peer(0).Reasons())
		}
	})
}

// A peer that returns while it drains has what it had, and is checked again.
func TestAPeerThatReturnsIsCheckedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		f := judged(t, activeSettings(probe), Options{})
		defer f.close()
		f.Apply(instances(1))
		synctest.Wait()
		token, _ := f.pick(0)
		probe.set(instance(0), true)
		time.Sleep(20 * time.Second)
		f.Apply(nil)
		synctest.Wait()
		time.Sleep(time.Second)
		f.Apply(instances(1))
		if f.peer(0) != token.Peer || f.eligible() != 0 {
			t.Error("the peer lost its state")
		}
		probe.set(instance(0), false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if f.eligible() != 1 {
			t.Errorf("reasons %q", f.peer(0).Reasons())
		}
		token.Done(balancer.Outcome{})
	})
}

func TestReloadKeepsHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		f := judged(t, activeSettings(probe), Options{})
		defer f.close()
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
		if f.eligible() != 2 || !probe.closed || other.closed {
			t.Errorf("%d eligible, want 2; closed: old %v, new %v", f.eligible(), probe.closed, other.closed)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		if n, _ := other.count(instance(1)); n < 9 {
			t.Errorf("%d checks in 10 s with the new interval of 1 s", n)
		}
		_, before := probe.count(instance(0))
		time.Sleep(time.Minute)
		if _, after := probe.count(instance(0)); after != before {
			t.Error("the old probe is still used")
		}
		// Without checks nobody is unhealthy.
		f.reconfigure(Settings{})
		synctest.Wait()
		if f.eligible() != 3 || !other.closed {
			t.Errorf("%d eligible without checks, want 3; closed: %v", f.eligible(), other.closed)
		}
		// And with checks again, nobody is until they have failed.
		third := newScript()
		third.set(instance(0), true)
		s = activeSettings(third)
		s.Active.MustPassFirst = true // for new peers
		f.reconfigure(s)
		synctest.Wait()
		if f.eligible() != 3 {
			t.Errorf("%d eligible with checks again, want 3", f.eligible())
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if f.eligible() != 2 {
			t.Errorf("%d eligible after some checks, want 2", f.eligible())
		}
	})
}

func TestAnotherPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		s := activeSettings(probe)
		s.Active.Port = 9999
		f := judged(t, s, Options{})
		defer f.close()
		six := instance(0)
		six.Address = "::1"
		f.Apply([]discovery.Instance{six, instance(1)})
		synctest.Wait()
		if probe.checks["[::1]:9999"] != 1 || probe.checks["127.0.0.1:9999"] != 1 {
			t.Errorf("checks of %v", probe.checks)
		}
		s.Active.Port = 0
		f.reconfigure(s)
		synctest.Wait()
		if probe.checks["[::1]:10000"] != 1 {
			t.Errorf("checks of %v", probe.checks)
		}
	})
}

// Many verdicts at once are few snapshots.
func TestAStormOfVerdictsIsToldTogether(t *testing.T) {
	const peers = 2000
	probe := newScript()
	s := activeSettings(probe)
	s.Active.UnhealthyThreshold = 1
	f := judged(t, s, Options{})
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
	if f.eligible() > 0 {
		t.Fatalf("%d of %d peers are eligible", f.eligible(), peers)
	}
	if n := f.Snapshot().Generation; n > peers/4 {
		t.Errorf("%d snapshots for %d verdicts", n, peers)
	}
}

func TestCloseEndsChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		probe.takes = time.Hour
		s := activeSettings(probe)
		s.Active.Timeout = time.Hour
		f := judged(t, s, Options{})
		f.Apply(instances(5))
		synctest.Wait()
		start := time.Now()
		f.monitor.Close()
		if took := time.Since(start); took != 0 || probe.running != 0 {
			t.Errorf("Close took %v and left %d checks", took, probe.running)
		}
		f.close()
		f.checker.Configure(Settings{}) // too late, and harmless
		if got := strings.Join(f.events(), "; "); got != "" {
			t.Errorf("events %q", got)
		}
	})
}

func TestAfterFirstChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		probe.takes = 100 * time.Millisecond
		s := activeSettings(probe)
		s.Active.MustPassFirst = true
		f := judged(t, s, Options{MaxChecks: 2})
		defer f.close()
		probe.set(instance(1), true)
		f.Apply(instances(5))
		var called time.Duration
		eligible := 0
		start := time.Now()
		f.checker.AfterFirstChecks(func() { called, eligible = time.Since(start), f.eligible() })
		time.Sleep(50 * time.Millisecond)
		f.Apply(slices.Delete(instances(5), 4, 5)) // one leaves without having been checked
		time.Sleep(time.Second)
		synctest.Wait()
		if called < 200*time.Millisecond || called > 300*time.Millisecond || eligible != 3 {
			t.Errorf("called after %v with %d eligible, want 200ms, or 300ms if the one that left was checked, and 3", called, eligible)
		}
	})
}

func TestAfterFirstChecksThatNeedNotPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		probe.takes = time.Hour
		f := judged(t, activeSettings(probe), Options{})
		defer f.close()
		f.Apply(instances(5))
		called := false
		f.checker.AfterFirstChecks(func() { called = true })
		if !called {
			t.Error("not called at once")
		}
	})
}

func TestStopEndsTheWaitForFirstChecks(t *testing.T) {
	for name, end := range map[string]func(*fixture){
		"stop":        func(f *fixture) { f.checker.Stop() },
		"reconfigure": func(f *fixture) { f.reconfigure(Settings{}) },
		"no peers":    func(f *fixture) { f.Apply(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				probe := newScript()
				probe.takes = time.Second
				s := activeSettings(probe)
				s.Active.Timeout = time.Hour
				s.Active.MustPassFirst = true
				f := judged(t, s, Options{MaxChecks: 1})
				f.Apply(instances(5))
				called := false
				f.checker.AfterFirstChecks(func() { called = true })
				synctest.Wait()
				if called {
					t.Error("called at once")
				}
				end(f)
				synctest.Wait()
				if !called {
					t.Error("not called")
				}
				f.close()
			})
		})
	}
}
