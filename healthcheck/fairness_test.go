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

// A service with more hanging peers than workers does not delay the checks of other services.
func TestAHangingServiceDoesNotDelayTheChecksOfOthers(t *testing.T) {
	for _, services := range []int{1, 5, 20} {
		t.Run(fmt.Sprint(services), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewMonitor(Options{MaxChecks: 256, Random: seeded(t).Float64})
				defer m.Close()
				watch := func(name string, peers int, probe Probe) func() {
					s := Settings{Active: &Active{
						Probe: probe, Interval: time.Second, FailingInterval: time.Second, Timeout: 10 * time.Second, UnhealthyThreshold: 1, HealthyThreshold: 1,
					}}
					c := m.NewChecker()
					pool := verify.Result(balancer.NewPool(name, c.Adapt(balancertest.Complete(balancer.Options{}), s))).Must(t)
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
				defer watch("works as well", 1, hanging{below: "z"})()
				for n := range services {
					defer watch(fmt.Sprint("hangs-", n), 1000/services, hanging{})()
				}
				time.Sleep(time.Minute + 3*time.Second)
				checked := make(chan time.Time, 1000)
				defer watch("works", 1, counting{checked})()
				pass(time.Minute)
				// One per second; the second check is at a random time within it.
				n := len(checked)
				verify.That(t, n >= 59 && n <= 62, "a peer of another service was checked %d times in a minute, want 60", n)
				running, overdue := m.Load()
				t.Logf("%d running, %d overdue", running, overdue)
				verify.That(t, running >= 128 && running <= 256, "%d checks run, want at least half of 256", running)
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
