//go:build !race

package route

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/test/verify"
)

// A shape is a kind of table of 1,000 routes, and a request for its middle one.
type shape struct {
	name       string
	route      func(i int) Route
	host, path string
	request    testRequest
}

var shapes = []shape{
	{"paths of one host", func(i int) Route {
		return Route{Host: "a.example.com", Path: fmt.Sprintf("/svc%d/api", i)}
	}, "a.example.com", "/svc500/api/items/4711?x=y", testRequest{}},
	{"wildcards", func(i int) Route {
		return Route{Host: fmt.Sprintf("*.zone%d.example.com", i/10), Path: fmt.Sprintf("/api/v%d", i%10)}
	}, "a.zone50.example.com:80", "/x/../api/v0/items/4711?x=y", testRequest{}},
	{"string prefixes", func(i int) Route {
		return Route{Path: fmt.Sprintf("/svc%d-", i), PathMatch: PathStringPrefix}
	}, "a.example.com", "/svc500-items/4711?x=y", testRequest{}},
	{"exact", func(i int) Route {
		return Route{Host: fmt.Sprintf("h%d.example.com", i/100), Path: fmt.Sprintf("/a/%d", i%100), PathMatch: PathExact}
	}, "h5.example.com", "/a/0", testRequest{}},
	{"regexps", func(i int) Route {
		return Route{Path: fmt.Sprintf("^/svc%d/[0-9]+$", i), PathMatch: PathRegexp}
	}, "a.example.com", "/svc500/4711?x=y", testRequest{}},
	{"host regexps", func(i int) Route {
		return Route{HostRegexp: fmt.Sprintf(`^[a-z]+\.zone%d\.example\.com$`, i), Path: "/"}
	}, "a.zone500.example.com:80", "/items/4711", testRequest{}},
	{"conditions", func(i int) Route {
		r := Route{Host: "a.example.com", Path: fmt.Sprintf("/svc%d", i/3)}
		switch i % 3 {
		case 0:
			r.Conditions = Conditions{Methods: []string{"POST"}, Headers: []Value{{Name: "x-canary", Text: "1"}}}
		case 1:
			r.Conditions = Conditions{Queries: []Value{{Name: "v", Text: "2"}}, Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		}
		return r
	}, "a.example.com", "/svc166/items/4711?x=y", testRequest{
		method: "POST", query: "x=y&v=2", client: netip.MustParseAddr("10.1.2.3"),
		fields: []string{"user-agent: x", "accept: */*", "x-other: 1", "x-canary: 1"},
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

func TestMatchOfEveryShapeDoesNotAllocate(t *testing.T) {
	for _, s := range shapes {
		routes := make([]Route, 1000)
		for i := range routes {
			routes[i] = s.route(i)
			routes[i].Service = &Service{}
		}
		tab, host, path := newTable(t, routes), []byte(s.host), []byte(s.path)
		steady := newSteadyRequest(&s.request)
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
