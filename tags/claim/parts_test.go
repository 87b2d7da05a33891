package claim

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/test/verify"
)

// A request may have to try all regular expressions of a service: together they are limited, and an
// instance that asks for too many harms itself only.
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
	restricted := instance("star", "b", 2, append(expressions(100, 200), "sluice.route=h.example.com/", "sluice.route=h.example.com/admin allow=10.0.0.0/8")...)
	verify.Slices(t, lines(Resolve([]Service{service("star", restricted)}, allRules(), nil)), []string{"star h.example.com/admin denies restricted"},
		"with routes without expressions")
	result := Resolve([]Service{service("star", large, old), service("sun", instance("sun", "c", 3, expressions(300, 5)...))}, allRules(), nil)
	verify.Equal(t, paths(result), 10, "routes of others")
	verify.That(t, slices.ContainsFunc(result.Problems, func(p Problem) bool {
		return p.Kind == KindRefused && slices.Equal(p.IDs(), []string{"b"}) && strings.Contains(p.Reason, "the limit is 10000")
	}), "no problem says why: %+v", result.Problems)
}
