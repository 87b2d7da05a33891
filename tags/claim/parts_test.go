package claim

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/test/verify"
)

// A request may have to try all regular expressions of a service: together they are limited, and an instance that asks for too
// many harms itself only.
func TestRegularExpressionsOfAServiceAreLimited(t *testing.T) {
	expressions := func(first, n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf(`sluice.route=h.example.com/(%d|[a-z]*)*%s match=regexp`, first+i, strings.Repeat("a?", 500)))
		}
		return list
	}
	old, large := instance("star", "a", 1, expressions(0, 5)...), instance("star", "b", 2, expressions(100, 200)...)
	paths := func(r Result) (n int) {
		for _, route := range r.Routes {
			if route.Match == "regexp" {
				n++
			}
		}
		return n
	}
	verify.Equal(t, paths(Resolve([]Service{service("star", large)}, allRules(), nil)), 0, "routes of an instance with 200 large expressions")
	result := Resolve([]Service{service("star", large, old), service("sun", instance("sun", "c", 3, expressions(300, 5)...))}, allRules(), nil)
	verify.Equal(t, paths(result), 10, "routes of others")
	verify.That(t, slices.ContainsFunc(result.Problems, func(p Problem) bool {
		return p.Kind == KindRefused && slices.Equal(p.IDs(), []string{"b"}) && strings.Contains(p.Reason, "the limit is 10000")
	}), "no problem says why: %+v", result.Problems)
}

// Services with the same host cannot slow all requests to it together, and none takes away a route that another one has.
func TestRegularExpressionsOfAHostAreLimited(t *testing.T) {
	expressions := func(name string) Service {
		var list []string
		for i := range 6 {
			list = append(list, fmt.Sprintf(`sluice.route=h.example.com/%s%d%s match=regexp`, name, i, strings.Repeat("a?", 800)))
		}
		return service(name, instance(name, name, 1, list...))
	}
	var services []Service
	for _, name := range []string{"b", "c", "d", "e", "f"} {
		services = append(services, expressions(name))
	}
	before := Resolve(services, allRules(), nil)
	verify.Equal(t, len(before.Routes), 30, "routes of five services")
	elsewhere := service("g", instance("g", "g", 1, `sluice.route=g.example.com/[a-z]+$ match=regexp`, "sluice.route=h.example.com/g"))
	after := Resolve(append(services, expressions("a"), elsewhere), allRules(), before.Holders)
	used := make(map[string]int)
	for _, route := range after.Routes {
		used[route.Service]++
	}
	verify.That(t, used["b"] == 6 && used["f"] == 6, "routes that were in use: %v", used)
	verify.That(t, used["a"] < 6 && used["g"] == 2, "routes of new services: %v", used)
	verify.That(t, slices.ContainsFunc(after.Problems, func(p Problem) bool {
		return p.Kind == KindRefused && p.Service == "a" && strings.Contains(p.Reason, "at h.example.com have") && strings.Contains(p.Reason, "the limit is 50000")
	}), "no problem says why: %+v", after.Problems)
}
