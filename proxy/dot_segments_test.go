package proxy

import (
	"net/url"
	"strings"
	"testing"

	"sluice/route"
	"sluice/test/verify"
)

// hostilePaths spell the paths of a restricted route /admin, or paths outside of it, in the
// ways that servers read differently.
var hostilePaths = []string{
	"/admin", "/admin/", "/admin/x", "/%61dmin", "/admin%2fx", "//admin", "/./admin", "/x/../admin", "/x/..%2fadmin", "/x/%2e%2e/admin", "/x/.%2e/admin",
	"/x/..;/admin", "/;/admin", "/;a=b/admin", "/admin;x", "/admin;/x", "/admin%3bx", "/admin/.", "/admin/..", "/admin/../x", "/admin/%2e%2e/x", "/admin/..%2fx",
	"/admin/.%2e/x", "/admin/%2e%2e", "/admin/..;/x", "/admin/..;a/x", "/admin/x/../../y", "/admin/x/..%2f..%2fy", "/admin/x/%2e%2e%2f%2e%2e/y", `/admin\..\x`, `/admin/..\x`,
	"/admin%5c..%5cx", "/admin%2f..%2fx", "/admin;/../x", "/admin?x", "/%252e%252e/admin", "/admin/%252e%252e/x", "/x%2f..%2fadmin", `/x\..\admin`, `\admin`, "/.;/admin",
	"/..;/admin", "/..%5cadmin", "/%2f%2fadmin", "/admi%6e", "/adm%69n/../x", "http://shop.example/admin", "http://shop.example/x/../admin", "/admin/..%252fx", "/admin/%2e./x", "/admin//..//x",
	"/admin/.//../x", "/a/../admin/../b", "/admin/..%20/x", "/admin/..%00/x",
}

// readsAsAdmin reports whether an app with a prefix router that does not resolve dots takes a
// target for one below /admin, if it decodes the path that often.
func readsAsAdmin(target string, decodings int) bool {
	path, _, _ := strings.Cut(target, "?")
	for range decodings {
		if decoded, err := url.PathUnescape(path); err == nil {
			path = decoded
		}
	}
	path, _, _ = strings.Cut(path, ";")
	path = strings.ReplaceAll(path, `\`, "/")
	return path == "/admin" || strings.HasPrefix(path, "/admin/")
}

// No spelling of a path passes a restriction at a server that does not resolve dot segments.
func TestPathsPassNoRestriction(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	p.setRoutes(
		route.Route{Path: "/", Service: p.service},
		route.Route{Host: "shop.example", Path: "/admin", Service: p.service, Actions: &route.Actions{Access: access("192.0.2.0/24", "")}},
	)
	for _, path := range hostilePaths {
		before := len(origin.got())
		answer := p.raw("GET " + path + " HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
		got := origin.got()[before:]
		if got == "" {
			verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 4"), "%s: no peer got it, and the answer is %q", path, answer)
			continue
		}
		target := strings.Fields(got)[1]
		for decodings := range 2 {
			verify.That(t, !readsAsAdmin(target, decodings), "%s passes the restriction as %s", path, target)
		}
	}
	// Hosts without a restriction keep their paths, and all do if the operator wants it.
	const evading = "/admin/%2e%2e/x"
	for _, host := range []string{"other.example", "shop.example"} {
		answer := p.raw("GET " + evading + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n")
		verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 200 "), "%s: got %q", host, answer)
		o := *p.options.Load()
		o.KeepDotSegments = true
		p.Configure(o)
	}
}
