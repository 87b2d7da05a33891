package balancer

import (
	"net/netip"
	"slices"
	"time"

	"sluice/discovery"
)

// Orders are an operator's orders about one instance.
type Orders struct {
	Drain  bool
	Why    string // of Drain, for people; may be empty
	Weight int    // in place of the registry's, up to 65535; 0: none
}

// SetOrders replaces the operator's orders. of returns the orders about an instance, which may
// join later; it must not block or call the pool. When it returns others, SetOrders must be
// called again. After that no request starts on a drained peer, also not in panic.
//
// An ordered weight replaces a weight of 0 too, but neither a critical status nor maintenance.
func (p *Pool) SetOrders(of func(discovery.Instance) Orders) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.orders = of
	if p.witness != nil {
		p.witness.Changing()
		defer p.witness.Ordered(of)
	}
	differs := false
	for _, peer := range sorted(p.peers) {
		c := peer.condition.Load()
		orders := of(c.instance)
		if orders == c.orders {
			continue
		}
		was, is := p.changeLocked(peer, func(c *condition) {
			c.orders = orders
			c.setInstance(c.instance, &p.options)
		})
		p.notices.queueState(peer, was, is)
		differs = true
	}
	if differs {
		p.publishLocked()
	}
}

// weight returns the peer's weight, from 0 to discovery.MaxWeight.
func (c *condition) weight() int {
	weight := max(c.instance.Weight, c.override, 0)
	if c.orders.Weight > 0 {
		weight = c.orders.Weight
	}
	return min(weight, discovery.MaxWeight)
}

// usualWeight returns the weight of the peer when it is healthy, 1 if it is unknown.
func (c *condition) usualWeight() int {
	if c.orders.Weight > 0 {
		return c.weight()
	}
	return min(max(c.usual, 1), discovery.MaxWeight)
}

// Maintenance is an operator's order that a service gets no new requests. It does not change.
type Maintenance struct {
	Why    string         // for people; may be empty
	Until  time.Time      // zero: unknown
	Except []netip.Prefix // of clients whose requests go on
}

// Excepts reports whether the order does not concern a client, whose address is not mapped.
func (m *Maintenance) Excepts(client netip.Addr) bool {
	return slices.ContainsFunc(m.Except, func(p netip.Prefix) bool { return p.Contains(client) })
}
