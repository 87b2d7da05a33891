// Package operatortest gives pools the orders of an operator, for tests.
package operatortest

import (
	"sluice/balancer"
	"sluice/discovery"
	"sluice/operator"
)

// Obey returns a store of orders that the pools obey, without a file and other replicas.
func Obey(pools func() []*balancer.Pool) *operator.Peers {
	var store *operator.Peers
	apply := func() {
		for _, p := range pools() {
			p.Maintenance.Store(store.Set().Maintenance(p.Name))
			p.SetOrders(func(i discovery.Instance) balancer.Orders { return store.Set().For(i) })
		}
	}
	store = operator.New(operator.Options{Changed: apply})
	apply()
	return store
}
