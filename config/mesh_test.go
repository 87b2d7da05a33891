package config

import (
	"fmt"
	"testing"

	"sluice/tags"
	"sluice/test/verify"
)

// What the discovery chain of a mesh service decides, and its certificates, cannot be set beside
// it.
func TestConnectRefusals(t *testing.T) {
	const connect, not = "services:\n  web:\n    consul: { connect: true", "\nroutes: [{ service: web }]\n"
	const chain = "not with connect: the discovery chain of the service says where its instances are"
	for _, test := range []struct{ name, text, want string }{
		{"data centres", connect + ", datacenters: [dc1, dc2] }" + not, "sluice.yaml:3: services.web.consul.datacenters: " + chain},
		{"prepared query", connect + ", prepared_query: geo }" + not, "sluice.yaml:3: services.web.consul.prepared_query: " + chain},
		{"TLS", connect + " }\n    upstream: { tls: {} }" + not, "sluice.yaml:4: services.web.upstream.tls: not with consul.connect: the mesh has certificates of its own"},
		{"TLS of checks", connect + " }\n    health: { active: { type: http, path: /, tls: {} } }" + not,
			"sluice.yaml:4: services.web.health.active.tls: not with consul.connect: checks use the certificates of the mesh"},
		{"port of checks", connect + " }\n    health: { active: { type: tcp, port: 9000 } }" + not,
			"sluice.yaml:4: services.web.health.active.port: not with consul.connect: no other port of a sidecar is in the mesh"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("sluice.yaml", []byte(test.text))
			diffLines(t, err, []string{test.want})
		})
	}
}

// What asks for HTTP/2 without TLS, as tags do for the application behind a sidecar, gets HTTP/2
// through the mesh.
func TestH2CInTheMesh(t *testing.T) {
	const text = "services:\n  web: { consul: { connect: true }%s }\nroutes: [{ service: web }]\n"
	written := verify.Result(Parse("sluice.yaml", fmt.Appendf(nil, text, ", upstream: { protocol: h2c }"))).Must(t)
	verify.Equal(t, written.Services["web"].Upstream.Protocol, ProtocolH2, "as the file asks for")
	plain := verify.Result(Parse("sluice.yaml", fmt.Appendf(nil, text, ""))).Must(t)
	tagged, err := DecodeService(plain.Services["web"], tags.Keys{"upstream": tags.Keys{"protocol": "h2c"}}, plain)
	verify.NoError(t, err)
	verify.Equal(t, tagged.Upstream.Protocol, ProtocolH2, "as a tag asks for")
}

func TestNameInTheMesh(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "sluice",
		"consul: { register: {} }": "sluice",
		"consul: { register: { service: edge } }":                                "edge",
		"consul: { connect: { service: ingress } }":                              "ingress",
		"consul: { connect: { service: ingress }, register: { service: edge } }": "ingress",
	} {
		c := verify.Result(Parse("sluice.yaml", []byte(text+"\nservices: { web: { consul: { connect: true } } }\nroutes: [{ service: web }]\n"))).Must(t)
		verify.Equal(t, c.Consul.MeshName(), want, "%s", text)
	}
}
