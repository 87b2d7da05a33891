package consul

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// bare returns an instance without checks.
func (c *crowd) bare(n int, id string) *api.ServiceEntry {
	e := c.instance(n, id)
	e.Checks = nil
	return e
}

// What no check shows is found by the lists of services, and not by asking for
// every service.
func TestChangeThatNoCheckShowsCostsFewQueries(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(c *crowd)
		want   string
	}{
		{"an instance without checks comes", func(c *crowd) {
			c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.bare(7, "c")) })
		}, "service-07: a-7 b-7 c-7"},
		{"an instance gets another weight", func(c *crowd) {
			c.replace("service-07", func(e *api.ServiceEntry) { e.Service.Weights.Passing = 7 })
		}, "service-07: a-7 b-7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ways(t, func(t *testing.T, c *crowd) {
				got := c.spent(10*time.Second, func() {
					tt.change(c)
					c.expect(tt.name, soon, tt.want)
				})
				sum := 0
				for _, n := range got {
					sum += n
				}
				// By names on two nodes: the names, two lists of checks, four of
				// services, the service.
				if sum > 10 || got["health"] != 1 {
					t.Errorf("costs %v", got)
				}
			})
		})
	}
}

func TestInstanceWithoutChecksThatGoesIsFound(t *testing.T) {
	ways(t, func(t *testing.T, c *crowd) {
		c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.bare(7, "c")) })
		c.expect("comes", soon, "service-07: a-7 b-7 c-7")
		c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return e[:2] })
		c.expect("goes", 2*time.Second, "service-07: a-7 b-7")
	})
}

// Where instances without checks change often, they are watched themselves.
func TestFleetWithoutChecksIsWatchedByNodes(t *testing.T) {
	inCrowd(t, 2, func(t *testing.T, c *crowd) {
		change := func(n int) {
			c.edit(crowdService(n), func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.bare(n, "c")) })
		}
		begin := len(c.Requests())
		for n := range bareLimit + 1 {
			c.goes(byChecks)
			change(20 + n)
			time.Sleep(2 * time.Second)
		}
		c.goes(byNodes)
		asked := 0
		for _, r := range c.Requests()[begin:] {
			if r.Service != "" {
				asked++
			}
		}
		if most := crowdServices + bareLimit + 1; asked > most {
			t.Errorf("services were asked for %d times: want at most %d, once each to begin another way", asked, most)
		}
		c.sets = nil
		got := c.spent(10*time.Second, func() {
			change(7)
			c.expect("an instance without checks comes", 20*time.Millisecond, "service-07: a-7 b-7 c-7")
		})
		// Both halves of the node answer.
		if got["health"] != 1 || got["without news"] > 0 || len(got) > 2 {
			t.Errorf("costs %v", got)
		}

		time.Sleep(noiseTime)
		change(30)
		time.Sleep(2 * time.Second)
		c.goes(byChecks)
	})
}

// A fleet that has no checks to begin with is known from its first answers.
func TestFleetThatNeverHadChecksIsWatchedByNodes(t *testing.T) {
	inCrowd(t, 2, func(t *testing.T, c *crowd) {
		c.goes(byChecks)
		all := make(map[string][]*api.ServiceEntry)
		for n := range crowdServices {
			all[crowdService(n)] = []*api.ServiceEntry{c.bare(n, "a"), c.bare(n, "b")}
		}
		c.entries = all
		c.SetAll(all)
		time.Sleep(30 * time.Second)
		c.goes(byNodes)
		c.sets = nil
		c.edit("service-07", func(e []*api.ServiceEntry) []*api.ServiceEntry { return append(e, c.bare(7, "c")) })
		c.expect("an instance without checks comes", 20*time.Millisecond, "service-07: a-7 b-7 c-7")
		time.Sleep(2 * noiseTime)
		c.goes(byNodes)
	})
}
