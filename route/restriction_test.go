package route

import (
	"bytes"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"sluice/test/verify"
)

// spellings are paths with a segment "..", as some server reads them.
var spellings = []string{
	"/admin/../x", "/admin/..", "/../x", "/admin/%2e%2e/x", "/admin/%2E%2e", "/admin/..%2fx", "/admin%2f..%2fx", "/admin/.%2e/x", "/admin/%2e./x",
	"/admin/..;/x", "/admin/..;a/x", "/admin;/../x", "/admin/..;a=b;c/x", "/admin/x/../../y", "/admin/x/..%2f..%2fy", "/admin/x/%2e%2e%2f%2e%2e/y",
	`/admin\..\x`, `/admin/..\x`, "/admin%5c..%5cx", "/admin//..//x", "/admin/.//../x", "/adm%69n/../x", "/admin/..%20/x", "/admin/..%00/x", "/admin/..%3b/x",
	"/admin/%252e%252e/x", "/admin/..%252fx", "/admin%252f..%252fx", "/admin/%25252e%25252e/x", "/admin/%2e%252e/x", "/admin/..%255cx", "/admin/..%253ba/x",
}

var withoutDotSegments = []string{
	"/", "/admin", "/admin/x", "/a..b/c", "/..a", "/a../b", "/...", "/a/.../b", "/a/.b", "/.well-known/x", "/a/./b", "/%2561dmin", "/a%2e%2eb", "/100%25/..a", "*", "",
}

func TestClimbs(t *testing.T) {
	for _, path := range spellings {
		verify.That(t, climbs([]byte(path)), "%s does not climb", path)
	}
	for _, path := range withoutDotSegments {
		verify.That(t, !climbs([]byte(path)), "%s climbs", path)
	}
}

// evades reports whether a path is refused.
func evades(table *Table, host, path string) bool {
	return table.Evades([]byte(host), []byte(path), nil, table.Match([]byte(host), []byte(path), nil), false)
}

// guarded is a table with a restricted route, one below it that is open, and one that looks like
// it.
func guarded(t testing.TB) (table *Table, restricted *Service) {
	service, restricted, limited := &Service{Name: "open"}, &Service{Name: "restricted"}, &Actions{ClientCertificate: true}
	return newTable(t, []Route{
		{Path: "/", Service: service}, {Path: "/admin", Service: restricted, Actions: limited}, {Path: "/admin/public", Service: service},
		{Path: "/wiki", Service: service}, {Path: "/half", Service: service, Conditions: Conditions{Methods: []string{"GET"}}},
		{Path: "/half", Service: restricted, Actions: limited},
	}), restricted
}

// What some server reads as a path of a restricted route takes that route, or is refused. Nothing
// else is.
func TestEverySpellingIsGuarded(t *testing.T) {
	table, restricted := guarded(t)
	for _, test := range []struct {
		want  string
		paths []string
	}{
		{"restricted", []string{
			"/admin", "/admin/", "/admin/x", "//admin", "/./admin", "/;x/admin", "/admin;x", "/admi%6e", "/%2fadmin", `/\admin`, "/admin%2f", "/%5cadmin", "/admin/public.",
		}},
		{"refused", []string{
			"/admin%00", "/admin.;x", "/admin%00.css", "/%00admin", "/admin%20", "/%20admin", "/admin.", "/admin...", "/admin.%20.", "/admin%09", "/ad%09min", "/ad%0d%0amin", "/admin./x",
			"/%25%36%31dmin", "/%2561dmin", "/%252561dmin", "/admin%253bx", "/admin%3fx", "/admin%23x", "/%252fadmin", "/%255cadmin", "/x/%252e%252e/admin", "/%2%35%361dmin",
			"/%c0%afadmin", "/%c1%a1dmin", "/\xc0\xafadmin", "/%e0%80%afadmin", "/x/%c0%ae%c0%ae/admin", "/%EF%BC%8Fadmin", "/%ef%bd%81dmin", "/x/%e2%80%a4%e2%80%a4/admin", "/%25c0%25afadmin",
		}},
		{"open", []string{
			"/", "/x", "/admin2", "/administrator.", "/wiki/Acme_Inc.", "/wiki/What%3F", "/wiki/100%25", "/wiki/%25admin", "/wiki/a%20b", "/wiki/%E3%80%80admin", "/wiki/%EF%BC%88x%EF%BC%89",
			"/wiki/%c3%a9", "/wiki/caf\xe9", "/wiki/...", "/admin/public/a%20b.", "/x/admin.", "/ADMIN", "/%", "/%2", "/%zzadmin", "/.well-known/x", "/half", "/half?x", "*", "",
		}},
	} {
		for _, path := range test.paths {
			r := &testRequest{method: "GET"}
			found := table.Match([]byte("a"), []byte(path), r)
			got := "open"
			if table.Evades([]byte("a"), []byte(path), r, found, false) {
				got = "refused"
			} else if found.Service == restricted {
				got = "restricted"
			}
			verify.Equal(t, got, test.want, "%q", path)
		}
	}
	// A condition that leaves a request to the open route does so in every spelling.
	for method, want := range map[string]bool{"GET": false, "POST": true} {
		r := &testRequest{method: method}
		path := []byte("/half.")
		verify.Equal(t, table.Evades([]byte("a"), path, r, table.Match([]byte("a"), path, r), false), want, "%s /half.", method)
	}
	kept := []byte("/x/../wiki")
	verify.That(t, !table.Evades([]byte("a"), kept, nil, table.Match([]byte("a"), kept, nil), true), "dots are refused though they are kept")
	kept = []byte("/x/../admin.")
	verify.That(t, table.Evades([]byte("a"), kept, nil, table.Match([]byte("a"), kept, nil), true), "keeping dots opens another way")
}

// servers are what servers do with a path before they look for who answers it.
var servers = []func(path string) string{
	decodeAll,
	decodeAll,
	func(path string) string { path, _, _ = strings.Cut(path, "\x00"); return path },
	func(path string) string { return strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(path) },
	func(path string) string { return strings.ReplaceAll(path, `\`, "/") },
	func(path string) string {
		return eachSegment(path, func(s string) string { s, _, _ = strings.Cut(s, ";"); return s })
	},
	func(path string) string {
		return eachSegment(path, func(s string) string {
			if s == "." || s == ".." {
				return s
			}
			return strings.TrimRight(s, ". ")
		})
	},
	func(path string) string { return eachSegment(path, strings.TrimSpace) },
	func(path string) string { path, _, _ = strings.Cut(path, "?"); return path },
	func(path string) string {
		for strings.Contains(path, "//") || strings.Contains(path, "/./") {
			path = strings.ReplaceAll(strings.ReplaceAll(path, "//", "/"), "/./", "/")
		}
		return path
	},
	func(path string) string { // an overlong encoding
		out := []byte(path)
		for i := 0; i+1 < len(out); i++ {
			if out[i]|1 == 0xc1 && out[i+1] >= 0x80 && out[i+1] < 0xc0 {
				out = append(append(out[:i:i], out[i]<<6|out[i+1]&0x3f), out[i+2:]...)
			}
		}
		return string(out)
	},
}

func eachSegment(path string, edit func(string) string) string {
	segments := strings.Split(path, "/")
	for i := range segments {
		segments[i] = edit(segments[i])
	}
	return strings.Join(segments, "/")
}

// decodeAll decodes once what can be decoded.
func decodeAll(path string) string {
	var out []byte
	for i := 0; i < len(path); i++ {
		if i+2 < len(path) {
			if octet, err := url.PathUnescape(path[i : i+3]); err == nil && path[i] == '%' {
				out, i = append(out, octet...), i+2
				continue
			}
		}
		out = append(out, path[i])
	}
	return string(out)
}

// Whatever two servers behind one another make of a path: if it is the restricted one then, the
// path was not passed to the open route.
func FuzzEverySpellingIsGuarded(f *testing.F) {
	for i, seed := range []string{"/admin.", "/%2561dmin%20", "/x;%2f/admin%00", `/a\%5c./admin. ;x`, "/admin/public%2f..", "/%c0%afadmin/x", "/admi%256e%3f", "/%09admin"} {
		f.Add([]byte(seed), uint64(i))
	}
	table, restricted := guarded(f)
	f.Fuzz(func(t *testing.T, path []byte, seed uint64) {
		if len(path) == 0 || path[0] != '/' || len(path) > 200 || bytes.ContainsAny(path, "\x00\t\r\n ?#") {
			return // the scanner of heads passes none of them in a path
		}
		found := table.Match([]byte("a"), path, nil)
		if found.Service == restricted || evades(table, "a", string(path)) {
			return
		}
		random, read := rand.New(rand.NewPCG(seed, 0)), string(path)
		var done []int
		for decoded := 0; len(done) < 12; {
			n := random.IntN(len(servers))
			if n < 2 {
				if decoded++; decoded > maxDecodings {
					continue
				}
			}
			done, read = append(done, n), servers[n](read)
		}
		below := read == "/admin" || strings.HasPrefix(read, "/admin/")
		public := strings.HasPrefix(read, "/admin/public")
		verify.That(t, !below || public, "%q goes to the open route, and is read as %q after the steps %v", path, read, done)
	})
}

// A path with dot segments evades the restriction of a route on any host that it may have.
func TestEvades(t *testing.T) {
	limited := &Actions{ClientCertificate: true}
	service := &Service{Name: "a"}
	const path = "/x/../y"
	for _, test := range []struct {
		name    string
		routes  []Route
		guarded string // hosts, with spaces between them
		open    string
	}{
		{"none", []Route{{Path: "/", Service: service}}, "", "a.example"},
		{"any host", []Route{{Path: "/", Service: service}, {Path: "/admin", Service: service, Actions: limited}}, "a.example A.example:80", ""},
		{"one host", []Route{{Path: "/", Service: service}, {Host: "a.example", Path: "/admin", Service: service, Actions: limited}}, "a.example A.EXAMPLE.:80", "b.example"},
		{"wildcard", []Route{{Path: "/", Service: service}, {Host: "*.example", Path: "/admin", Service: service, Actions: limited}, {Host: "*.example", Path: "/b", Service: service, Actions: limited}}, "a.example c.b.example", "example a.test"},
		{"regexp", []Route{{Path: "/", Service: service}, {HostRegexp: "^a[0-9]\\.example$", Path: "/admin", Service: service, Actions: limited}}, "a1.example", "a.example"},
		{"conditions", []Route{{Path: "/", Service: service}, {Path: "/admin", Conditions: Conditions{Methods: []string{"POST"}, Not: &Conditions{Hosts: []string{"b.example"}}}, Service: service, Actions: limited}}, "a.example b.example", ""},
		{"a target", []Route{{Path: "/", Service: service}, {Host: "a.example", Path: "/admin", Weighted: &Weighted{Targets: []Target{{Route: &Route{Service: service, Actions: limited}, Share: 1}}}}}, "a.example", "b.example"},
		{"other actions", []Route{{Path: "/", Service: service, Actions: &Actions{BodyLimit: 1}}}, "", "a.example"},
	} {
		table, err := NewTable(test.routes)
		verify.Require(t, err == nil, "%s: %v", test.name, err)
		for host := range strings.FieldsSeq(test.guarded) {
			verify.That(t, evades(table, host, path) && !evades(table, host, "/x/y"), "%s: %s is not guarded", test.name, host)
		}
		for host := range strings.FieldsSeq(test.open) {
			verify.That(t, !evades(table, host, path), "%s: %s is guarded", test.name, host)
		}
	}
	for _, a := range []Actions{{Access: NewAccess(nil, nil)}, {BasicAuth: new(BasicAuth)}, {ForwardAuth: new(ForwardAuth)}, {ClientCertificate: true}, {CertificateNames: []CertificateName{{Kind: CertificateAny}}}} {
		verify.That(t, a.Restricts(), "%+v does not restrict", a)
	}
}
