package gateway

import (
	"fmt"
	"testing"

	"sluice/config"
	"sluice/discovery"
	"sluice/route"
	"sluice/tags/claim"
)

// BenchmarkTags changes one tag among 10,000: 1,000 services of 10 instances with a tag each. It
// measures from the set of the service to the route table.
func BenchmarkTags(b *testing.B) {
	c, err := config.Parse("sluice.yaml", []byte("catalog: { tags: [fabio] }"))
	if err != nil {
		b.Fatal(err)
	}
	const services, instances = 1000, 10
	all := newTags(func() {})
	all.use(claim.NewReader(c))
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
	found := make([]config.FoundService, services)
	pool := func([]discovery.Instance) {}
	for s := range services {
		found[s].Name = fmt.Sprintf("s%d", s)
		all.take(found[s].Name, set(s, 0), pool)
	}
	fragment, _ := c.Found(found, "")
	configured := fragment.Services
	apply := func(b *testing.B) {
		asked, profiles := all.snapshot(configured, claim.NewReader(c))
		all.resolved(all.resolve(asked, c))
		routes := config.Fragment{Origin: "tags"}
		for _, r := range all.latest.Routes {
			routes.Routes = append(routes.Routes, r.Route)
		}
		merged, conflicts := config.Merge(c, fragment, routes)
		targets := make([]route.Route, len(merged.Routes))
		for i, r := range merged.Routes {
			targets[i] = r.Target()
			targets[i].Service = &route.Service{Name: r.Service}
		}
		if _, err := route.NewTable(targets); err != nil || len(targets) != services || len(conflicts) > 0 {
			b.Fatalf("%d routes, want %d: %v %v", len(targets), services, conflicts, err)
		}
		all.applied(claim.NewReader(c), profiles)
	}
	apply(b)
	b.Run("one service changes", func(b *testing.B) {
		round := 0
		for b.Loop() {
			round++
			all.take("s7", set(7, round), pool)
			apply(b)
		}
	})
	b.Run("all services change", func(b *testing.B) {
		round := 0
		for b.Loop() {
			round++
			for s := range services {
				all.take(found[s].Name, set(s, -round), pool)
			}
			apply(b)
		}
	})
	b.Run("instances change, tags do not", func(b *testing.B) {
		one := set(7, 0)
		all.take("s7", one, pool)
		apply(b)
		for b.Loop() {
			one[0].Weight++
			all.take("s7", one, pool)
		}
	})
}
