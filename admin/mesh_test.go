package admin

import (
	"testing"

	"sluice/test/verify"
)

func TestMesh(t *testing.T) {
	want := []Chain{{Service: "web", ConsulService: "web", Known: true, Protocol: "http", Entries: []string{"service-resolver web"}, Problems: []string{},
		Targets: []ChainTarget{{ServedBy: "web", ConsulService: "web", Subset: "v1", Filter: "Service.Meta.version == 1"}}, Index: 7}}
	h := handlerOf(Options{Routes: Routes{Chains: func() []Chain { return want }}})
	verify.DeepEqual(t, getJSON[Mesh](t, h, "/api/mesh").Chains, want, "chains")
}
