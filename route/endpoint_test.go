package route

import (
	"strings"
	"testing"

	"sluice/test/verify"
)

// TestEndpoints says which requests are alike.
func TestEndpoints(t *testing.T) {
	table := verify.Result(NewTable([]Route{{Path: "/", Service: &Service{}}, {Path: "/slow", Service: &Service{}}})).Must(t)
	routes := table.Routes()
	number := func(path string) uint32 { return routes[0].Endpoint(1, []byte(path), false) }
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"/", "", true},
		{"/a", "/b", false},
		{"/a/b", "/b/a", false},
		{"/a/b", "/ab", false},
		{"/a", "/a/", true},
		{"/a/", "/a", true},
		{"/a/b/c/d/e/f", "/a/b/c/d/e/f/", true},
		{"/a/b/c/d/e/f/", "/a/b/c/d/e/f/g", true},
		{"/users/17", "/users/4711", true},
		{"/users/17", "/users/0b5c-9", true},
		{"/users/17/orders", "/users/17/invoices", false},
		{"/users/17/orders", "/users/4711/orders", true},
		{"/users/17", "/orders/17", false},
		{"/api/v1/tenants/17/orders", "/api/v2/tenants/4/orders", true},
		{"/a/b/c/d/e/f/g", "/a/b/c/d/e/f/h", true},
		{"/" + strings.Repeat("x", 200), "/" + strings.Repeat("x", 300), true},
	} {
		verify.Equal(t, number(c.a) == number(c.b), c.same, "%s and %s are alike", c.a, c.b)
		if path := strings.TrimPrefix(c.a, "/"); isKind([]byte(path)) {
			verify.Equal(t, string(kind(nil, []byte(path))), strings.TrimSuffix(path, "/"), "the kind of %s", c.a)
		}
	}
	verify.That(t, number("/a") != routes[0].Endpoint(2, []byte("/a"), false), "methods are alike")
	verify.That(t, number("/a") != routes[1].Endpoint(1, []byte("/a"), false), "routes are alike")
	call := func(path string) uint32 { return routes[0].Endpoint(3, []byte(path), true) }
	verify.That(t, call("/v1.A/Get1") != call("/v1.A/Get2") && call("/v1.A/Get") != call("/v2.A/Get"), "methods of gRPC are alike")

	again := verify.Result(NewTable([]Route{{Path: "/", Service: &Service{}}})).Must(t).Routes()
	verify.Equal(t, again[0].Endpoint(1, []byte("/a"), false), routes[1].Endpoint(1, []byte("/a"), false), "the number of the same route in the next table")
	path := []byte("/api/v1/tenants/17/orders")
	verify.Equal(t, testing.AllocsPerRun(100, func() { routes[0].Endpoint(1, path, false) }), 0, "allocations")
}
