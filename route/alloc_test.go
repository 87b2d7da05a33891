//go:build !race

package route

import (
	"sluice/test/verify"
	"testing"
)

// That holds for conditions, string prefixes and regular expressions too.
func TestMatchOfEveryShapeDoesNotAllocate(t *testing.T) {
	for _, s := range shapes {
		tab := s.table(t, 1000)
		hostText, pathText, r := s.request(1000)
		host, path := []byte(hostText), []byte(pathText)
		steady := newSteadyRequest(r)
		verify.That(t, tab.Match(host, path, steady) != nil, "%s: no route", s.name)
		verify.Equal(t, testing.AllocsPerRun(100, func() { tab.Match(host, path, steady) }), 0, "%s: allocations", s.name)
	}
}

func TestTheChoiceOfABranchDoesNotAllocate(t *testing.T) {
	chain := verify.Result(NewChain([]Branch{
		{Route: Route{Path: "/x", PathMatch: PathExact}, IgnoreCase: true},
		{Route: Route{Path: "^/a.*z$", PathMatch: PathRegexp}},
		{Route: Route{Path: "/a", PathMatch: PathStringPrefix, Conditions: Conditions{
			Headers: []Value{{Name: "x-a", Kind: ValueMatches, Text: "^1"}}, Queries: []Value{{Name: "v", Text: "1"}},
		}}},
	})).Must(t)
	router := &Router{Chain: chain, Ways: make([]Route, 3)}
	path, steady := []byte("/ab/%61"), newSteadyRequest(&testRequest{method: "GET", query: "v=%31", fields: []string{"x-a: 12"}})
	verify.Equal(t, router.Choose(path, steady), 2, "the branch")
	verify.Equal(t, testing.AllocsPerRun(100, func() { router.Choose(path, steady) }), 0, "allocations")
}
