package gateway

import (
	"fmt"
	"slices"
)

// lose lets Consul lose all that it has, as servers do that begin without their data. sluice must
// know all of it. What it watches stays until it is registered again, on probation or out of
// service, and has the age of before then; the rest is registered again at once, in another order.
func (c *foundRun) lose() {
	c.trace("Consul loses its state")
	f, g := c.files.latest(), c.current.Load()
	c.index -= 1000 // so that nobody waits for an index that comes again
	for _, name := range foundServices {
		former := c.services[name].latest()
		s := &foundService{name: name, before: former.serving(), forgotten: f.inConsul(name) && g.services.pool(name) != nil}
		if slices.ContainsFunc(former.instances, foundInstance.onProbation) {
			s.before = max(s.before, former.before)
		}
		for _, i := range former.instances {
			if i.lost = true; s.forgotten {
				s.instances = append(s.instances, i)
			}
		}
		if !s.forgotten {
			defer c.again(name)
		}
		c.publishService(s)
	}
	c.registry.change(func() { c.registry.index, c.registry.holder = c.index, "" })
	c.registry.Lose(c.index, "db")
	c.leaderLost = true
	c.server.CloseClientConnections() // a server that starts anew ends all queries, which would wait for an index of before
}

// again registers instances of a service that nobody watches.
func (c *foundRun) again(name string) {
	for range 1 + c.random.IntN(3) {
		c.join(name)
	}
}

func (s *foundService) named(name string) *foundInstance {
	return &s.instances[slices.IndexFunc(s.instances, func(i foundInstance) bool { return i.name == name })]
}

// onProbation reports whether an instance is used although Consul lacks it.
func (i foundInstance) onProbation() bool { return i.lost && i.usable() }

// lost reports whether Consul lacks an instance.
func (s *foundService) lost() bool {
	return slices.ContainsFunc(s.instances, func(i foundInstance) bool { return i.lost })
}

// serving returns how many instances Consul has in service.
func (s *foundService) serving() (n int) {
	for _, i := range s.instances {
		if i.usable() && !i.lost {
			n++
		}
	}
	return n
}

// release removes the instances on probation if Consul has as many others in service as there were
// before.
func (s *foundService) release() {
	if s.serving() >= s.before {
		s.instances = slices.DeleteFunc(s.instances, foundInstance.onProbation)
	}
}

// remembers reports whether sluice knows of a service what Consul does not: who is on probation, or
// who is older.
func (c *foundRun) remembers(name string) bool { return c.services[name].latest().forgotten }

// remind lets all instances of a service that Consul has register once more, from the oldest to the
// newest, as sluice knows them.
func (c *foundRun) remind(name string) {
	s := c.services[name].latest()
	if !s.forgotten || s.lost() {
		return
	}
	c.trace("the instances of %s register in their order", name)
	order := slices.Clone(s.instances)
	slices.SortFunc(order, func(a, b foundInstance) int { return a.registered - b.registered })
	for _, i := range order {
		c.writes++
		c.edit(name, func(s *foundService) { s.named(i.name).registered = c.writes })
	}
	c.edit(name, func(s *foundService) { s.forgotten = false })
}

// restoreLeader registers the databases again, if Consul has lost them.
func (c *foundRun) restoreLeader() {
	if c.leaderLost {
		c.trace("%q leads, and Consul knows it again", c.leader.latest())
		c.registerLeader(c.leader.latest())
	}
}

// awaitKnown waits until sluice knows all that Consul is about to lose.
func (c *foundRun) awaitKnown() {
	c.awaitPooled("before Consul loses it")
	g, leader := c.current.Load(), c.leader.latest()
	g.await(fmt.Sprintf("it is known that %q leads", leader), func() bool { return g.leader() == leader })
}

// awaitPooled waits until the pools have what is registered.
func (c *foundRun) awaitPooled(why string) {
	g := c.current.Load()
	g.await(fmt.Sprintf("the pools have what is registered, %s", why), func() bool { return c.pooled(g) || c.failed.Load() })
}
