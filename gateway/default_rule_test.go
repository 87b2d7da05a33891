package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// A service is found by its meta alone.
func TestRoutesFromMetaAlone(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	tagged(t, consul, "plain", origin(t, "plain"), "v1")
	withMeta := func(service string, kind api.ServiceKind) {
		e := withTags(t, service, service+"-1", origin(t, service))
		e.Service.Kind, e.Service.Meta = kind, map[string]string{"sluice_route": service + ".example.com/"}
		consul.Set(service, e)
	}
	withMeta("moon", api.ServiceKindTypical)
	withMeta("sidecar", api.ServiceKindConnectProxy)
	r := start(t, fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [sluice] }", consul.URL()))
	r.answers("moon.example.com/", "moon")
	withMeta("star", api.ServiceKindTypical)
	r.answers("star.example.com/", "star")
	verify.Slices(t, r.serviceNames(), []string{"moon", "star"}, "services")
}

// A service without tags has the route of the default rule, until it has one of its own or an
// operator names it.
func TestDefaultRuleOfTheCatalog(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	star, moon := origin(t, "star"), origin(t, "moon")
	tagged(t, consul, "star", star, "v1")
	tagged(t, consul, "moon", moon)
	tagged(t, consul, "inner", origin(t, "inner"))
	tagged(t, consul, "no_label", origin(t, "no_label"))
	sidecar := withTags(t, "sidecar", "sidecar-1", origin(t, "sidecar"))
	sidecar.Service.Kind = api.ServiceKindConnectProxy
	consul.Set("sidecar", sidecar)
	text := fmt.Sprintf("consul: { addresses: [%q] }\n"+
		"catalog: { tags: [sluice], default_rule: '{service}.apps.example.com' }\n"+
		"routes:\n  - { host: inner.example.com, allow: [192.0.2.1], service: inner }\n", consul.URL())
	r := start(t, text)
	r.answers("star.apps.example.com/", "star")
	r.answers("moon.apps.example.com/", "moon")
	for _, host := range []string{"inner", "sidecar", "no_label"} {
		r.refuses(host+".apps.example.com/", http.StatusNotFound)
	}
	r.await("the service whose name is no label has a problem", func() bool {
		problems := fetch[[]admin.TagProblem](r, "/api/tags")
		return len(problems) == 1 && problems[0].Service == "no_label" && problems[0].Dialect == "default_rule"
	})
	const from = "catalog.default_rule={service}.apps.example.com, for star-1 without tags"
	r.await("the route of star has the origin "+from, func() bool {
		return slices.ContainsFunc(fetch[[]admin.Route](r, "/api/routes"), func(r admin.Route) bool { return r.Service == "star" && r.Origin == from })
	})

	// Its own route takes the place of the default one, and goes to the instances that ask for it.
	consul.Set("star", withTags(t, "star", "star-1", star), withTags(t, "star", "star-2", origin(t, "star 2"), "sluice.route=star.example.com/"))
	r.answers("star.example.com/", "star 2")
	for range 20 {
		r.gets("star.apps.example.com/", "star")
	}
	consul.Set("star", withTags(t, "star", "star-2", origin(t, "star 3"), "sluice.route=star.example.com/"))
	r.awaitStatus("star.apps.example.com/", 404)
	r.answers("star.example.com/", "star 3")

	r.write(text + "  - { host: moon.example.com, service: moon }\n")
	r.answers("moon.example.com/", "moon")
	r.awaitStatus("moon.apps.example.com/", 404)
}
