// Package meshtest runs Consul's service mesh for tests: a real Consul with Connect, services
// with its built-in sidecar proxy, Connect-native services, and servers that behave as Envoy
// does at the places where sluice meets it.
//
//	m := meshtest.Start(t, consultest.Options{ACLs: true})
//	web := meshtest.ServeHTTP(t, "web-1")
//	m.Sidecar(t, meshtest.Service{Name: "web", ID: "web-1", Port: web.Port})
//	m.Intend(t, "web", meshtest.Allow("sluice"))
//
// What is real: Consul, its certificate authority, "consul connect proxy", and the answers to
// POST /v1/agent/connect/authorize that [Mesh.Native] follows. What is not: [Mesh.Envoy] and
// [Mesh.Gateway], because Envoy cannot be had here. They do what Consul's configuration of Envoy
// says (agent/xds/listeners.go and agent/xds/rbac.go of Consul 1.22).
//
// Trap: the built-in proxy and a native service ask their agent to authorize each connection, and
// the agent keeps the answer in a cache that no longer changes after the first change of the
// intentions, or a deletion (hashicorp/consul issue 23368; docs/mesh.md). A test that takes a right
// away and gives it again uses [Mesh.Envoy], whose answers follow Consul's, or a fresh agent for
// each change.
package meshtest
