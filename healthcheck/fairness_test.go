package healthcheck

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// hanging is a probe that returns at once for addresses below a limit, and never for others.
type hanging struct{ below string }

func (h hanging) Check(ctx context.Context, t Target) error {
	if t.Address < h.below {
		return nil
	}
	<-ctx.Done()
	return failure("connect", ctx.Err())
}
func (hanging) Forget(string)  {}
func (hanging) Close()         {}
func (hanging) String() string { return "hanging" }

// watched starts a pool with checks, and returns what ends it.
func watched(t *testing.T, m *Monitor, name string, peers int, a Active) (end func()) {
	a.Interval, a.FailingInterval, a.UnhealthyThreshold, a.HealthyThreshold = time.Second, time.Second, 1, 1
	s := Settings{Active: &a}
	c := m.NewChecker()
	pool := balancer.NewPool(name, c.Adapt(balancertest.Complete(balancer.Options{}), s))
	var set []discovery.Instance
	for n := range peers {
		i := instance(n)
		i.Service = name
		set = append(set, i)
	}
	pool.Apply(set)
	c.Start(pool, s)
	return func() { c.Stop(); pool.Close() }
}

// onTime requires that the one peer of a service, whose checks are foreign or not, is checked each
// second of a minute.
func onTime(t *testing.T, m *Monitor, foreign bool) {
	t.Helper()
	checked := make(chan time.Time, 1000)
	defer watched(t, m, fmt.Sprint("works, foreign: ", foreign), 1, Active{Probe: counting{checked}, Schedule: Schedule{Timeout: time.Second}, Foreign: foreign})()
	pass(time.Minute)
	n := len(checked) // the second check is at a random time within its second
	verify.That(t, n >= 59 && n <= 62, "a peer of another service was checked %d times in a minute, want 60; foreign: %v", n, foreign)
}

// Who registers services with tags has peers that hang, one of each service. The checks of the
// operator's services are on time however many there are, and those of others with tags while not
// too many wait.
func TestForeignChecksThatHang(t *testing.T) {
	for _, services := range []int{600, 6000} {
		t.Run(fmt.Sprint(services), func(t *testing.T) {
			if services > 600 && testing.Short() {
				t.Skip("it adds no concurrency to the smaller one")
			}
			synctest.Test(t, func(t *testing.T) {
				m := NewMonitor(Options{MaxChecks: 512, Random: seeded(t).Float64})
				defer m.Close()
				for n := range services {
					defer watched(t, m, fmt.Sprint("hangs-", n), 1, Active{Probe: hanging{}, Schedule: Schedule{Timeout: 10 * time.Second}, Foreign: true})()
				}
				time.Sleep(20 * time.Second)
				onTime(t, m, false)
				if services == 600 {
					onTime(t, m, true)
				}
				running, _ := m.Load()
				const most = 512/2 + 512*awaitPerWorker/2
				verify.That(t, running >= min(services, most)-64 && running <= most, "%d foreign checks run, want %d at most", running, most)
			})
		})
	}
}

// counting is a probe that reports each check.
type counting struct{ checked chan<- time.Time }

func (c counting) Check(context.Context, Target) error { c.checked <- time.Now(); return nil }
func (counting) Forget(string)                         {}
func (counting) Close()                                {}
func (counting) String() string                        { return "counting" }
