package simulation

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/discovery/discoverytest"
)

// emptyHold is how long the source keeps instances after a sudden loss.
const emptyHold = 5 * time.Second

// consul is a registry in the form of Consul's HTTP API, for the real source.
type consul struct {
	*registry
	fake   *discoverytest.Consul
	pipe   *discoverytest.Pipe
	client *consulsource.Client
	random *rand.Rand
}

func newConsul(r *registry) *consul {
	c := &consul{registry: r, fake: discoverytest.New(), random: r.w.random}
	c.pipe = discoverytest.ServePipe(c.fake)
	var err error
	c.client, err = consulsource.NewClient(consulsource.ClientOptions{Addresses: []string{"http://consul"}, Log: zerolog.Nop()}.WithDial(c.pipe.DialContext))
	if err != nil {
		panic(err)
	}
	if c.random.IntN(2) == 0 {
		c.fake.DisableStreaming()
	}
	return c
}

func (c *consul) source() discovery.Source {
	return c.client.Source(consulsource.ServiceOptions{Service: c.name, Wait: 10 * time.Second, EmptyHold: emptyHold})
}

func (c *consul) close() {
	c.client.Close()
	c.pipe.Close()
}

// publish makes the fake list what is registered.
func (c *consul) publish() {
	entries := make([]*api.ServiceEntry, len(c.entries))
	for n, i := range c.entries {
		e := discoverytest.Instance(i.Service, i.ID, i.Port)
		e.Service.Address = i.Address
		discoverytest.OnNode(e, i.Node, i.Address)
		switch i.Status {
		case discovery.StatusWarning:
			discoverytest.Health(e, api.HealthWarning, "")
		case discovery.StatusCritical:
			discoverytest.Health(e, api.HealthCritical, "")
		case discovery.StatusMaintenance:
			discoverytest.Maintenance(e, "")
		}
		if i.Weight > 0 {
			e.Service.Weights = api.AgentWeights{Passing: i.Weight, Warning: i.Weight}
		}
		entries[n] = e
	}
	c.fake.Set(c.name, entries...)
}

// disturb makes Consul fail in one way or other, or work again.
func (c *consul) disturb() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	lied := c.lies
	c.lies = false
	var f discoverytest.Fault
	what := ""
	switch c.random.IntN(12) {
	case 0:
		what, f = "drops connections", discoverytest.Fault{Drop: true}
	case 1:
		what, f = "hangs", discoverytest.Fault{Hang: true}
	case 2:
		what, f = "has no leader", discoverytest.Fault{Status: http.StatusInternalServerError, Body: "No cluster leader"}
	case 3:
		what, f = "knows no leader and lists nothing", discoverytest.Fault{NoLeader: true, Empty: true}
	case 4:
		what, f = "asks for fewer queries", discoverytest.Fault{Status: http.StatusTooManyRequests}
	case 5:
		what, f = "answers with garbage", discoverytest.Fault{Body: `[{"Node":`}
	case 6:
		what, f = "filters all by ACLs", discoverytest.Fault{Filtered: true, Empty: true}
	case 7:
		what, f = "lists nothing", discoverytest.Fault{Empty: true}
		c.lies = true
	case 8:
		c.w.logf("%s: Consul starts its index again", c.name)
		c.fake.SetIndex(uint64(1 + c.random.IntN(5)))
		return
	}
	if lied || c.lies {
		c.registry.lied = time.Now()
	}
	if what == "" {
		c.w.logf("%s: Consul works", c.name)
		c.fake.Heal()
		return
	}
	c.w.logf("%s: Consul %s", c.name, what)
	c.fake.Break(f)
}

// maintain puts those processes into maintenance mode that are in it through
// any agent.
func maintain(set map[discovery.Key]discovery.Instance, entries []discovery.Instance) {
	for key, i := range set {
		for _, e := range entries {
			if e.ID == i.ID && e.HostPort() == i.HostPort() && e.Status == discovery.StatusMaintenance {
				i.Status, i.Weight = discovery.StatusMaintenance, 0
				set[key] = i
			}
		}
	}
}
