//go:build !race

package route

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/test/verify"
)

// A shape is a kind of table, and a request for its middle route.
type shape struct {
	name    string
	route   func(i int) Route
	request func(n int) (host, path string, r *testRequest)
}

var shapes = []shape{
	{"paths of one host", func(i int) Route {
		return Route{Host: "a.example.com", Path: fmt.Sprintf("/svc%d/api", i)}
	}, func(n int) (string, string, *testRequest) {
		return "a.example.com", fmt.Sprintf("/svc%d/api/items/4711?x=y", n/2), &testRequest{}
	}},
	{"wildcards", func(i int) Route {
		return Route{Host: fmt.Sprintf("*.zone%d.example.com", i/10), Path: fmt.Sprintf("/api/v%d", i%10)}
	}, func(n int) (string, string, *testRequest) {
		return fmt.Sprintf("a.zone%d.example.com:80", n/20), fmt.Sprintf("/x/../api/v%d/items/4711?x=y", n/2%10), &testRequest{}
	}},
	{"string prefixes", func(i int) Route {
		return Route{Path: fmt.Sprintf("/svc%d-", i), PathMatch: PathStringPrefix}
	}, func(n int) (string, string, *testRequest) {
		return "a.example.com", fmt.Sprintf("/svc%d-items/4711?x=y", n/2), &testRequest{}
	}},
	{"exact", func(i int) Route {
		return Route{Host: fmt.Sprintf("h%d.example.com", i/100), Path: fmt.Sprintf("/a/%d", i%100), PathMatch: PathExact}
	}, func(n int) (string, string, *testRequest) {
		return fmt.Sprintf("h%d.example.com", n/200), fmt.Sprintf("/a/%d", n/2%100), &testRequest{}
	}},
	{"regexps", func(i int) Route {
		return Route{Path: fmt.Sprintf("^/svc%d/[0-9]+$", i), PathMatch: PathRegexp}
	}, func(n int) (string, string, *testRequest) {
		return "a.example.com", fmt.Sprintf("/svc%d/4711?x=y", n/2), &testRequest{}
	}},
	{"host regexps", func(i int) Route {
		return Route{HostRegexp: fmt.Sprintf(`^[a-z]+\.zone%d\.example\.com$`, i), Path: "/"}
	}, func(n int) (string, string, *testRequest) {
		return fmt.Sprintf("a.zone%d.example.com:80", n/2), "/items/4711", &testRequest{}
	}},
	{"conditions", func(i int) Route {
		r := Route{Host: "a.example.com", Path: fmt.Sprintf("/svc%d", i/3)}
		switch i % 3 {
		case 0:
			r.Conditions = Conditions{Methods: []string{"POST"}, Headers: []Value{{Name: "x-canary", Text: "1"}}}
		case 1:
			r.Conditions = Conditions{Queries: []Value{{Name: "v", Text: "2"}}, Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		}
		return r
	}, func(n int) (string, string, *testRequest) {
		return "a.example.com", fmt.Sprintf("/svc%d/items/4711?x=y", n/6), &testRequest{method: "POST", query: "x=y&v=2", client: netip.MustParseAddr("10.1.2.3"),
			fields: []string{"user-agent: x", "accept: */*", "x-other: 1", "x-canary: 1"}}
	}},
}

// steadyRequest is a testRequest whose methods do not allocate.
type steadyRequest struct {
	testRequest
	method, query []byte
	values        [][]byte // of fields
}

func newSteadyRequest(r *testRequest) *steadyRequest {
	s := &steadyRequest{testRequest: *r, method: []byte(r.method), query: []byte(r.query)}
	for _, field := range r.fields {
		_, value, _ := strings.Cut(field, ": ")
		s.values = append(s.values, []byte(value))
	}
	return s
}

func (s *steadyRequest) Method() []byte { return s.method }
func (s *steadyRequest) Query() []byte  { return s.query }

func (s *steadyRequest) Field(name string, from int) ([]byte, int) {
	for i := from; i < len(s.fields); i++ {
		if strings.HasPrefix(s.fields[i], name) && strings.HasPrefix(s.fields[i][len(name):], ": ") {
			return s.values[i], i + 1
		}
	}
	return nil, -1
}

func (s shape) table(tb testing.TB, n int) *Table {
	tb.Helper()
	routes := make([]Route, n)
	for i := range routes {
		routes[i] = s.route(i)
		routes[i].Service = &Service{}
	}
	return newTable(tb, routes)
}

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
