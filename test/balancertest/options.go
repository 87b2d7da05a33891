// Package balancertest completes options of pools for tests.
package balancertest

import (
	"cmp"
	"time"

	"sluice/balancer"
)

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
