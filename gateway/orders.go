package gateway

import (
	"sluice/config"
	"sluice/observe/wake"
	"sluice/operator"
	"sluice/release"
)

// newOrders returns the store of operators' orders about peers.
func (g *Gateway) newOrders(c *config.Config) *operator.Peers {
	return operator.New(operator.Options{
		Path:   c.Admin.Orders,
		Consul: g.registries.consul, Prefix: c.Consul.OrdersPrefix(), Wait: g.registries.wait,
		Own: g.owner.Do, Replica: func() string { return g.replica.name() },
		Changed: func() { g.services.applyOrders() },
		Events:  g.events, Log: g.log,
	})
}

// newRelease returns the given shares, without any, and the judge.
func (g *Gateway) newRelease(c *config.Config) (*release.Shares, *release.Judge) {
	shares := release.NewShares(release.Options{
		Path:   c.Admin.Shares,
		Consul: g.registries.consul, Prefix: c.Consul.Shares, Wait: g.registries.wait,
		Own: g.owner.Do, Replica: func() string { return g.replica.name() },
		Settled: func() bool { return wake.Closed(g.documents.Settled()) && wake.Closed(g.finder.Used()) },
		Changed: g.documents.Reapply,
		Events:  g.events, Log: g.log,
	})
	return shares, release.NewJudge(release.JudgeOptions{
		Shares: shares, Config: g.effective.Load, Pool: g.services.pool, Events: g.events, Log: g.log,
	})
}
