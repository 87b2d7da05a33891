package route

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice/test/verify"
)

// The order of the package's comment, line by line.
func TestOrder(t *testing.T) {
	header := func(names ...string) (c Conditions) {
		for _, name := range names {
			c.Headers = append(c.Headers, Value{Name: name, Kind: ValuePresent})
		}
		return c
	}
	want := []Route{
		// Documents with an exact host or a priority above 0.
		{Origin: "priority 2", Path: "/", Priority: 2},
		{Origin: "priority 1, exact host", Host: "a.b", Path: "/1", Priority: 1},
		{Origin: "priority 1, regexp", HostRegexp: "b$", Path: "/", Priority: 1},
		{Origin: "exact path", Host: "a.b", Path: "/x", PathMatch: PathExact},
		{Origin: "long prefix", Host: "a.b", Path: "/x/y/z"},
		{Origin: "string prefix", Host: "a.b", Path: "/x/y", PathMatch: PathStringPrefix, Conditions: header("a", "b")},
		{Origin: "prefix, two conditions", Host: "a.b", Path: "/x", Conditions: header("a", "b")},
		{Origin: "prefix, one", Host: "a.b", Path: "/x", Conditions: header("a")},
		{Origin: "prefix, another one", Host: "a.b", Path: "/x", Conditions: header("c")},
		{Origin: "prefix, a listener", Host: "a.b", Path: "/x", Listeners: []string{"web"}},
		{Origin: "prefix", Host: "a.b", Path: "/x"},
		{Origin: "string prefix of this length", Host: "a.b", Path: "/x", PathMatch: PathStringPrefix},
		{Origin: "root", Host: "a.b", Path: "/"},
		{Origin: "long path regexp", Host: "a.b", Path: "^/x/.*", PathMatch: PathRegexp},
		{Origin: "path regexp", Host: "a.b", Path: "^/x", PathMatch: PathRegexp},
		// Tags with a priority above 0.
		{Origin: "tag, priority 3", Class: ClassTag, Path: "/t", Priority: 3},
		{Origin: "tag, priority 1", Class: ClassTag, Host: "a.b", Path: "/t", Priority: 1},
		// Others with a host.
		{Origin: "tag, exact host", Class: ClassTag, Host: "a.b", Path: "/u"},
		{Origin: "wildcard of three labels", Host: "*.x.a.b", Path: "/"},
		{Origin: "tag, wildcard of two labels", Class: ClassTag, Host: "*.a.b", Path: "/x"},
		{Origin: "wildcard of two labels", Host: "*.a.b", Path: "/"},
		{Origin: "long host regexp", HostRegexp: "^a.*b$", Path: "/"},
		{Origin: "host regexp", HostRegexp: "^a.*", Path: "/x/y"},
		// Traefik's, by priority only.
		{Origin: "Traefik, 20", Class: ClassTraefik, Path: "/", Priority: 20, Conditions: header("a")},
		{Origin: "Traefik, 20 too", Class: ClassTraefik, Host: "a.b", Path: "/long/path", Priority: 20},
		{Origin: "Traefik, -1", Class: ClassTraefik, Host: "a.b", Path: "/v", Priority: -1},
		// Others without a host.
		{Origin: "no host", Path: "/x/y"},
		{Origin: "no host, tag", Class: ClassTag, Path: "/w"},
		{Origin: "no host, root", Path: "/", Conditions: header("z")},
		// A priority below 0.
		{Origin: "priority -1, tag", Class: ClassTag, Path: "/y", Priority: -1},
		{Origin: "priority -2", Host: "a.b", Path: "/z", Priority: -2},
	}
	// Those that only the order in the list distinguishes.
	tied := func(a, b string) bool {
		return a == "prefix, one" && b == "prefix, another one" || a == "Traefik, 20" && b == "Traefik, 20 too" ||
			a == "prefix, another one" && b == "prefix, a listener" || a == "prefix, one" && b == "prefix, a listener"
	}
	for seed := range uint64(50) {
		shuffled := slices.Clone(want)
		rand.New(rand.NewPCG(seed, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for i := range shuffled {
			shuffled[i].Service = &Service{}
			for j := range i {
				if tied(shuffled[i].Origin, shuffled[j].Origin) {
					shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
				}
			}
		}
		tab := newTable(t, shuffled)
		tab.Routes()[0].Origin = "changed" // they belong to the caller
		for i, r := range tab.Routes() {
			verify.Require(t, r.Origin == want[i].Origin, "seed %d: at %d is %q, want %q", seed, i, r.Origin, want[i].Origin)
		}
	}
	r := table(t, "B.a /w/x/%61").Routes()[0]
	verify.Equal(t, r.Host+" "+r.Path, "b.a /w/x/a", "host and path of a route")
}

func TestPathsOfEveryKind(t *testing.T) {
	for _, test := range []struct {
		match            PathMatch
		path             string
		matches, differs string // paths with spaces between them
	}{
		{PathPrefix, "/api", "/api /api/ /api/x /api?x /api#x /api/v1", "/apix /API / api http://host/api"},
		{PathPrefix, "/", "/ * /?/../api ", "api"}, // a request without a path, too
		{PathPrefix, "/admin/", "/admin /admin/x", "/adminx /admin. /.admin /..admin /x/admin /... /admin/.. " +
			"/admin/../ /admin/..; /admin%2f.. /admin%00 /admin%25 /%2561dmin /%252e%252e/admin /admin% " +
			"/admin%2 /admin%zz /a%64min/%2e%2e/x"},
		{PathPrefix, "/caf%c3%a9", "/caf\xc3\xa9/x /caf%C3%A9", "/cafe"},
		{PathPrefix, "/a.b", "/a.b /a%2eb", "/axb"},
		{PathPrefix, "/..c", "/..c/d", "/c"},
		{PathExact, "/api", "/api /api/ //api /x/../api /%61pi /api;v=1 /api? /./api", "/ /api/x /apix /API /x/api /api%2fx"},
		{PathExact, "/", "/ // /. /x/.. *", "/x /%20"},
		{PathExact, "/a/b/", "/a/b /a/b/ /a%2fb /a/./b/c/..", "/a /a/b/c"},
		{PathStringPrefix, "/api", "/api /apix /api/x /x/../api-2 /%61pi1 /api;x /a/..;/api2 //apis", "/ /ap /x/api /API /a/pi /ap%2fi"},
		{PathStringPrefix, "/api/", "/api /api/ /api/x", "/apix"},
		{PathStringPrefix, "/api/v", "/api/v1/x /api/v /api/x/../v2 /api%2fv3", "/api /api/ /api/x/v /apiv"},
		{PathStringPrefix, "/", "/ /x", "api"},
		{PathStringPrefix, "/%61.", "/a.b /%61%2e", "/a"},
		{PathStringPrefix, "/..", "/..x /...", "/.. /../a"},
		{PathRegexp, "^/api/[0-9]+$", "/api/7 /api/7/ //api//7 /api/x/../7 /api/%37", "/api/x /api/7/x /x/api/7 /api/7%2f8"},
		{PathRegexp, "^/api/", "/api /api/ /api/x", "/apix /x/api/"},
		{PathRegexp, "/b$", "/b /a/b /a/b/ /a/b;x /a/b?/c", "/bc /b/c"},
		{PathRegexp, "^/$", "/ // /x/..", "/x"},
		{PathRegexp, "(?i)^/ADMIN", "/admin /Admin/x /x/../aDmin", "/x"},
		{PathRegexp, `^/a\.b`, "/a.b /a%2eb/c", "/axb"},
		{PathRegexp, "^/a$|^/b$", "/a /b /b/", "/c /a/b"},
		{PathRegexp, "^(/a)(/[bc])", "/a/b /a/c/d", "/a /a/d"},
		{PathRegexp, "\x61/\\x{fffd}", "/a/%ff /a/\xff", "/a/b"},
	} {
		tab := newTable(t, []Route{{Path: test.path, PathMatch: test.match, Service: &Service{}}})
		for want, paths := range map[bool]string{true: test.matches, false: test.differs} {
			for path := range strings.SplitSeq(paths, " ") {
				verify.Equal(t, tab.Match(nil, []byte(path), nil) != nil, want, "%s %q: %q matches", test.match, test.path, path)
			}
		}
	}
}

// No spelling of a path avoids a route, whatever its kind of match. TestPathsOfEveryKind has what
// looks like one, and is none.
func TestSpellingsDoNotAvoidAnyKindOfMatch(t *testing.T) {
	for _, admin := range []Route{
		{Path: "/admin"}, {Path: "/admin", PathMatch: PathExact}, {Path: "/admin", PathMatch: PathStringPrefix}, {Path: "/adm", PathMatch: PathStringPrefix},
		{Path: "^/admin$", PathMatch: PathRegexp, Priority: 1}, {Path: "/adm[a-z]n$", PathMatch: PathRegexp, Priority: 1},
	} {
		admin.Service = &Service{Name: "admin"}
		tab := newTable(t, []Route{{Path: "/", Service: &Service{Name: "rest"}}, {Path: "/a", Service: &Service{Name: "rest"}}, admin})
		for _, path := range spellingsOfAdmin {
			if strings.HasSuffix(path, "/z") && admin.PathMatch != "" {
				continue // it is below /admin
			}
			verify.Equal(t, match(tab, "", path), "admin", "%s %q: %q goes to", admin.PathMatch, admin.Path, path)
		}
	}
}

func TestLiteralEnds(t *testing.T) {
	for _, test := range []struct{ expression, prefix, suffix string }{
		{"^/api/v", "/api/v", ""},
		{"^/api/v[12]/x", "/api/v", ""},
		{"/api", "", ""},
		{`\A/api\.json\z`, "/api.json", "/api.json"},
		{"^(/a)(b)c", "/abc", ""},
		{"^/ab?c", "/a", ""},
		{"^/ab*", "/a", ""},
		{"^/(ab)+", "/", ""},
		{"^/a|^/b", "", ""},
		{"(?i)^/a", "", ""},
		{"(?m)^/a", "", ""},
		{"^/a(?i)b", "/a", ""},
		{`^[a-z]+\.example\.com$`, "", ".example.com"},
		{`^(a|b)\.(x)\.y$`, "", ".x.y"},
		{`\.com`, "", ""},
		{"^/\ufffda", "/", ""},
		{"a\ufffdb$", "", "b"},
		{"", "", ""},
		{"^$", "", ""},
	} {
		prefix, suffix := literalEnds(test.expression)
		verify.That(t, prefix == test.prefix && suffix == test.suffix, "%q: got %q and %q, want %q and %q", test.expression, prefix, suffix, test.prefix, test.suffix)
	}
}

func TestCheckErrors(t *testing.T) {
	for _, test := range []struct {
		route Route
		want  string
	}{
		{Route{Path: "/", PathMatch: "glob"}, `match "glob": want prefix, exact, string_prefix or regexp`},
		{Route{Path: "/a/../b", PathMatch: PathStringPrefix}, `path "/a/../b": has the segment ".."`},
		{Route{Path: "a", PathMatch: PathStringPrefix}, `path "a": is missing`},
		{Route{Path: "/" + strings.Repeat("a", 256), PathMatch: PathStringPrefix}, "has a segment of 256 octets, the limit is 255"},
		{Route{PathMatch: PathRegexp}, "path: is missing"},
		{Route{Path: strings.Repeat("a", 5000), PathMatch: PathRegexp}, "has 5000 characters, the limit is 4096"},
		{Route{Path: "/", Conditions: Conditions{Methods: []string{"G T"}}}, `methods "G T": is not a method`},
		{Route{Path: "/", Conditions: Conditions{Headers: []Value{{}}}}, "when.header: a name is missing"},
		{Route{Path: "/", Conditions: Conditions{Cookies: []Value{{Name: "a b"}}}}, `when.cookie.a b "a b": is not a valid name`},
		{Route{Path: "/", Conditions: Conditions{Hosts: []string{"a:1"}, HostRegexps: []string{"("}}}, `host "a:1": must have no port`},
		{Route{Path: "/", Conditions: Conditions{Paths: []Path{{PathRegexp, "("}}}}, `path "(": is not a regular expression`},
	} {
		_, err := Check(test.route)
		verify.That(t, err != nil && strings.Contains(err.Error(), test.want), "%+v: got %v, want %s", test.route, err, test.want)
	}
	deep := Conditions{}
	for range 9 {
		inner := deep
		deep = Conditions{Not: &inner}
	}
	_, err := Check(Route{Path: "/", Conditions: deep})
	verify.That(t, err != nil && strings.Contains(err.Error(), "nested too deeply"), "got %v", err)
}

func TestRegexpsWithoutLiteralsAreLimited(t *testing.T) {
	var routes []Route
	for i := range MaxUnindexed + 1 {
		text := strings.Repeat("x", i+1)
		routes = append(routes,
			Route{Host: "a", Path: text, PathMatch: PathRegexp, Service: &Service{}},
			Route{Host: "a", Path: "^/" + text, PathMatch: PathRegexp, Service: &Service{}},
			Route{HostRegexp: "^" + text + `\.example$`, Path: "/", Service: &Service{}})
	}
	_, err := NewTable(routes)
	verify.That(t, err != nil && strings.HasPrefix(err.Error(), `route 601: path "xxx`) && !strings.Contains(err.Error(), "\n"), "got %.200v", err)
	_, err = NewTable(routes[:600])
	verify.Succeeds(t, err)
}
