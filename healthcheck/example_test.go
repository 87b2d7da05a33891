package healthcheck_test

import (
	"fmt"
	"strings"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/healthcheck"
	"sluice/test/balancertest"
)

// A peer with three consecutive failures gets no requests for ten seconds.
func Example() {
	monitor := healthcheck.NewMonitor(healthcheck.Options{MaxChecks: 100})
	defer monitor.Close()

	settings := healthcheck.Settings{Passive: healthcheck.Passive{
		ConsecutiveFailures: 3,
		Interval:            10 * time.Second,
		Ejection:            10 * time.Second,
		MaxEjection:         time.Minute,
		MaxEjected:          0.5,
	}}
	checker := monitor.NewChecker()
	pool, err := balancer.NewPool("star", checker.Adapt(balancertest.Complete(balancer.Options{}), settings))
	if err != nil {
		panic(err)
	}
	checker.Start(pool, settings)
	defer checker.Stop()
	pool.Apply([]discovery.Instance{
		{Service: "star", ID: "star-9001", Address: "127.0.0.1", Port: 9001, Weight: 1},
		{Service: "star", ID: "star-9002", Address: "127.0.0.1", Port: 9002, Weight: 1},
	})

	changed := pool.Changed()
	first := pool.Snapshot().All[0]
	for failures := 0; failures < 3; {
		token, err := pool.Pick(nil)
		if err != nil {
			panic(err)
		}
		if token.Peer == first {
			token.Done(balancer.Outcome{Class: balancer.OutcomeReset})
			failures++
		} else {
			token.Done(balancer.Outcome{Class: balancer.OutcomeOK, Status: 200})
		}
	}
	<-changed // verdicts are asynchronous
	why, _, _ := strings.Cut(first.Reasons()[0], "; for")
	fmt.Println(first.ID.ID, first.State(), why)
	// Output: star-9001 ejected ejected: 3 failures in a row, the last: reset
}
