package route

import (
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/test/verify"
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
			got, want := tab.Match(host, path, nil), naiveMatch(tab, string(host), string(path), nil)
			verify.Equal(t, got, want, "host %q path %q", host, path)
		}
	})
}

// The fuzzer chooses a request and the seed of a table with every kind of route.
func FuzzMatchEverything(f *testing.F) {
	f.Add(uint64(1), "a.b", "/a/..%2fab;x/1?v=1", "GET", "v=1&w=%32", "c=1; d=2", "1")
	f.Add(uint64(2), "X.A.B:80", "/abc/", "POST", "a+b=1", "d=", "")
	f.Add(uint64(3), "[::1]", `/a\b/%ff`, "HEAD", "%76=12&=", "c", "12")
	f.Fuzz(func(t *testing.T, seed uint64, host, path, method, query, cookie, header string) {
		s := source{rand.New(rand.NewPCG(seed, 3))}
		table := s.table(t, 1+s.IntN(20))
		r := s.request()
		r.method, r.query = method, query
		r.fields = append(r.fields, "cookie: "+cookie, "x-a: "+header)
		want := naiveMatch(table, host, path, r)
		verify.Equal(t, table.Match([]byte(host), []byte(path), r), want, "host %q path %q %+v", host, path, r)
		checkExplanation(t, table, host, path, r, want)
	})
}

// Every match of an expression begins and ends with its literals.
func FuzzLiteralEnds(f *testing.F) {
	f.Add("^/a(b|c)d?$", "/abd")
	f.Add(`^(x)y[a-z]*\.(b)$`, "xy.b")
	f.Add("(?i)^A|^/b$", "a")
	f.Add("^/\ufffd.$", "/\xffa")
	f.Fuzz(func(t *testing.T, expression, text string) {
		re, err := compileRegexp(expression, false)
		if err != nil || !re.MatchString(text) {
			return
		}
		prefix, suffix := literalEnds(expression)
		verify.That(t, strings.HasPrefix(text, prefix) && strings.HasSuffix(text, suffix), "%q matches %q, and has the literals %q and %q", expression, text, prefix, suffix)
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
		tab, err := NewTable([]Route{{Host: host, Path: path, Service: &Service{}}})
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
		verify.That(t, tab.Match([]byte(request), []byte(path), nil) != nil, "host %q, path %q: does not match %+v", request, path, r)
	})
}
