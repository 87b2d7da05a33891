package claim

import (
	"slices"
	"sluice/test/verify"
	"strings"
	"testing"
)

// FuzzResolve checks that no tag of a service takes a route from another one, or stops sluice.
func FuzzResolve(f *testing.F) {
	for _, tag := range []string{
		"urlprefix-h/x strip=/x redirect=301,http://h$path", "sluice.route=h/ rewrite.regexp=^/(.*)$ rewrite.to=/$1 when.header.A=~b",
		"sluice.route=h/x match=regexp rate_limit.rate=1 allow=10.0.0.0/8", "sluice.route=h/ request_headers.set.A=$host retry.attempts=9",
		"traefik.enable=true\ntraefik.http.routers.r.rule=Host(`h`) || PathRegexp(`^/x`)\ntraefik.http.routers.r.middlewares=m\ntraefik.http.middlewares.m.headers.customrequestheaders.A=b",
		"sluice.route=h/ rate_limit.=", "sluice.route=h/ forward_auth.url=http://h/ timeouts.idle=1s body_limit=1MiB", "sluice.upstream=protocol=h2 tls=true",
		"urlprefix-kept.example.com/ weight=0.5", "urlprefix-kept.example.com/ deny=ip:0.0.0.0/0",
		"traefik.enable=true\ntraefik.tcp.routers.r.rule=HostSNI(`h`) || HostSNIRegexp(`^x`)\ntraefik.tcp.routers.r.tls.passthrough=true",
	} {
		f.Add(tag)
	}
	f.Fuzz(func(t *testing.T, tags string) {
		other := service("z", instance("z", "z1", 1, "urlprefix-kept.example.com/"))
		for _, share := range []bool{false, true} {
			rules := allRules()
			rules.Share = share
			r := Resolve([]Service{service("a", instance("a", "a1", 1, strings.Split(tags, "\n")...)), other}, rules, map[string]string{"kept.example.com/": "z"})
			kept := 0
			for _, route := range r.Routes {
				services := route.services()
				if route.Host == "kept.example.com" && slices.Contains(services, "z") && route.Path == "/" && (share || len(services) == 1) {
					kept++
				}
				verify.Require(t, !slices.Contains(services, "a") || route.Host != "" && !strings.HasPrefix(route.Host, "*") && route.HostRegexp == "", "%q: a route without an exact host and without a claim: %+v", tags, route)
			}
			verify.Require(t, kept == 1, "%q: the other service has lost its route: %q", tags, lines(r))
		}
	})
}
