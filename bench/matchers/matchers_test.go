package matchers

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	fabio "github.com/fabiolb/fabio/route"
	"github.com/traefik/traefik/v3/pkg/middlewares/requestdecorator"
	traefik "github.com/traefik/traefik/v3/pkg/muxer/http"

	"sluice/route"
)

// pathsPerHost is the number of routes of a host. Each is a prefix of the path.
const pathsPerHost = 10

// place returns host and path of a route.
func place(i int) (host, path string) {
	return fmt.Sprintf("host%d.example.com", i/pathsPerHost), fmt.Sprintf("/api/v%d/", i%pathsPerHost)
}

// service returns the name of the service of a route.
func service(i int) string { return fmt.Sprint("service", i) }

// path returns the path of a request for a route.
func path(i int) string {
	_, prefix := place(i)
	return prefix + "items/4711"
}

// matchers are the tables. build makes one of n routes. The function that it returns prepares a
// request for route i, and returns what finds the name of the service for it.
var matchers = []struct {
	name  string
	build func(tb testing.TB, n int) func(i int) (find func() string)
}{
	{"sluice", buildSluice},
	{"fabio", func(tb testing.TB, n int) func(int) func() string { return buildFabio(tb, n, false) }},
	{"fabio-without-globs", func(tb testing.TB, n int) func(int) func() string { return buildFabio(tb, n, true) }},
	{"traefik", buildTraefik},
}

func buildSluice(tb testing.TB, n int) func(int) func() string {
	routes := make([]route.Route, n)
	for i := range routes {
		host, prefix := place(i)
		routes[i] = route.Route{Host: host, Path: prefix, PathMatch: route.PathStringPrefix, Service: &route.Service{Name: service(i)}}
	}
	table, err := route.NewTable(routes)
	if err != nil {
		tb.Fatal(err)
	}
	return func(i int) func() string {
		name, _ := place(i)
		host, target := []byte(name), []byte(path(i))
		return func() string {
			found := table.Match(host, target, nil)
			if found == nil {
				return ""
			}
			return found.Service.Name
		}
	}
}

// buildFabio has the defaults of fabio, but for glob.matching.disabled. Its cache of patterns has
// 1,000 entries.
func buildFabio(tb testing.TB, n int, withoutGlobs bool) func(int) func() string {
	var commands bytes.Buffer
	for i := range n {
		host, prefix := place(i)
		fmt.Fprintf(&commands, "route add %s %s%s http://192.0.2.1:80/\n", service(i), host, prefix)
	}
	table, err := fabio.NewTable(&commands)
	if err != nil {
		tb.Fatal(err)
	}
	cache := fabio.NewGlobCache(1000)
	return func(i int) func() string {
		request := newRequest(i)
		return func() string {
			found := table.Lookup(request, "", fabio.Picker["rnd"], fabio.Matcher["prefix"], cache, withoutGlobs)
			if found == nil {
				return ""
			}
			return found.Service
		}
	}
}

// buildTraefik leaves out what Traefik does before its muxer, which is the same for any number of
// routes.
func buildTraefik(tb testing.TB, n int) func(int) func() string {
	parser, err := traefik.NewSyntaxParser()
	if err != nil {
		tb.Fatal(err)
	}
	muxer := traefik.NewMuxer(parser)
	var found string
	for i := range n {
		host, prefix := place(i)
		name := service(i)
		rule := fmt.Sprintf("Host(`%s`) && PathPrefix(`%s`)", host, prefix)
		err := muxer.AddRoute(rule, "v3", traefik.GetRulePriority(rule), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { found = name }))
		if err != nil {
			tb.Fatal(err)
		}
	}
	return func(i int) func() string {
		var request *http.Request
		requestdecorator.New(nil).ServeHTTP(nil, newRequest(i), func(_ http.ResponseWriter, r *http.Request) { request = r })
		return func() string {
			found = ""
			muxer.ServeHTTP(nil, request)
			return found
		}
	}
}

func newRequest(i int) *http.Request {
	host, _ := place(i)
	request := httptest.NewRequest(http.MethodGet, path(i), nil)
	request.Host = host
	return request
}

// The requests go to the first, the middle and the last route in turn.
func BenchmarkMatch(b *testing.B) {
	for _, m := range matchers {
		for _, n := range []int{10, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/routes=%d", m.name, n), func(b *testing.B) {
				prepare := m.build(b, n)
				var finds []func() string
				for _, i := range []int{0, n / 2, n - 1} {
					find := prepare(i)
					if got := find(); got != service(i) {
						b.Fatalf("route %d: found %q", i, got)
					}
					finds = append(finds, find)
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					finds[i%len(finds)]()
				}
			})
		}
	}
}
