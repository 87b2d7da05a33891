package consul

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/discovery"
	"sluice/discovery/discoverytest"
)

// crowd watches more services of the fake than there are connections, in a
// synctest bubble. Each service n has two instances, a and b, on the nodes that
// nodeOf names.
type crowd struct {
	*discoverytest.Consul
	t       *testing.T
	client  *Client
	manager *discovery.Manager
	nodes   int
	entries map[string][]*api.ServiceEntry

	mu     sync.Mutex
	sets   []string                        // what Sink got since the last check: "service-1: a b"
	latest map[string][]discovery.Instance // sets
}

const (
	crowdServices    = 60
	crowdConnections = 40
)

func inCrowd(t *testing.T, nodes int, f func(t *testing.T, c *crowd)) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{Consul: discoverytest.New(), t: t, nodes: nodes, entries: make(map[string][]*api.ServiceEntry), latest: make(map[string][]discovery.Instance)}
		for n := range crowdServices {
			c.edit(crowdService(n), func([]*api.ServiceEntry) []*api.ServiceEntry {
				return []*api.ServiceEntry{c.instance(n, "a"), c.instance(n, "b")}
			})
		}
		pipe := discoverytest.ServePipe(c.Consul)
		var err error
		c.client, err = NewClient(ClientOptions{
			Addresses: []string{"http://fake"}, MaxWatches: crowdConnections,
			Log: zerolog.Nop(), dial: pipe.DialContext,
		})
		if err != nil {
			t.Fatal(err)
		}
		c.manager = discovery.NewManager(discovery.ManagerOptions{
			Debounce: discovery.Debounce{Quiet: -1, MaxWait: -1},
			Sink: func(service string, set []discovery.Instance) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.sets = append(c.sets, service+": "+formatSet(set))
				c.latest[service] = set
			},
		})
		for n := range crowdServices {
			c.manager.Watch(crowdService(n), c.client.Source(ServiceOptions{Service: crowdService(n)}))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { c.manager.Run(ctx) })
		defer func() {
			cancel()
			run.Wait()
			c.client.Close()
			pipe.Close()
			if len(c.client.overviews.all) != 0 {
				t.Error("an overview outlives its riders")
			}
		}()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(c.sets) != crowdServices {
			t.Fatalf("Sink got %d first sets, want %d: %q", len(c.sets), crowdServices, c.sets)
		}
		c.sets = nil
		f(t, c)
		if s := c.client.Stats(); !s.Shared || s.Riding != s.Watches || s.Peak > crowdConnections {
			t.Errorf("%+v: want them shared, and at most %d connections", s, crowdConnections)
		}
	})
}

func crowdService(n int) string { return fmt.Sprintf("service-%02d", n) }

func (c *crowd) instance(n int, id string) *api.ServiceEntry {
	e := discoverytest.Instance(crowdService(n), fmt.Sprintf("%s-%d", id, n), 1000+n)
	node := (n + int(id[0])) % c.nodes
	return discoverytest.OnNode(e, fmt.Sprint("node-", node), fmt.Sprint("10.0.0.", node))
}

// edit changes the entries of a service.
func (c *crowd) edit(service string, change func([]*api.ServiceEntry) []*api.ServiceEntry) {
	c.entries[service] = change(slices.Clone(c.entries[service]))
	c.Set(service, c.entries[service]...)
}

// replace changes a copy of the first entry of a service.
func (c *crowd) replace(service string, change func(*api.ServiceEntry)) {
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

// address returns where an instance is by the latest set.
func (c *crowd) address(service, id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.latest[service] {
		if i.ID == id {
			return i.Address
		}
	}
	return "nowhere"
}

// expect checks what Sink got within d.
func (c *crowd) expect(what string, d time.Duration, want ...string) {
	c.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.sets)
	if !slices.Equal(c.sets, want) {
		c.t.Errorf("%s: Sink got %q, want %q", what, c.sets, want)
	}
	c.sets = nil
}

// spent returns how many queries are sent within d after f, by path: "health" is
// for that of service-07, "without news" for that of others.
func (c *crowd) spent(d time.Duration, f func()) map[string]int {
	time.Sleep(10 * time.Second) // what an earlier step causes late
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
			count["without news"]++
		}
	}
	return count
}

// ways runs f for an overview by nodes and by names. There are fewer nodes than
// half of the connections, or more.
func ways(t *testing.T, f func(t *testing.T, c *crowd)) {
	for _, tt := range []struct {
		name  string
		nodes int
		way   way
	}{{"by nodes", 10, byNodes}, {"by names", 25, byNames}} {
		t.Run(tt.name, func(t *testing.T) {
			inCrowd(t, tt.nodes, func(t *testing.T, c *crowd) {
				f(t, c)
				c.goes(tt.way)
			})
		})
	}
}

func (c *crowd) overview() *overview {
	c.client.overviews.mu.Lock()
	defer c.client.overviews.mu.Unlock()
	return c.client.overviews.all[scope{}]
}

func (c *crowd) goes(want way) {
	c.t.Helper()
	if _, got, _ := c.overview().choose(); got != want {
		c.t.Errorf("the overview goes way %d, want %d", got, want)
	}
}

// soon is how long a change may take in fake time, in which work takes none:
// only rates, pauses and waits do.
const soon = 300 * time.Millisecond
