package consul

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// slots returns the nodes whose last query blocks.
func (c *overviewBubble) slots() map[string]bool {
	nodes := make(map[string]bool)
	for _, r := range c.Requests() {
		node, ok := strings.CutPrefix(r.Path, "/v1/catalog/node-services/")
		switch {
		case ok && r.Index > 0:
			nodes[node] = true
		case ok:
			delete(nodes, node)
		}
	}
	return nodes
}

// With more nodes than slots, those that changed last have a slot.
func TestNodesThatChangedLastHaveASlot(t *testing.T) {
	inOverviewBubble(t, 40, func(t *testing.T, c *overviewBubble) {
		for round := range 3 {
			held, changed := c.slots(), ""
			for n := range overviewServices {
				e := c.instance(n, "c")
				if changed = e.Node.Node; !held[changed] {
					c.edit(serviceName(n), func(all []*api.ServiceEntry) []*api.ServiceEntry { return append(all, e) })
					break
				}
			}
			time.Sleep(defaultWait + 10*sec)
			synctest.Wait()
			now := c.slots()
			verify.Equal(t, len(now), overviewSlots, "round %d: nodes with a slot", round)
			verify.That(t, now[changed] && !held[changed], "round %d: %s has no slot, or had one before", round, changed)
		}
	})
}

// Nodes without a slot are read only if they have changed: Consul has an index for each.
func TestListsOfUnchangedNodesAreNotRead(t *testing.T) {
	t.Parallel()
	inOverviewBubble(t, 40, func(t *testing.T, c *overviewBubble) {
		for round := range 20 {
			before := len(c.Requests())
			n := 7 * round % overviewServices
			changed := c.instance(n, string(rune('c'+round)))
			c.edit(serviceName(n), func(all []*api.ServiceEntry) []*api.ServiceEntry { return append(all, changed) })
			time.Sleep(3 * sec)
			synctest.Wait()
			read, waited := make(map[string]bool), make(map[string]bool)
			for _, r := range c.Requests()[before:] {
				node, ok := strings.CutPrefix(r.Path, "/v1/catalog/node-services/")
				switch {
				case !ok || r.Filter != "":
				case r.Index > 0:
					waited[node] = true
				case node != changed.Node.Node:
					read[node] = true
				}
			}
			for node := range read { // the first query of a slot does not block
				verify.That(t, waited[node], "round %d: the list of %s was read, which has not changed and gets no slot", round, node)
			}
		}
		c.mu.Lock()
		c.sets = nil
		c.mu.Unlock()
		c.SetIndex(1000) // Consul has lost its state, and what it has now has an index that was there before
		time.Sleep(2 * time.Minute)
		id := c.entries["service-08"][0].Service.ID
		c.replace("service-08", func(e *api.ServiceEntry) { e.Service.Address = "10.9.9.9" })
		time.Sleep(5 * sec)
		synctest.Wait()
		verify.Equal(t, c.address("service-08", id), "10.9.9.9", "the instance that has moved is at")
	})
}

// direct returns the services whose last query blocks, or has blocked for less than its wait.
func (c *overviewBubble) direct() map[string]bool {
	services := make(map[string]bool)
	for _, r := range c.Requests() {
		switch {
		case r.Service == "" || r.Filter != "":
		case r.Index > 0 && time.Since(r.Time) < r.Wait:
			services[r.Service] = true
		default:
			delete(services, r.Service)
		}
	}
	return services
}

// The overview may be slow, but a service that has just changed does not wait for it.
func TestQueriesForAServiceThatHasJustChangedBlock(t *testing.T) {
	t.Parallel()
	fewAndManyNodes(t, func(t *testing.T, c *overviewBubble) {
		const slow = 4 * time.Second
		c.Break(discoverytest.Fault{Only: func(r discoverytest.Request) bool {
			if r.Service == "" {
				time.Sleep(slow)
			}
			return false
		}})
		c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.instance(7, "c")) })
		c.expect("the first change", slow-time.Second)
		c.expect("the first change, by the overview", 3*slow, "service-07: a-7 b-7 c-7")
		for range 5 {
			time.Sleep(15 * time.Second)
			c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return e[:2] })
			c.expect("an instance goes", soon, "service-07: a-7 b-7")
			time.Sleep(15 * time.Second)
			c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.instance(7, "c")) })
			c.expect("an instance comes", 2*soon, "service-07: a-7 b-7 c-7")
		}
		verify.DeepEqual(t, c.direct(), map[string]bool{"service-07": true}, "the services whose queries block")
		// The output of a check is no change.
		for n := range 6 {
			time.Sleep(10 * time.Second)
			c.replace("service-07", func(e *api.ServiceEntry) { discoverytest.Health(e, "passing", fmt.Sprint("uptime ", n)) })
		}
		time.Sleep(soon)
		synctest.Wait()
		verify.Equal(t, len(c.direct()), 0, "services whose queries block, though none has changed for long")
		c.Heal()
		time.Sleep(slow)
	})
}

func TestFewQueriesForServicesBlock(t *testing.T) {
	t.Parallel()
	fewAndManyNodes(t, func(t *testing.T, c *overviewBubble) {
		changed := make(map[string][]*api.ServiceEntry)
		var want []string
		for n := range 30 {
			changed[serviceName(n)] = append(slices.Clone(c.entries[serviceName(n)]), c.instance(n, "c"))
			want = append(want, fmt.Sprintf("%s: a-%[2]d b-%[2]d c-%[2]d", serviceName(n), n))
		}
		c.SetAll(changed)
		c.expect("all change", 4*time.Second, want...)
		const most = 4 // an eighth of the connections, without those for probes
		verify.Equal(t, len(c.direct()), most, "the queries for services block")
		verify.Equal(t, c.client.Stats().Direct, most, "direct in the statistics")
		// Those that changed last have precedence.
		c.edit("service-40", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.instance(40, "c")) })
		c.expect("another one changes", 12*time.Second, "service-40: a-40 b-40 c-40")
		direct := c.direct()
		verify.That(t, len(direct) == most && direct["service-40"], "the queries for %v block, want %d, service-40 among them", direct, most)
		time.Sleep(defaultWait)
		synctest.Wait()
		verify.Equal(t, len(c.direct()), 0, "services whose queries still block")
		verify.Equal(t, c.client.Stats().Direct, 0, "direct in the statistics at the end")
	})
}
