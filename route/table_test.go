package route

import (
	"regexp/syntax"
	"strings"
	"testing"

	"sluice/test/verify"
)

func newTable(tb testing.TB, routes []Route) *Table {
	tb.Helper()
	return verify.Result(NewTable(routes)).Must(tb)
}

// table builds a table from "host path" pairs. The service of each route has
// the pair as its name, so that a test can tell routes apart.
func table(t testing.TB, pairs ...string) *Table {
	t.Helper()
	var routes []Route
	for _, pair := range pairs {
		host, path, _ := strings.Cut(pair, " ")
		routes = append(routes, Route{Host: host, Path: path, Service: &Service{Name: pair}})
	}
	return verify.Result(NewTable(routes)).Must(t)
}

// match returns the name that table gave to the route found, "-" for none.
func match(tab *Table, host, path string) string {
	r := tab.Match([]byte(host), []byte(path), nil)
	if r == nil {
		return "-"
	}
	return r.Service.Name
}

// spellingsOfAdmin are paths that some server takes for /admin or a path below it.
var spellingsOfAdmin = []string{
	"/admin", "/admin/", "//admin", "///admin//", "/./admin", "/.//./admin", "/%61dmin", "/%61%64%6d%69%6E",
	"/a/../admin", "/a/..//admin", "/a/b/../../admin", "/../admin", "/../../admin",
	"/a/..%2fadmin", "/a/..%2Fadmin", "/a%2f..%2fadmin", "/a/%2e%2e/admin", "/a/%2e%2E%2fadmin", "/a/.%2e/admin", "/%2fadmin",
	`/a/..\admin`, `/a\..\admin`, "/a/..%5cadmin", "/a/..;/admin", "/a/..;x=y/admin", "/a/..%3bx/admin",
	"/admin;x=y", "/admin;x=y/z", "/;x/admin", "/.;/admin", "/x;a/../admin", "/a;x%2f..%2fadmin", "/x;a/..;b/admin;c", "/%2e/admin",
	"/none/at/all/../../../admin", "/none%2fat%2f..%2f..%2fadmin", "/admin/x/..", "/admin/./", "/admin?/../a", "/admin#/../a",
	"/" + strings.Repeat("x", 400) + "%20/../admin",
}

func TestMatchHost(t *testing.T) {
	tab := table(t,
		"star.example.com /", "STAR2.Example.com. /", "192.0.2.1 /", "[2001:DB8:0::1] /", "localhost /", "a_b.example.org /",
		"*.example.com /", "*.deep.example.com /", "*.only.test /api", " /")
	for want, hosts := range map[string][]string{
		"star.example.com /":   {"star.example.com", "STAR.example.COM", "star.example.com:8080", "star.example.com:", "star.example.com.", "star.example.com.:443"},
		"STAR2.Example.com. /": {"star2.example.com"},
		"192.0.2.1 /":          {"192.0.2.1:80"},
		"[2001:DB8:0::1] /":    {"[2001:db8::1]", "[2001:DB8::1]:8080"},
		"localhost /":          {"localhost:1"},
		"a_b.example.org /":    {"a_b.example.org"},
		"*.example.com /":      {"other.example.com", "two.labels.example.com", "deep.example.com", strings.Repeat("x", 241) + ".example.com"},
		"*.deep.example.com /": {"x.deep.example.com", "x.y.deep.example.com:1"},
		" /": {
			"[2001:db8::2]:8080", "[2001:db8::1", "example.com", ".example.com", "xexample.com", "", ":80", "...",
			"x.only.test", // the host's only path does not match
			strings.Repeat("x", 242) + ".example.com", strings.Repeat("x", 1<<16), // longer than any name
		},
	} {
		for _, host := range hosts {
			verify.Equal(t, match(tab, host, "/"), want, "host %.80q", host)
		}
	}
}

func TestNewTableNamesEveryError(t *testing.T) {
	svc := &Service{Name: "s"}
	of := func(pairs ...string) (routes []Route) { // of a host and a path each
		for _, pair := range pairs {
			host, path, _ := strings.Cut(pair, "|")
			routes = append(routes, Route{Host: host, Path: path, Service: svc})
		}
		return routes
	}
	for _, test := range []struct {
		name   string
		routes []Route
		want   []string
	}{
		{"no slash", of("|api"), []string{`route 1: path "api": must start with a slash`}},
		{"no path", of("|"), []string{`route 1: path: is missing; "/" matches every path`}},
		{"no service", []Route{{Host: "", Path: "/", Service: nil}}, []string{`route 1: service: is missing`}},
		{"several", []Route{{Host: "a b", Path: "x", Service: nil}, {Host: "", Path: "/", Service: svc}}, []string{
			`route 1: host "a b": contains ' '`,
			`route 1: path "x": must start with a slash`,
			`route 1: service: is missing`,
		}},
		{"duplicate", of("A.b|/x", "|/x", "a.B.|/%78/"), []string{
			`route 3: path "/%78/": matches the same requests as route 1 (host "a.B.")`,
		}},
		{"duplicate any host", of("|/", "|/"), []string{
			`route 2: path "/": matches the same requests as route 1 (any host)`,
		}},
		{"star alone", of("*|/"), []string{`route 1: host "*": leave the host empty to match any host`}},
		{"bad wildcard", of("*example.com|/"), []string{
			`route 1: host "*example.com": a wildcard is "*." and a domain, as in "*.example.com"`,
		}},
		{"star inside", of("a.*.com|/", "*.*.com|/"), []string{
			`route 1: host "a.*.com": a star must be the first label, as in "*.example.com"`,
			`route 2: host "*.*.com": a star must be the first label, as in "*.example.com"`,
		}},
		{"empty label", of("a..b|/", ".|/", "*.|/"), []string{
			`route 1: host "a..b": has an empty label`,
			`route 2: host ".": has an empty label`,
			`route 3: host "*.": a wildcard is "*." and a domain, as in "*.example.com"`,
		}},
		{"port", of("a:80|/", "http://a|/"), []string{
			`route 1: host "a:80": must have no port and no scheme: a route matches the host on every port`,
			`route 2: host "http://a": must have no port and no scheme: a route matches the host on every port`,
		}},
		{"IPv6", of("::1|/", "[::1|/", "[1.2.3.4]|/", "[fe80::1%eth0]|/", "[::1]:80|/"), []string{
			`route 1: host "::1": an IPv6 address must be in brackets`,
			`route 2: host "[::1": must be an IPv6 address in brackets without a port`,
			`route 3: host "[1.2.3.4]": "1.2.3.4" is not an IPv6 address`,
			`route 4: host "[fe80::1%eth0]": "fe80::1%eth0" is not an IPv6 address`,
			`route 5: host "[::1]:80": must be an IPv6 address in brackets without a port`,
		}},
		{"not ASCII", of("bücher.example|/"), []string{
			`route 1: host "bücher.example": must be written in ASCII, as clients send it ("xn--…")`,
		}},
		{"long host", of(strings.Repeat("a", 64) + ".b|/"), []string{
			`route 1: host "` + strings.Repeat("a", 64) + `.b": has a label of 64 characters, the limit is 63`,
		}},
		{"segments", of("|/a//b", "|//", "|/a/../b", "|/%2e", "|/a%2fb", "|/a;b", `|/a\b`), []string{
			`route 1: path "/a//b": has an empty segment`,
			`route 2: path "//": has an empty segment`,
			`route 3: path "/a/../b": has the segment ".."`,
			`route 4: path "/%2e": has the segment "."`,
			`route 5: path "/a%2fb": has '/' in a segment`,
			`route 6: path "/a;b": has ';' in a segment`,
			`route 7: path "/a\\b": has '\\' in a segment`,
		}},
		{"octets", of("|/a?b", "|/a b", "|/a%2", "|/a%zz/x"), []string{
			`route 1: path "/a?b": contains '?'`,
			`route 2: path "/a b": contains ' '`,
			`route 3: path "/a%2": "%2" is not a percent-encoded octet`,
			`route 4: path "/a%zz/x": "%zz" is not a percent-encoded octet`,
		}},
		{"long segment", of("|/" + strings.Repeat("a", 256)), []string{
			`route 1: path "/` + strings.Repeat("a", 256) + `": has a segment of 256 octets, the limit is 255`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			tab, err := NewTable(test.routes)
			verify.Require(t, err != nil, "got a table: %v", tab)
			verify.Slices(t, strings.Split(err.Error(), "\n"), test.want, "errors")
		})
	}
}

// Whoever may register a service may have regular expressions in its tags: of a few characters, a
// repetition makes thousands of parts, and an expression takes memory for each, and time for each
// with each octet of a path.
func TestRegexpsAreLimited(t *testing.T) {
	for expression, want := range map[string]string{
		`^/[a-z0-9]{1,63}(\.[a-z0-9]{1,63}){0,10}$`: "",
		strings.Repeat("x{1000}", 2):                "",
		strings.Repeat("x{1000}", 3):                "has 3000 parts, the limit is 2000",
		`(x?){700}`:                                 "has 2800 parts, the limit is 2000",
		`x{0,1000}y`:                                "has 2001 parts, the limit is 2000",
		`((xyz){10,100}a?){10}`:                     "has 5940 parts, the limit is 2000",
		strings.Repeat(".?", 1001):                  "has 2002 parts, the limit is 2000",
		strings.Repeat("x", 1990):                   "",
		`x{`:                                        "",
		strings.Repeat("(a)", 32):                   "",
		strings.Repeat("(a)", 33):                   "has 33 groups, the limit is 32",
		strings.Repeat("(?:a)", 33):                 "",
	} {
		for place, route := range map[string]Route{
			"path":      {Path: expression, PathMatch: PathRegexp},
			"host":      {HostRegexp: expression, Path: "/"},
			"condition": {Path: "/", Conditions: Conditions{Headers: []Value{{Name: "x", Kind: ValueMatches, Text: expression}}}},
		} {
			_, err := Check(route)
			verify.That(t, (err == nil) == (want == "") && (err == nil || strings.Contains(err.Error(), want)), "%s %.40s: %v, want %q", place, expression, err, want)
		}
		_, err := NewCORS(CORSOptions{AllowOrigins: []string{"~" + expression}})
		verify.That(t, (err == nil) == (want == ""), "the origin ~%.40s: %v", expression, err)
	}
}

// A request may have to try all expressions of a route.
func TestRegexpsOfARouteAreLimitedTogether(t *testing.T) {
	large := Path{Text: `^/a/x{1000}`, Match: PathRegexp}
	r := Route{Path: "/a", Conditions: Conditions{Any: []Conditions{{Paths: []Path{large}}, {Paths: []Path{{Text: "/b", Match: PathPrefix}}}}}}
	_, err := Check(r)
	verify.NoError(t, err)
	r.Conditions.Any[1].Not = &Conditions{Paths: []Path{large}}
	_, err = Check(r)
	verify.That(t, err != nil && strings.Contains(err.Error(), "have 2008 parts together, the limit is 2000"), "two: %v", err)
}

// An expression is compiled to no more than its parts.
func TestPartsAreInstructions(t *testing.T) {
	for _, s := range []string{
		"", "a", "()", "(a|b|cd)*x+y?", "a|", "(|a)*", "(?:)*", `\b^$\pL(?i:k)`, "x{3}", "x{0}", "x{0,}", "x{2,}", "(ab?){0,7}", "(a*){3,5}", "(a{0,30}){0,30}", "(a?){2,}", "[a-z]{1,63}(\\.[a-z]{1,63}){1,4}", "((((a))))", "(a*)*(b+)*", "(?:a{2,3}|b){4,}",
	} {
		re, err := syntax.Parse(s, syntax.Perl)
		verify.NoError(t, err)
		program, err := syntax.Compile(re.Simplify())
		verify.NoError(t, err)
		const around = 2 // the first and the last instruction of every program
		verify.That(t, parts(re)+around >= len(program.Inst), "%s has %d parts, and is compiled to %d instructions", s, parts(re), len(program.Inst))
	}
}
