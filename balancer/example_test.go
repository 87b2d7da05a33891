package balancer_test

import (
	"fmt"
	"time"

	"sluice/balancer"
	"sluice/discovery"
)

func Example() {
	pool, err := balancer.NewPool("star", balancer.Options{
		Policy:           balancer.PolicyRoundRobin,
		DrainTimeout:     30 * time.Second,
		HashBound:        1.25,
		Overprovisioning: 1.4,
		RetryBudget:      &balancer.RetryBudget{Ratio: 0.2, MinPerSecond: 10},
		Notify:           func(e balancer.Event) { fmt.Println(e.Kind, e.Peer.Address(), e.State) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	pool.Apply([]discovery.Instance{
		{Service: "star", ID: "star-1", Node: "n1", Address: "10.0.0.1", Port: 8080, Weight: 1},
		{Service: "star", ID: "star-2", Node: "n1", Address: "10.0.0.2", Port: 8080, Weight: 1},
	})

	// Each attempt of a request goes to another peer.
	var query balancer.Query
	for range 3 {
		token, err := pool.Pick(&query)
		if err != nil {
			fmt.Println(err)
			return
		}
		token.Done(balancer.Outcome{Class: balancer.OutcomeConnectFailure, Latency: time.Millisecond})
		query.Tried.Add(token.Peer)
	}
	// Output:
	// added 10.0.0.1:8080 up
	// added 10.0.0.2:8080 up
	// all eligible peers tried
}
