package route

import (
	"fmt"
	"testing"
)

// largeTable has n routes: one host in ten is a wildcard, each host has ten
// paths.
func largeTable(tb testing.TB, n int) *Table {
	var routes []Route
	svc := &Service{Name: "s"}
	for i := range n {
		host := fmt.Sprintf("host%d.example.com", i/10)
		if i/10%10 == 9 {
			host = fmt.Sprintf("*.zone%d.example.com", i/10)
		}
		routes = append(routes, Route{host, fmt.Sprintf("/api/v%d", i%10), svc})
	}
	tab, err := NewTable(routes)
	if err != nil {
		tb.Fatal(err)
	}
	return tab
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		for _, request := range []struct{ name, host, path string }{
			{"exact", "host0.example.com", "/api/v0/items/4711?fields=name,price"},
			{"wildcard", "a.zone9.example.com:8080", "/api/v3/items/4711?fields=name,price"},
			{"encoded", "Host0.Example.com", "/x/../api/%760/items/4711?fields=name,price"},
			{"none", "other.example.org", "/api/v0/items/4711"},
		} {
			b.Run(fmt.Sprintf("routes=%d/%s", n, request.name), func(b *testing.B) {
				tab := largeTable(b, n)
				host, path := []byte(request.host), []byte(request.path)
				b.ReportAllocs()
				for b.Loop() {
					tab.Match(host, path)
				}
			})
		}
	}
}

func BenchmarkNewTable(b *testing.B) {
	routes := largeTable(b, 10_000).Routes()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewTable(routes); err != nil {
			b.Fatal(err)
		}
	}
}
