package consul

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

func TestOverviewShowsEveryKindOfChange(t *testing.T) {
	t.Parallel()
	fewAndManyNodes(t, func(t *testing.T, c *overviewBubble) {
		c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.instance(7, "c")) })
		c.expect("an instance comes", soon, "service-07: a-7 b-7 c-7")

		c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return e[:2] })
		c.expect("an instance goes", 2*time.Second, "service-07: a-7 b-7")

		c.replace("service-08", func(e *api.ServiceEntry) { discoverytest.Health(e, "critical", "refused") })
		c.expect("a check fails", 2*time.Second, "service-08: a-8:critical b-8")

		c.replace("service-08", func(e *api.ServiceEntry) { discoverytest.Health(e, "passing", "") })
		c.expect("a check passes", 2*time.Second, "service-08: a-8 b-8")

		c.replace("service-09", func(e *api.ServiceEntry) { discoverytest.Health(e, "warning", "slow") })
		c.expect("a check warns", 2*time.Second, "service-09: a-9:warning b-9")

		c.replace("service-10", func(e *api.ServiceEntry) { *e = *discoverytest.Maintenance(e, "by hand") })
		c.expect("maintenance mode", 2*time.Second, "service-10: a-10:maintenance b-10")

		c.replace("service-11", func(e *api.ServiceEntry) { e.Service.Tags = []string{"v2"} })
		c.expect("an instance gets a tag", 2*time.Second, "service-11: a-11 b-11")

		c.replace("service-12", func(e *api.ServiceEntry) { e.Service.Weights.Passing = 7 })
		c.expect("an instance gets another weight", 4*time.Second, "service-12: a-12 b-12")

		c.edit("service-13", func(e []*api.ServiceEntry) []*api.ServiceEntry { e[0].Checks = nil; return e[1:] })
		c.expect("all but one go", 15*time.Second, "service-13: b-13")
		c.edit("service-13", func([]*api.ServiceEntry) []*api.ServiceEntry { return nil })
		c.expect("the last one goes", 2*time.Second, "service-13: b-13?")
		c.edit("service-13", func([]*api.ServiceEntry) []*api.ServiceEntry {
			return []*api.ServiceEntry{c.instance(13, "a")}
		})
		c.expect("a service begins", 2*time.Second, "service-13: a-13")

		c.edit("service-14", func(e []*api.ServiceEntry) []*api.ServiceEntry {
			bare := c.instance(14, "bare")
			bare.Checks = nil
			return append(e, bare)
		})
		c.expect("an instance without checks", 4*time.Second, "service-14: a-14 b-14 bare-14")
		c.edit("service-14", func(e []*api.ServiceEntry) []*api.ServiceEntry { return e[:2] })
		c.expect("it goes", 3*time.Second, "service-14: a-14 b-14")

		late := c.instance(15, "c")
		discoverytest.OnNode(late, "node-late", "10.0.0.99")
		c.edit("service-15", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, late) })
		c.expect("an instance on a new node", 2*time.Second, "service-15: a-15 b-15 c-15")
	})
}

// With the consistency stale, the leader does not have the queries of every replica that block. It
// answers what is read without blocking: another server may not have the change.
func TestQueriesOfAStaleOverview(t *testing.T) {
	t.Parallel()
	for _, consistency := range []Consistency{ConsistencyDefault, ConsistencyStale} {
		for _, nodes := range []int{5, 2 * overviewSlots} {
			inOverviewBubbleOf(t, nodes, ServiceOptions{Consistency: consistency}, func(t *testing.T, c *overviewBubble) {
				begun := len(c.Requests())
				c.replace("service-08", func(e *api.ServiceEntry) { discoverytest.Health(e, "critical", "refused") })
				c.expect("a check fails", 2*time.Second, "service-08: a-8:critical b-8")
				time.Sleep(time.Minute)
				synctest.Wait()
				stale := 0
				for _, r := range c.Requests()[begun:] {
					if r.Service != "" {
						continue // not of the overview
					}
					verify.Equal(t, r.Stale, consistency == ConsistencyStale && r.Index > 0, "stale: %+v", r)
					if r.Stale {
						stale++
					}
				}
				verify.That(t, stale > 0 || consistency != ConsistencyStale, "no query is stale")
			})
		}
	}
}

// A node's tagged address is that of its instances without an address.
func TestOverviewShowsTaggedAddressesOfANode(t *testing.T) {
	fewAndManyNodes(t, func(t *testing.T, c *overviewBubble) {
		alone := c.instance(7, "c")
		discoverytest.OnNode(alone, "node-alone", "10.0.0.99")
		c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, alone) })
		c.expect("an instance on a new node", 4*time.Second, "service-07: a-7 b-7 c-7")
		time.Sleep(time.Minute) // then its query does not block any more
		spent := c.spent(5*time.Second, func() {
			c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry {
				moved, node := *e[2], *e[2].Node
				node.TaggedAddresses = map[string]string{"wan": "192.0.2.1"}
				moved.Node = &node
				e[2] = &moved
				return e
			})
		})
		verify.That(t, spent["health"] != 0, "the service was not queried: %v", spent)
	})
}

// A check that has warned for a moment is in no list that is read later.
func TestOverviewDoesNotShowAChangeThatIsUndone(t *testing.T) {
	fewAndManyNodes(t, func(t *testing.T, c *overviewBubble) {
		c.Break(discoverytest.Fault{Only: func(r discoverytest.Request) bool {
			if r.Path == "/v1/health/state/warning" {
				time.Sleep(time.Second)
			}
			return false
		}})
		c.replace("service-08", func(e *api.ServiceEntry) {
			discoverytest.Health(e, "warning", "slow")
			e.Service.Tags = []string{"v2"} // in the list of its node
		})
		c.expect("seen", soon, "service-08: a-8:warning b-8")
		c.replace("service-08", func(e *api.ServiceEntry) { discoverytest.Health(e, "passing", "") })
		c.expect("undone", 10*time.Second, "service-08: a-8 b-8")
	})
}

func TestOverviewCostsFewQueries(t *testing.T) {
	t.Parallel()
	fewAndManyNodes(t, func(t *testing.T, c *overviewBubble) {
		got := c.spent(10*time.Second, func() {
			c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.instance(7, "c")) })
		})
		// An empty list of checks changes with any check. The other queries are for the
		// node and, twice, for the service; with many nodes also for the names of all
		// services and for the indexes of the nodes without a slot.
		want := 3
		if c.nodes > overviewSlots {
			want += 1 + c.nodes - overviewSlots
		}
		delete(got, "/v1/health/state/critical")
		delete(got, "/v1/health/state/warning")
		sum := func(spent map[string]int) (all int) {
			for _, n := range spent {
				all += n
			}
			return all
		}
		verify.That(t, sum(got) <= want+1, "a new instance costs %v", got)
		idle := c.spent(5*time.Minute, func() {})
		verify.That(t, sum(idle) <= 5*60, "in 5 idle minutes: %v: want less than one query a second", idle)
	})
}

// Most changes of a catalog are new outputs of checks.
func TestOutputOfChecksCostsFewQueries(t *testing.T) {
	fewAndManyNodes(t, func(t *testing.T, c *overviewBubble) {
		got := c.spent(10*time.Second, func() {
			for n := range 20 {
				c.replace(serviceName(n), func(e *api.ServiceEntry) { discoverytest.Health(e, "passing", fmt.Sprint("uptime ", n)) })
				time.Sleep(300 * time.Millisecond)
			}
		})
		for path, n := range got {
			// The fake wakes these for any check, as memdb does if a list is empty.
			verify.That(t, n <= 0 || path == "/v1/health/state/critical" || path == "/v1/health/state/warning", "the output of checks costs %v", got)
		}
	})
}

func TestOverviewDuringAnOutage(t *testing.T) {
	t.Parallel()
	fewAndManyNodes(t, func(t *testing.T, c *overviewBubble) {
		c.Break(discoverytest.Fault{Status: http.StatusInternalServerError, Body: "No cluster leader"})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		for _, s := range c.manager.Statuses() {
			verify.Require(t, s.State == discovery.WatchStale && strings.Contains(s.LastError, "No cluster leader"), "during the outage: %+v", s)
		}
		before := len(c.Requests())
		time.Sleep(60 * time.Second)
		// Only the overview queries, each of its lists about once a second.
		n := len(c.Requests()) - before
		verify.That(t, n <= (c.nodes+3)*69, "%d queries in a minute of an outage", n)
		for _, r := range c.Requests()[before:] {
			verify.Require(t, r.Service == "", "the watch of %s queries during the outage", r.Service)
		}
		c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.instance(7, "c")) })
		c.Heal()
		c.expect("after the outage", 5*time.Second, "service-07: a-7 b-7 c-7")
		verify.Equal(t, notFresh(c.manager), 0, "watches that are not fresh after the outage")
	})
}

func TestOverviewAfterConsulLostItsState(t *testing.T) {
	t.Parallel()
	fewAndManyNodes(t, func(t *testing.T, c *overviewBubble) {
		c.SetIndex(2) // what blocks on a greater index does so until its wait is over
		c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.instance(7, "c")) })
		c.expect("index backwards", 70*time.Second, "service-07: a-7 b-7 c-7")
		c.edit("service-08", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.instance(8, "c")) })
		c.expect("and on", 5*time.Second, "service-08: a-8 b-8 c-8")
	})
}

// After an answer 429, services are queried beside the lists whose queries block.
func TestServicesAreQueriedAfterAnAgentRefusesConnections(t *testing.T) {
	t.Parallel()
	fewAndManyNodes(t, func(t *testing.T, c *overviewBubble) {
		c.Break(discoverytest.Fault{Status: http.StatusTooManyRequests, Only: func(r discoverytest.Request) bool { return r.Service != "" }})
		c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.instance(7, "c")) })
		time.Sleep(4 * time.Second)
		c.Heal()
		c.expect("after the refusals", 16*time.Second, "service-07: a-7 b-7 c-7")
	})
}

// The number of services decides how they wait.
func TestWatchesMoveBetweenConnectionAndOverview(t *testing.T) {
	inOverviewBubble(t, 2, func(t *testing.T, c *overviewBubble) {
		for n := 20; n < overviewServices; n++ {
			c.manager.Unwatch(serviceName(n))
		}
		time.Sleep(time.Second)
		s := c.client.Stats()
		verify.That(t, !s.Shared && s.Watches == 20, "with 20 watches: %+v", s)
		c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.instance(7, "c")) })
		c.expect("on a connection of its own", soon, "service-07: a-7 b-7 c-7")

		for n := 20; n < overviewServices; n++ {
			c.manager.Watch(serviceName(n), c.client.Source(ServiceOptions{Service: serviceName(n)}))
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		c.mu.Lock()
		c.sets = nil
		c.mu.Unlock()
		c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return e[:2] })
		c.expect("on the overview", soon, "service-07: a-7 b-7")
	})
}

// A proxy in front of Consul may be too slow for long lists, or refuse them.
func TestServicesArePolledIfALongListFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault discoverytest.Fault
		after time.Duration // the watches know the fault
	}{
		"504":       {discoverytest.Fault{Status: http.StatusGatewayTimeout, Body: "too slow"}, 45 * time.Second},
		"no answer": {discoverytest.Fault{Hang: true}, 90 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			fault := test.fault
			fewAndManyNodes(t, func(t *testing.T, c *overviewBubble) {
				fault.Only = func(r discoverytest.Request) bool {
					return strings.HasPrefix(r.Path, "/v1/health/state") || strings.HasPrefix(r.Path, "/v1/catalog/node-services")
				}
				c.Break(fault)
				time.Sleep(test.after)
				c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.instance(7, "c")) })
				c.expect("one after the other", 5*time.Second, "service-07: a-7 b-7 c-7")
				verify.Equal(t, notFresh(c.manager), 0, "watches that are not fresh, although queries for services succeed")
				c.Heal()
				time.Sleep(time.Minute)
				idle := c.spent(time.Minute, func() {})
				verify.That(t, idle["unchanged"]+idle["health"] <= overviewServices/2, "afterwards services are still polled: %v", idle)
			})
		})
	}
}

// Nothing is registered, or ACLs hide all nodes.
func TestOverviewOfAnEmptyCatalog(t *testing.T) {
	t.Parallel()
	atBusyAgent(t, 2*manyServices, 0, func(t *testing.T, agent *busyAgent, m *discovery.Manager) {
		time.Sleep(time.Minute)
		before := len(agent.Requests())
		time.Sleep(time.Minute)
		got := len(agent.Requests()) - before
		verify.That(t, got <= manyServices, "%d queries in a minute without a change", got)
		agent.Set(serviceName(7), discoverytest.Instance(serviceName(7), "a", 1000))
		time.Sleep(soon)
		synctest.Wait()
		for _, s := range m.Statuses() {
			verify.That(t, s.Service != serviceName(7) || s.Instances == 1, "the first instance is not seen: %+v", s)
		}
	})
}

// With more services than connections, a change of a terminating gateway is one of the service
// behind it.
func TestOverviewShowsChangesOfTerminatingGateways(t *testing.T) {
	t.Parallel()
	fewAndManyNodes(t, func(t *testing.T, c *overviewBubble) {
		gateway := func(id string) *api.ServiceEntry {
			e := c.instance(7, id)
			e.Service.Service, e.Service.Kind = "egress", api.ServiceKindTerminatingGateway
			e.Service.Meta = map[string]string{discoverytest.BehindGateway: "service-07"}
			return e
		}
		set := func(all ...*api.ServiceEntry) {
			c.edit("egress", func([]*api.ServiceEntry) []*api.ServiceEntry { return all })
		}
		set(gateway("a"), gateway("b"))
		c.manager.Watch("service-07", c.client.Source(ServiceOptions{Service: "service-07", Connect: true}))
		c.expect("the service is reached by the gateways", 5*time.Second, "service-07: a-7 b-7")
		time.Sleep(time.Minute) // then its query does not block any more
		critical := gateway("b")
		discoverytest.Health(critical, "critical", "refused")
		set(gateway("a"), critical)
		c.expect("the check of one fails", 5*time.Second, "service-07: a-7 b-7:critical")
		time.Sleep(time.Minute)
		set(gateway("a"), critical, gateway("c"))
		c.expect("one comes", 5*time.Second, "service-07: a-7 b-7:critical c-7")
	})
}
