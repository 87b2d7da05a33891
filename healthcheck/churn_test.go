package healthcheck

import (
	"sync"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/test/verify"
)

// Requests, verdicts, sets and settings change concurrently.
func TestChurn(t *testing.T) {
	probe := newScript()
	s := passiveSettings()
	s.Passive.Ejection, s.Passive.MaxEjection, s.Passive.Interval = time.Millisecond, 5*time.Millisecond, 2*time.Millisecond
	s.Passive.SuccessRate = &SuccessRate{Below: 1}
	s.Passive.Latency = &Latency{Factor: 2}
	s.Active = &Active{Probe: probe, Schedule: Schedule{
		Interval: time.Millisecond, FailingInterval: time.Millisecond, Jitter: 0.5, Timeout: time.Second, UnhealthyThreshold: 1, HealthyThreshold: 1,
	}}
	f := newFixture(t, s, Options{MaxChecks: 4})
	stop := make(chan struct{})
	var all sync.WaitGroup
	repeat := func(step func(n int)) {
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					step(n)
				}
			}
		})
	}
	phases := [][]balancer.Outcome{{fine}, {refused, reset, gateway}, {fine, internal}}
	for range 3 {
		repeat(func(n int) {
			if token, err := f.Pick(nil); err == nil {
				phase := phases[time.Now().UnixMilli()/10%3]
				token.Done(phase[n%len(phase)])
			}
		})
	}
	repeat(func(n int) {
		f.Apply(instances(1 + n%7))
		probe.set(instance(n%7), n%3 == 0)
		time.Sleep(time.Millisecond)
	})
	repeat(func(n int) {
		c := s
		if n%3 == 0 {
			c.Active = nil
		}
		if n%5 == 0 {
			c.Passive = Passive{}
		}
		f.reconfigure(c)
		f.checker.Stats()
		time.Sleep(3 * time.Millisecond)
	})
	deadline := time.Now().Add(3 * time.Minute)
	happened := func() bool {
		s := f.checker.Stats()
		return s.ChecksFailed > 20 && s.ChecksPassed > 20 && s.Ejections[CauseFailures] > 20
	}
	for !happened() && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	verify.That(t, happened(), "stats %+v: the test does not do what it is for", f.checker.Stats())
	close(stop)
	all.Wait()
	// When nothing fails, all peers become eligible again.
	for n := range 7 {
		probe.set(instance(n), false)
	}
	f.Apply(instances(7))
	f.reconfigure(s)
	eligible := f.eligible()
	for deadline = time.Now().Add(3 * time.Minute); eligible < 7 && time.Now().Before(deadline); eligible = f.eligible() {
		time.Sleep(time.Millisecond)
	}
	for _, p := range f.Snapshot().All {
		verify.That(t, eligible == 7, "%d eligible; %v: %q", eligible, p, p.Reasons())
	}
	verify.Equal(t, eligible, 7, "eligible") // also if a peer is missing from the set
	f.close()
	running, _ := f.monitor.Load()
	verify.That(t, running == 0, "%d checks run after Close", running)
}
