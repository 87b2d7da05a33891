package route

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"sluice/test/verify"
)

// testRequest is a Request of fixed values. A field is "name: value".
type testRequest struct {
	method, query, scheme, listener string
	client                          netip.Addr
	fields                          []string
	certificate                     *Certificate
	steps                           Steps
}

func (r *testRequest) Method() []byte     { return []byte(r.method) }
func (r *testRequest) Query() []byte      { return []byte(r.query) }
func (r *testRequest) Scheme() string     { return r.scheme }
func (r *testRequest) Client() netip.Addr { return r.client }
func (r *testRequest) Listener() string   { return r.listener }

func (r *testRequest) Steps() *Steps { return &r.steps }

func (r *testRequest) Certificate() *Certificate { return r.certificate }

func (r *testRequest) Field(name string, from int) ([]byte, int) {
	for i := from; i < len(r.fields); i++ {
		if field, value, _ := strings.Cut(r.fields[i], ": "); field == name {
			return []byte(value), i + 1
		}
	}
	return nil, -1
}

// source makes routes and requests from a small vocabulary, so that they often meet.
type source struct{ *rand.Rand }

func (s source) one(of ...string) string { return of[s.IntN(len(of))] }

// chance is true in one of n cases.
func (s source) chance(n int) bool { return s.IntN(n) == 0 }

func (s source) host() string {
	return s.one("a.b", "x.a.b", "b", "x.b", "y.x.b", "[::1]", "xa.b", "")
}

func (s source) hostPattern() string {
	return s.one("a.b", "x.a.b", "*.b", "*.a.b", "b", "[::1]", "", "")
}

func (s source) hostRegexp() string {
	return s.one(`^x\.`, `\.b$`, `^.*a\.b$`, `.`, `^[a-z]+\.b$`, `^(x|y)(\.a\.b)$`, `^xa\.b$`, `::`, `(?i)\.A\.B$`)
}

func (s source) path() string {
	var b strings.Builder
	for range s.IntN(6) {
		b.WriteString("/" + s.one("a", "ab", "abc", "b", "1", "12", "", ".", "..", "%61", "%2e%2e", "a;x", `a\b`, "%2fb", "é", "%ff", "%", "x.y"))
	}
	if s.chance(4) {
		b.WriteString("/")
	}
	return b.String()
}

func (s source) pathPattern() Path {
	switch s.IntN(8) {
	case 0, 1:
		return Path{PathStringPrefix, "/" + s.one("a", "ab", "a/b", "1", "a/", "", "a/1", "%61b", ".", "é", "%ff", "b/a")}
	case 2:
		return Path{PathRegexp, s.one(`^/a`, `^/a/`, `^/a/b$`, `^/ab?/[0-9]+$`, `/b$`, `/$`, `^/$`, `^/(a|b)/1`, `^/(ab)c`, `(?i)^/A`, "^/\ufffd", `b`, `^a`, `^//`, `^/a/b/`)}
	}
	return Path{PathMatch(s.one("", "prefix", "exact", "exact")), "/" + s.one("", "a", "ab", "a/b", "abc", "1/12", "a/b/", "%61", "é", "%ff", "b", "x.y")}
}

func (s source) value(names ...string) Value {
	return ParseValue(s.one(names...), s.one("1", "2", "*", "~^[0-9]$", "~1", "", "a b"))
}

func (s source) certificateName() CertificateName {
	n, _ := ParseCertificateName(s.one("any", "cn=web", "cn=Web", "dns=A.example", "dns=b.example", "uri=spiffe://a/web", "sha256="+strings.Repeat("Ab", 32)))
	return n
}

// certificate returns the certificate of a client, or nil.
func (s source) certificate() *Certificate {
	if s.chance(2) {
		return nil
	}
	c := new(Certificate)
	for range s.IntN(3) {
		c.Add(s.certificateName())
	}
	return c
}

func (s source) conditions(depth int) (c Conditions) {
	if s.chance(3) {
		c.Methods = []string{s.one("GET", "POST", "PUT"), s.one("GET", "HEAD")}
	}
	if s.chance(4) {
		c.Headers = []Value{s.value("X-A", "x-b")}
	}
	if s.chance(5) {
		c.Queries = []Value{s.value("v", "w", "a b"), s.value("v")}
	}
	if s.chance(5) {
		c.Cookies = []Value{s.value("c", "d")}
	}
	if s.chance(8) {
		c.Scheme = s.one("http", "https")
	}
	if s.chance(8) {
		c.Clients = []netip.Prefix{netip.MustParsePrefix(s.one("10.0.0.0/8", "0.0.0.0/0", "10.1.2.3/32", "::/0", "fd00::/64")), netip.MustParsePrefix("10.1.0.0/16")}
	}
	if s.chance(8) {
		c.Certificates = []CertificateName{s.certificateName(), s.certificateName()}
	}
	if s.chance(10) {
		c.Hosts = []string{s.hostPattern()}
	}
	if s.chance(10) {
		c.HostRegexps = []string{s.hostRegexp()}
	}
	if s.chance(8) {
		p := s.pathPattern()
		c.Paths = []Path{p, {PathExact, "/a"}}
	}
	if depth < 2 && s.chance(4) {
		not := s.conditions(depth + 1)
		c.Not = &not
	}
	if depth < 2 && s.chance(6) {
		c.Any = []Conditions{s.conditions(depth + 1), s.conditions(depth + 1)}
	}
	return c
}

func (s source) route() Route {
	p := s.pathPattern()
	r := Route{Path: p.Text, PathMatch: p.Match, Service: &Service{}, Class: Class(s.IntN(3))}
	if r.Host = s.hostPattern(); s.chance(6) {
		r.Host, r.HostRegexp = "", s.hostRegexp()
	}
	if s.chance(2) {
		r.Conditions = s.conditions(0)
	}
	if s.chance(8) {
		r.Listeners = []string{s.one("web", "internal")}
	}
	if s.chance(3) {
		r.Priority = s.IntN(5) - 2
	}
	return r
}

// table returns a table of up to n routes.
func (s source) table(t testing.TB, n int) *Table {
	var routes []Route
	seen := make(map[string]bool)
	for range n {
		r := s.route()
		checked, err := Check(r)
		verify.Require(t, err == nil, "%+v: %v", r, err)
		if !seen[checked.Key] {
			seen[checked.Key] = true
			routes = append(routes, r)
		}
	}
	return verify.Result(NewTable(routes)).Must(t)
}

func (s source) request() *testRequest {
	r := &testRequest{
		method: s.one("GET", "HEAD", "POST"), scheme: s.one("http", "https"), listener: s.one("web", "internal"),
		client:      netip.MustParseAddr(s.one("10.1.2.3", "10.2.3.4", "192.0.2.1", "fd00::1", "2001:db8::1")),
		query:       s.one("", "v=1", "v=2&w=1", "v=%31", "a+b=1", "%76=12", "v", "&v=&", "v=1&v=x", "v=a+b", "w=a%20b"),
		certificate: s.certificate(),
	}
	for range s.IntN(4) {
		r.fields = append(r.fields, s.one("x-a: 1", "x-a: 12", "x-b: 2", "x-a: ", "cookie: c=1; d=2", "cookie: d=1;c=;c=1", "cookie: c"))
	}
	return r
}

func TestMatchIsTheFirstRouteThatFits(t *testing.T) {
	matched := 0
	for seed := range uint64(200) {
		s := source{rand.New(rand.NewPCG(seed, 1))}
		table := s.table(t, 1+s.IntN(30))
		for range 60 {
			host, path, r := s.host(), s.path(), s.request()
			got, want := table.Match([]byte(host), []byte(path), r), naiveMatch(table, host, path, r)
			verify.Require(t, got == want, "seed %d, host %q, path %q, %+v:\ngot  %+v\nwant %+v", seed, host, path, r, got, want)
			if want != nil {
				matched++
			}
			checkExplanation(t, table, host, path, r, want)
		}
	}
	verify.That(t, matched >= 3_000, "only %d of 12,000 requests have a route", matched)
}

// checkExplanation compares Explain with the naive match of each route alone.
func checkExplanation(t *testing.T, table *Table, host, path string, r Request, want *Route) {
	t.Helper()
	x := table.Explain([]byte(host), []byte(path), r)
	var got *Route
	for _, v := range x.Verdicts {
		if v.Outcome == OutcomeChosen {
			got = v.Route
		}
	}
	verify.Require(t, got == want, "host %q, path %q, %+v:\nexplained %+v\nwant %+v", host, path, r, got, want)
	verify.Require(t, len(x.Verdicts) == len(table.entries), "%d verdicts about %d routes", len(x.Verdicts), len(table.entries))
	for i, v := range x.Verdicts {
		alone := Table{entries: table.entries[i : i+1]}
		matches := naiveMatch(&alone, host, path, r) != nil
		got := v.Outcome == OutcomeChosen || v.Outcome == OutcomeLater
		verify.Require(t, got == matches, "host %q, path %q, %+v:\nroute %+v\nis %s, but matches: %t", host, path, r, v.Route, v.Outcome, matches)
		got, want := v.Outcome == OutcomeHost, !naiveHostFits(v.Route, naiveHost(host))
		verify.Require(t, got == want, "host %q: route %+v is %s", host, v.Route, v.Outcome)
	}
}
