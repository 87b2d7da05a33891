package healthcheck

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/test/verify"
)

// flap makes the registry say that peer n of as many is critical, and then that it passes.
func (f *fixture) flap(n, of int) {
	f.t.Helper()
	set := instances(of)
	set[n].Status, set[n].Weight = discovery.StatusCritical, 0
	f.Apply(set)
	synctest.Wait()
	f.Apply(instances(of))
	synctest.Wait()
}

func flapSettings() Settings {
	s := passiveSettings()
	s.Passive.Flaps = 3
	return s
}

// A peer that recovers often waits before it is used again, each time longer. What was minutes ago
// does not count.
func TestFlappingPeersWait(t *testing.T) {
	bubble(t, flapSettings(), 3, func(t *testing.T, f *fixture) {
		for range 2 {
			f.flap(0, 3)
			verify.Equal(t, f.eligible(), 3, "peers after a recovery")
		}
		for n, want := range []string{
			"ejected: its checks have failed and passed 3 times in 5m0s; for 10s until 2000-01-01T00:00:10Z",
			"ejected: its checks have failed and passed 4 times in 5m0s; for 20s until 2000-01-01T00:00:30Z, 2nd time",
		} {
			f.flap(0, 3)
			verify.Slices(t, f.peer(0).Reasons(), []string{want}, "reasons")
			wait := time.Duration(n+1) * 10 * time.Second
			pass(wait - time.Millisecond)
			verify.Equal(t, f.eligible(), 2, "peers before the end")
			pass(time.Millisecond)
			verify.Equal(t, f.eligible(), 3, "peers after the end")
		}
		verify.Equal(t, f.checker.Stats().Ejections[CauseFlaps], 2, "ejections")
		pass(flapWindow)
		f.flap(0, 3)
		verify.Equal(t, f.eligible(), 3, "peers after a recovery, minutes later")
	})
}

// What flaps while it is ejected counts, and is not ejected for longer.
func TestFlappingWhileEjected(t *testing.T) {
	bubble(t, flapSettings(), 3, func(t *testing.T, f *fixture) {
		for range 5 {
			f.flap(0, 3)
		}
		pass(10 * time.Second)
		verify.Equal(t, f.eligible(), 3, "peers after the end")
		f.flap(0, 3)
		pass(40*time.Second - time.Millisecond) // the fourth time over the limit
		verify.Equal(t, f.eligible(), 2, "peers before the end")
		pass(time.Millisecond)
		verify.Equal(t, f.eligible(), 3, "peers after the end")
	})
}

// Active checks count as those of the registry do. Maintenance, and an instance that leaves and
// comes back, are no flaps.
func TestWhatIsNoFlap(t *testing.T) {
	probe := newScript()
	s := flapSettings()
	s.Active = activeSettings(probe).Active
	bubble(t, s, 3, func(t *testing.T, f *fixture) {
		pass(time.Minute)
		for range 10 {
			f.Apply(instances(3)[1:])
			synctest.Wait()
			f.Apply(instances(3))
			synctest.Wait()
			set := instances(3)
			set[1].Status, set[1].Weight = discovery.StatusMaintenance, 0
			f.Apply(set)
			synctest.Wait()
			f.Apply(instances(3))
			synctest.Wait()
		}
		pass(time.Second)
		verify.Equal(t, f.eligible(), 3, "peers after what is no flap")
		for range 3 {
			probe.set(instance(2), true)
			pass(30 * time.Second)
			verify.Equal(t, f.peer(2).State(), balancer.StateUnhealthy, "state while checks fail")
			probe.set(instance(2), false)
			for f.peer(2).Has(balancer.ReasonActive) {
				pass(10 * time.Millisecond)
			}
		}
		verify.Equal(t, f.peer(2).State(), balancer.StateEjected, "state after active checks have failed thrice")
	})
}

// What all peers do has a cause that they share: nobody waits. Else the last peer and more than
// max_ejected of them never do.
func TestWhoDoesNotWait(t *testing.T) {
	for _, test := range []struct{ peers, flapping, want int }{{1, 1, 1}, {2, 1, 1}, {2, 2, 2}, {3, 2, 3}, {4, 4, 4}, {6, 2, 4}, {9, 4, 5}, {9, 5, 9}} {
		bubble(t, flapSettings(), test.peers, func(t *testing.T, f *fixture) {
			for range 10 {
				for n := range test.flapping {
					f.flap(n, test.peers)
					verify.That(t, f.eligible() > 0, "%+v: none is left", test)
				}
			}
			verify.Equal(t, f.eligible(), test.want, "%+v: those in use", test)
		})
	}
	s := flapSettings()
	s.Passive.Flaps = 0
	bubble(t, s, 2, func(t *testing.T, f *fixture) {
		for range 10 {
			f.flap(0, 2)
		}
		verify.Equal(t, f.eligible(), 2, "peers that may flap")
	})
}

// A registration may have another port for checks than before.
func TestChecksFollowTheirPort(t *testing.T) {
	checked(t, func(t *testing.T, f *fixture, probe *script) {
		set := instances(1)
		f.Apply(set)
		pass(10 * time.Second)
		set = instances(1)
		set[0].CheckPort = 9
		f.Apply(set)
		pass(10 * time.Second)
		before := probe.of(0)
		pass(10 * time.Second)
		probe.mu.Lock()
		defer probe.mu.Unlock()
		verify.That(t, before > 0 && probe.checks[instance(0).HostPort()] == before && probe.checks["127.0.0.1:9"] > 0 && probe.forgotten[instance(0).HostPort()] == 1,
			"checks %v, forgotten %v", probe.checks, probe.forgotten)
	})
}
