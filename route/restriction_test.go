package route

import (
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

// A path with dot segments evades the restriction of a route on any host that it may have.
func TestEvades(t *testing.T) {
	limited := &Actions{ClientCertificate: true}
	service := &Service{Name: "a"}
	path := []byte("/x/../y")
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
			verify.That(t, table.Evades([]byte(host), path, nil) && !table.Evades([]byte(host), []byte("/x/y"), nil), "%s: %s is not guarded", test.name, host)
		}
		for host := range strings.FieldsSeq(test.open) {
			verify.That(t, !table.Evades([]byte(host), path, nil), "%s: %s is guarded", test.name, host)
		}
	}
	for _, a := range []Actions{{Access: NewAccess(nil, nil)}, {BasicAuth: new(BasicAuth)}, {ForwardAuth: new(ForwardAuth)}, {ClientCertificate: true}, {CertificateNames: []CertificateName{{Kind: CertificateAny}}}} {
		verify.That(t, a.Restricts(), "%+v does not restrict", a)
	}
}
