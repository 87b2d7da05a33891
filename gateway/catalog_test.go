package gateway

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/admin"
	"sluice/test/discoverytest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// serviceNames returns the names in /api/services, in its order.
func (r *running) serviceNames() []string {
	r.t.Helper()
	list := fetch[[]admin.Service](r, "/api/services")
	var names []string
	for _, s := range list {
		names = append(names, s.Service)
	}
	return names
}

// tagged registers one instance of a service at address.
func tagged(t *testing.T, consul *discoverytest.Consul, service, address string, tags ...string) {
	t.Helper()
	consul.Set(service, withTags(t, service, service+"-1", address, tags...))
}

func TestServicesAreFoundInTheCatalog(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	tagged(t, consul, "moon", origin(t, "moon"), "web")
	tagged(t, consul, "hidden", origin(t, "hidden"))
	tagged(t, consul, "fixed", origin(t, "found"), "web")
	text := fmt.Sprintf(`
consul: { addresses: [%q], probation: 1s }
catalog: { select: { tag: web } }
services: { fixed: { peers: [%q] } }
routes:
  - { path: /fixed, service: fixed }
  - { path: /moon, service: moon }
  - { path: /sun, service: sun }
`, consul.URL(), origin(t, "fixed"))
	r := start(t, text, func(g *Gateway) { g.waits.retire = 0 })
	r.answers("/moon", "moon") // a found service has the default timeout of a connection
	r.gets("/fixed", "fixed")
	// A route may exist before its service.
	r.refuses("/sun", http.StatusServiceUnavailable)
	verify.Slices(t, r.serviceNames(), []string{"fixed", "moon", "sun"}, "services")

	tagged(t, consul, "sun", origin(t, "sun"), "web")
	tagged(t, consul, "mars", origin(t, "mars"), "web")
	r.answers("/sun", "sun")
	r.await("mars is found", func() bool { return slices.Contains(r.serviceNames(), "mars") })

	var catalog admin.Catalog
	status := r.api("/api/catalog", &catalog)
	verify.That(t, status == http.StatusOK && catalog.State == "fresh" && len(catalog.Services) == 4, "/api/catalog: %d %+v", status, catalog)
	verify.Equal(t, r.api("/consul/mars", new(admin.Comparison)), http.StatusOK, "/consul/mars")

	consul.Set("mars")
	r.await("mars is removed", func() bool { return !slices.Contains(r.serviceNames(), "mars") })

	// Found services do not change with the file.
	pool := r.services.get("moon").pool
	r.replace(text + "  - { path: /other, service: fixed }\n")
	verify.Equal(t, r.services.get("moon").pool, pool, "a reload replaced the pool of a found service")
	r.write(strings.Replace(text, "catalog: { select: { tag: web } }", "", 1) + "\n")
	r.await("a file with routes without a service is refused", func() bool { return r.documents.Refuses() })
	r.write(fmt.Sprintf("consul: { addresses: [%q] }\nservices: { fixed: { peers: [%q] } }\nroutes: [{ service: fixed }]", consul.URL(), origin(t, "fixed")))
	r.await("only the service of the file", func() bool { return slices.Equal(r.serviceNames(), []string{"fixed"}) })
	r.await("no catalog", func() bool { return r.api("/api/catalog", &struct{ Error string }{}) == http.StatusNotFound })
}

// A service with an unreadable certificate does not prevent the use of found services if it is
// unchanged, else only until the next attempt.
func TestFoundServicesAreUsedDespiteErrorsOfOthers(t *testing.T) {
	t.Parallel()
	for _, changed := range []bool{false, true} {
		consul := discoverytest.Start(t)
		tagged(t, consul, "moon", origin(t, "moon"), "web")
		certificate, _ := testcert.PEM("ca.example")
		ca := writeFile(t, t.TempDir(), "ca.pem", certificate)
		r := start(t, fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { select: { tag: web } }\n"+
			"services: { fixed: { peers: [%q], health: { active: { type: tcp, tls: { ca: %q } } } } }\n"+
			"routes: [{ path: /, service: moon }]\n", consul.URL(), origin(t, "fixed"), ca), func(g *Gateway) {
			g.waits.start, g.waits.applyFound = time.Millisecond, time.Millisecond
			if changed {
				g.services.get("fixed").config.Balance.Policy = "random"
			}
			verify.NoError(t, os.Remove(ca))
		})
		tagged(t, consul, "sun", origin(t, "sun"), "web")
		failures := 0
		if changed {
			failures = 1
			r.awaitLog(`"again_in":`)
			replaceFile(t, ca, string(certificate))
		}
		r.await("sun is found", func() bool { return slices.Contains(r.serviceNames(), "sun") })
		r.answers("/", "moon")
		verify.Equal(t, strings.Count(r.log.String(), `"again_in":`), failures, "failed attempts, changed %t", changed)
	}
}

// A service without tags is found too, and has the route of the default rule.
func TestDefaultRuleOfTheCatalog(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	consul.Set("star", withTags(t, "star", "star-1", origin(t, "star")))
	r := start(t, fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [sluice], default_rule: '{service}.apps.example.com' }\n", consul.URL()))
	r.answers("star.apps.example.com/", "star")
}
