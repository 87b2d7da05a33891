package chain

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/consul/mesh"
	"sluice/test/verify"
)

// No chain makes a panic, and what can be used leads to services that there are, each with targets.
func FuzzTranslate(f *testing.F) {
	for _, c := range []*mesh.Compiled{
		routerOf(mesh.RouteDefinition{Match: &mesh.RouteMatch{HTTP: &mesh.HTTPMatch{PathPrefix: "/a", Header: []mesh.ValueMatch{{Name: "x", Exact: "1"}}}},
			Destination: &mesh.RouteDestination{PrefixRewrite: "/b", RequestHeaders: &api.HTTPHeaderModifiers{Set: map[string]string{"x": "%%"}}}}),
		chainOf(mesh.Node{Type: mesh.NodeSplitter, Name: "web.default.default", Splits: []mesh.CompiledSplit{{NextNode: "web", Weight: 1}, {NextNode: "v1.web", Weight: 2}}}, "web", "v1.web"),
		chainOf(mesh.Node{Type: mesh.NodeSplitter, Name: "web.default.default", Splits: []mesh.CompiledSplit{{NextNode: "web", Weight: 1e308}, {NextNode: "v1.web", Weight: math.MaxFloat64}}}, "web", "v1.web"),
		resolverOf(func(n *mesh.Node, _ *mesh.Compiled) {
			n.LoadBalancer = &mesh.LoadBalancer{Policy: "maglev", HashPolicies: []mesh.HashPolicy{{Field: "cookie", FieldValue: "a"}}}
		}),
	} {
		text, err := json.Marshal(c)
		verify.NoError(f, err)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var c mesh.Compiled
		if json.Unmarshal(text, &c) != nil {
			return
		}
		r, err := Translate("web", web(), "", &c)
		if err != nil {
			return
		}
		verify.That(t, len(r.Service.Consul.Targets) > 0, "no targets")
		for name, s := range r.Derived {
			verify.That(t, len(s.Consul.Targets) > 0 && len(s.Chain) == 0, "%s: %+v", name, s)
		}
		if len(r.Service.Chain) == 0 {
			return
		}
		for _, b := range r.Service.Chain {
			for _, to := range b.Services() {
				_, ok := r.Derived[to]
				verify.That(t, ok || to == "web", "there is no service %q", to)
			}
			sum := 0.
			for _, p := range b.Route.Parts {
				sum += p.Share
			}
			verify.That(t, len(b.Route.Parts) == 0 || math.Abs(sum-1) < 1e-9, "shares %v", sum)
		}
	})
}
