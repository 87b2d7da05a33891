package claim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice/config"
	"sluice/tags"
	"sluice/tags/native"
	"sluice/test/verify"
)

// TestNoTagReachesAnotherService: whatever keys a tag or the meta has, its routes go to its own
// service, and have nothing that only the file sets.
func TestNoTagReachesAnotherService(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	words := []string{
		"services.secret=100%", "services.secret=1", "services.key=none", "service=secret", "group=x", "split.x=5%", "mirror.service=secret", "mirror.share=1",
		"basic_auth.users_file=/etc/passwd", "retry.body=16MiB", "retry.attempts=3", "request_headers.set.X-Forwarded-For=1", "request_headers.remove=X_Real.IP",
		"request_headers.set.X-A=1", "strip=/x", "timeout=1s", "priority=3", "allow=10.0.0.0/8", "deny=::1", "when.header.A=1", "Services.secret=1", "host_header=peer",
		"redirect=https://h/", "services=secret", "retry=1", "listener=web", "response_headers.set.Remote-User=1", "a=b",
	}
	routes, denied := 0, 0
	for range 3000 {
		text := "h.example.com/"
		for range 1 + random.IntN(3) {
			text += " " + words[random.IntN(len(words))]
		}
		in := tags.Instance{Service: "a", Port: 80, Tags: []string{"sluice.route=" + text}}
		if random.IntN(2) == 0 {
			in.Tags, in.Meta = nil, map[string]string{"sluice_route": text}
		}
		i := Instance{ID: "a1", Node: "n", Age: Age{true, true, 1}, Meta: in.Meta, Readings: []Reading{{config.DialectSluice, native.Read(in)}}}
		r := Resolve([]Service{service("a", i)}, allRules(), nil)
		restricted := strings.Contains(text, " allow=") || strings.Contains(text, " deny=") || strings.Contains(text, " basic_auth.")
		verify.Require(t, !restricted || len(r.Routes) == 1, "%q: %d routes; one with a restriction must deny", text, len(r.Routes))
		for _, route := range r.Routes {
			routes++
			if len(route.Deny) == 2 {
				denied++
			}
			if route.Service != "a" || len(route.Services)+len(route.Parts)+len(route.Split) > 0 || route.Group != "" || route.Mirror != nil || route.BasicAuth != nil ||
				route.Retry != nil && route.Retry.Body != nil {
				t.Fatalf("%q makes %+v", text, route)
			}
			edits := route.RequestHeaders
			verify.Require(t, (edits == nil || !strings.Contains(strings.ToLower(fmt.Sprint(edits)), "real")) && (edits == nil || edits.Set["X-Forwarded-For"].IsZero()), "%q says who the client is: %+v", text, route)
		}
	}
	verify.That(t, routes >= 300 && denied >= 50, "%d routes, %d deny: want more", routes, denied)
}

// FuzzResolve checks that no tag of a service takes a route from another one, or stops sluice.
func FuzzResolve(f *testing.F) {
	for _, tag := range []string{
		"urlprefix-h/x strip=/x redirect=301,http://h$path", "sluice.route=h/ rewrite.regexp=^/(.*)$ rewrite.to=/$1 when.header.A=~b",
		"sluice.route=h/x match=regexp rate_limit.rate=1 allow=10.0.0.0/8", "sluice.route=h/ request_headers.set.A=$host retry.attempts=9",
		"traefik.enable=true\ntraefik.http.routers.r.rule=Host(`h`) || PathRegexp(`^/x`)\ntraefik.http.routers.r.middlewares=m\ntraefik.http.middlewares.m.headers.customrequestheaders.A=b",
		"sluice.route=h/ rate_limit.=", "sluice.route=h/ basic_auth.users=a:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "sluice.route=h/ forward_auth.url=http://h/ timeouts.idle=1s body_limit=1MiB", "sluice.upstream=protocol=h2 tls=true",
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
