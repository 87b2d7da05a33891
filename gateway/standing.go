package gateway

import (
	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
	"sluice/operator"
	"sluice/release"
)

// newOrders returns the store of operators' orders about peers.
func (g *Gateway) newOrders(c *config.Config) *operator.Peers {
	return operator.New(operator.Options{
		Path:   c.Admin.Orders,
		Consul: g.consul, Prefix: c.Consul.OrdersPrefix(), Wait: g.consulWait,
		Own: g.owner.Do, Replica: g.replicaName,
		Changed: func() {
			for _, service := range g.services.all() {
				g.applyOrders(service)
			}
		},
		Events: g.events, Log: g.log,
	})
}

// newRelease returns the given shares, without any, and the judge.
func (g *Gateway) newRelease(c *config.Config) (*release.Shares, *release.Judge) {
	shares := release.NewShares(release.Options{
		Path:   c.Admin.Shares,
		Consul: g.consul, Prefix: c.Consul.Shares, Wait: g.consulWait,
		Own: g.owner.Do, Replica: g.replicaName,
		Settled: func() bool { return closed(g.documents.Settled()) && closed(g.finder.Used()) },
		Changed: g.documents.Again,
		Events:  g.events, Log: g.log,
	})
	return shares, release.NewJudge(release.JudgeOptions{
		Shares: shares, Config: g.effective.Load, Pool: g.services.pool, Events: g.events, Log: g.log,
	})
}

// applyOrders makes the pool of a service obey the orders that stand.
func (g *Gateway) applyOrders(s *service) {
	s.pool.SetOrders(func(i discovery.Instance) balancer.Orders { return g.orders.Set().For(i) })
}
