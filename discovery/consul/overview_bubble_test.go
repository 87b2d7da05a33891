package consul

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// overviewBubble watches more services of a fake Consul than there are connections, in
// virtual time. Each service has two instances, a and b.
type overviewBubble struct {
	*discoverytest.Consul
	t       *testing.T
	client  *testClient
	manager *discovery.Manager
	nodes   int
	entries map[string][]*api.ServiceEntry

	mu     sync.Mutex
	sets   []string                        // of Sink since the last check: "service-1: a b"
	latest map[string][]discovery.Instance // sets
}

const (
	overviewServices    = 60
	overviewConnections = 40
	overviewSlots       = 17 // with more nodes: all but those for probes, other lists, reads of nodes, and the last place
)

func inOverviewBubble(t *testing.T, nodes int, f func(t *testing.T, c *overviewBubble)) {
	inOverviewBubbleOf(t, nodes, ServiceOptions{}, f)
}

// inOverviewBubbleOf is inOverviewBubble for services with options.
func inOverviewBubbleOf(t *testing.T, nodes int, o ServiceOptions, f func(t *testing.T, c *overviewBubble)) {
	synctest.Test(t, func(t *testing.T) {
		c := &overviewBubble{Consul: discoverytest.New(), t: t, nodes: nodes, entries: make(map[string][]*api.ServiceEntry), latest: make(map[string][]discovery.Instance)}
		for n := range overviewServices {
			c.edit(serviceName(n), func([]*api.ServiceEntry) []*api.ServiceEntry {
				return []*api.ServiceEntry{c.instance(n, "a"), c.instance(n, "b")}
			})
		}
		c.client, _ = inMemory(t, c.Consul, consul.Options{MaxWatches: overviewConnections, Log: zerolog.Nop()})
		c.manager = discovery.NewManager(discovery.ManagerOptions{
			Sink: func(set discovery.Set) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.sets = append(c.sets, set.Service+": "+formatSet(set.Instances))
				c.latest[set.Service] = set.Instances
			},
		})
		for n := range overviewServices {
			o.Service = serviceName(n)
			c.manager.Watch(o.Service, c.client.Source(o))
		}
		t.Cleanup(func() {
			verify.Equal(t, c.client.Stats().OnOverview, 0, "watches are on an overview after the end")
		})
		run(t, c.manager)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		verify.Require(t, len(c.sets) == overviewServices, "Sink got %d first sets, want %d: %q", len(c.sets), overviewServices, c.sets)
		c.sets = nil
		f(t, c)
		s := c.client.Stats()
		verify.That(t, s.Shared && s.OnOverview == s.Watches && s.Peak <= overviewConnections,
			"%+v: want all on an overview, and at most %d connections", s, overviewConnections)
	})
}

func serviceName(n int) string { return fmt.Sprintf("service-%02d", n) }

func (c *overviewBubble) instance(n int, id string) *api.ServiceEntry {
	e := discoverytest.Instance(serviceName(n), fmt.Sprintf("%s-%d", id, n), 1000+n)
	node := (n + int(id[0])) % c.nodes
	return discoverytest.OnNode(e, fmt.Sprint("node-", node), fmt.Sprint("10.0.0.", node))
}

// edit changes the entries of a service.
func (c *overviewBubble) edit(service string, change func([]*api.ServiceEntry) []*api.ServiceEntry) {
	c.entries[service] = change(slices.Clone(c.entries[service]))
	c.Set(service, c.entries[service]...)
}

// replace changes a copy of the first entry of a service.
func (c *overviewBubble) replace(service string, change func(*api.ServiceEntry)) {
	c.edit(service, func(entries []*api.ServiceEntry) []*api.ServiceEntry {
		e := *entries[0]
		s := *e.Service
		e.Service, e.Checks = &s, slices.Clone(e.Checks)
		for n, check := range e.Checks {
			copied := *check
			e.Checks[n] = &copied
		}
		change(&e)
		entries[0] = &e
		return entries
	})
}

// address returns the address of an instance in the latest set.
func (c *overviewBubble) address(service, id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.latest[service] {
		if i.ID == id {
			return i.Address
		}
	}
	return "none"
}

// expect checks what Sink got within d.
func (c *overviewBubble) expect(what string, d time.Duration, want ...string) {
	c.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.sets)
	verify.Slices(c.t, c.sets, want, "%s: Sink", what)
	c.sets = nil
}

// spent returns the number of queries within d after f, by path; "health" are those for
// service-07, "unchanged" those for other services.
func (c *overviewBubble) spent(d time.Duration, f func()) map[string]int {
	time.Sleep(10 * time.Second) // late effects of an earlier step
	synctest.Wait()
	before := len(c.Requests())
	f()
	time.Sleep(d)
	synctest.Wait()
	count := make(map[string]int)
	for _, r := range c.Requests()[before:] {
		switch r.Service {
		case "":
			count[r.Path]++
		case "service-07":
			count["health"]++
		default:
			count["unchanged"]++
		}
	}
	return count
}

// fewAndManyNodes runs f with fewer nodes than slots, and with more.
func fewAndManyNodes(t *testing.T, f func(t *testing.T, c *overviewBubble)) {
	for name, nodes := range map[string]int{"few nodes": 10, "many nodes": 40} {
		t.Run(name, func(t *testing.T) {
			if nodes == 10 && testing.Short() {
				t.Skip("it adds no concurrency to many nodes")
			}
			inOverviewBubble(t, nodes, func(t *testing.T, c *overviewBubble) {
				got := len(c.slots())
				verify.Require(t, got == min(nodes, overviewSlots), "the queries on %d of %d nodes block", got, nodes)
				f(t, c)
			})
		})
	}
}

// soon is how long a change may take in virtual time, in which only rates, pauses and
// waits take time.
const soon = 300 * time.Millisecond
