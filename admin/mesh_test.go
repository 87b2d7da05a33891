package admin

import (
	"testing"

	"sluice/consul/mesh"
	"sluice/test/verify"
)

func TestMesh(t *testing.T) {
	want := []Chain{{Service: "web", ConsulService: "web", Known: true, Protocol: "http", Entries: []string{"service-resolver web"}, Problems: []string{},
		Targets: []ChainTarget{{ServedBy: "web", ConsulService: "web", Subset: "v1", Filter: "Service.Meta.version == 1"}}, Index: 7}}
	states := []mesh.IntentionState{{Destination: mesh.Destination{Service: "web"}, Source: "sluice", Verdict: mesh.Denied, Why: "the default"}}
	h := handlerOf(Options{Routes: Routes{Chains: func() []Chain { return want }, Intentions: func() []mesh.IntentionState { return states }}})
	got := getJSON[Mesh](t, h, "/api/mesh")
	verify.DeepEqual(t, got.Chains, want, "chains")
	verify.DeepEqual(t, got.Intentions, states, "intentions")
}
