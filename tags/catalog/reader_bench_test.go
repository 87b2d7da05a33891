package catalog

import (
	"fmt"
	"testing"

	"sluice/config"
	"sluice/discovery"
	"sluice/route"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// BenchmarkTags changes one tag among 10,000: 1,000 services of 10 instances with a tag each. It
// measures from the set of the service to the route table.
func BenchmarkTags(b *testing.B) {
	c := configtest.Must(b, "catalog: { tags: [fabio] }")
	const services, instances = 1000, 10
	all := NewReader(func() {})
	all.Start(c)
	set := func(service, round int) (list []discovery.Instance) {
		name := fmt.Sprintf("s%d", service)
		for i := range instances {
			list = append(list, discovery.Instance{
				Service: name, ID: fmt.Sprintf("%s-%d", name, i), Node: "n", Address: "192.0.2.1", Port: 1000 + i, Weight: 1,
				Tags: []string{"v1", fmt.Sprintf("urlprefix-%s.example.com/%d", name, round)},
			})
		}
		return list
	}
	found := make([]string, services)
	pool := func(discovery.Set, bool) {}
	for s := range services {
		found[s] = fmt.Sprintf("s%d", s)
	}
	fragment, _ := c.Found(found, "")
	gates := make([]*Gate, services)
	for s := range services {
		gates[s] = all.Gate(found[s], fragment.Services[found[s]], pool)
		gates[s].Pass(discovery.Set{Instances: set(s, 0)})
	}
	apply := func(b *testing.B) {
		asked := all.Ask(c, fragment)
		merged, conflicts := config.Merge(c, fragment, asked.Routes)
		targets := make([]route.Route, len(merged.Routes))
		for i, r := range merged.Routes {
			targets[i] = r.Target()
			targets[i].Service = &route.Service{Name: r.Service}
		}
		_, err := route.NewTable(targets)
		verify.Require(b, err == nil && len(targets) == services && len(conflicts) == 0, "%d routes, want %d: %v %v", len(targets), services, conflicts, err)
		all.Applied(asked)
	}
	apply(b)
	b.Run("one service changes", func(b *testing.B) {
		round := 0
		for b.Loop() {
			round++
			gates[7].Pass(discovery.Set{Instances: set(7, round)})
			apply(b)
		}
	})
	b.Run("all services change", func(b *testing.B) {
		round := 0
		for b.Loop() {
			round++
			for s := range services {
				gates[s].Pass(discovery.Set{Instances: set(s, -round)})
			}
			apply(b)
		}
	})
	b.Run("instances change, tags do not", func(b *testing.B) {
		one := set(7, 0)
		gates[7].Pass(discovery.Set{Instances: one})
		apply(b)
		for b.Loop() {
			one[0].Weight++
			gates[7].Pass(discovery.Set{Instances: one})
		}
	})
}
