package route

import (
	"testing"
)

func FuzzMatch(f *testing.F) {
	tab := table(f,
		" /", " /a", " /a/b", " /admin", " /%ff", "a.b /x", "a.b /x/y/z", "*.b /x/y", "*.a.b /", "*.c /only", "[::1] /")
	partial := table(f, "a.b /a/b", "*.b /b", " /c")
	for _, seed := range [][2]string{
		{"a.b", "/x/y/z"}, {"A.B:80", "/x/./y//z/.."}, {"c.a.b.", "/a/..%2fadmin"}, {"[::1]:80", "/..;/admin"}, {"", `/a\..\%61;x/b?c`},
		{"x.c", "/%"}, {"x.b", "/%ff/%2"}, {":", "*"}, {"]:[", ""}, {"a.b:x]", "/%2e%2e%5c%3b"},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, host, path []byte) {
		for _, tab := range []*Table{tab, partial} {
			got, want := tab.Match(host, path), naiveMatch(tab, string(host), string(path))
			if (got == nil) != (want == nil) || got != nil && *got != *want {
				t.Errorf("host %q path %q: got %+v, want %+v", host, path, got, want)
			}
		}
	})
}

// Whatever NewTable accepts matches itself.
func FuzzNewTable(f *testing.F) {
	for _, seed := range [][2]string{
		{"", "/"}, {"a.B.", "/x/%41/"}, {"[2001:DB8::1]", "/ä"}, {"*.x", "/.."}, {"-", "/%25"}, {"a:b", "x"}, {"*", "/;"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, host, path string) {
		tab, err := NewTable([]Route{{host, path, &Service{}}})
		if err != nil {
			return
		}
		r := tab.Routes()[0]
		request := r.Host
		if len(request) > 0 && request[0] == '*' {
			request = "x" + request[1:]
			if len(request) > maxHostLen {
				return
			}
		}
		if tab.Match([]byte(request), []byte(path)) == nil {
			t.Errorf("host %q, path %q: does not match %+v", request, path, r)
		}
	})
}
