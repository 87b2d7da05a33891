// Package balancertest completes options of pools, and drains peers, for tests.
package balancertest

import (
	"cmp"
	"slices"
	"time"

	"sluice/balancer"
	"sluice/discovery"
)

// Drain orders the drain of these instances, and ends the drains of all others.
func Drain(p *balancer.Pool, why string, ids ...discovery.Key) {
	p.SetOrders(func(i discovery.Instance) balancer.Orders {
		return balancer.Orders{Drain: slices.Contains(ids, i.Key()), Why: why}
	})
}

// Complete returns o with values for what a test leaves open.
func Complete(o balancer.Options) balancer.Options {
	o.Policy = cmp.Or(o.Policy, balancer.PolicyEWMA)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 30*time.Second)
	o.Overprovisioning = cmp.Or(o.Overprovisioning, 1.4)
	o.HashBound = cmp.Or(o.HashBound, 1.25)
	o.RetryBudget = cmp.Or(o.RetryBudget, &balancer.RetryBudget{Ratio: 0.2, MinPerSecond: 10})
	o.SlowStart.Aggression = cmp.Or(o.SlowStart.Aggression, 1)
	o.SlowStart.MinWeight = cmp.Or(o.SlowStart.MinWeight, 0.1)
	return o
}
