package config

import (
	"cmp"
	"maps"
	"slices"

	consulsource "sluice/discovery/consul"

	"sluice/config/decoding"
)

// ConsulConnect configures how sluice takes part in Consul's service mesh.
type ConsulConnect struct {
	// Service is the name of sluice in the mesh: its certificate has it, and intentions are about
	// it. Empty: see MeshName.
	Service string `key:"service" format:"consul_service"`
	// MeshGateway is the name of the service of which the mesh gateways are instances, in each data
	// centre.
	MeshGateway string `key:"mesh_gateway" default:"mesh-gateway" format:"consul_service"`
	// Peers are the peered clusters whose services are reached, by the name of the peering here.
	Peers map[string]ConnectPeer `key:"peers" format:"name"`
}

// ConnectPeer is a peered cluster.
type ConnectPeer struct {
	CA string `key:"ca" format:"file" required:"yes"` // the roots of its mesh, in PEM format: Consul's HTTP API does not have them
}

// defaultMeshName is the name of sluice where it is not registered.
const defaultMeshName = "sluice"

// MeshName returns the name of sluice in the mesh.
func (c *Consul) MeshName() string {
	name := c.Connect.Service
	if c.Register != nil {
		name = cmp.Or(name, c.Register.Service)
	}
	return cmp.Or(name, defaultMeshName)
}

func (c *ConsulConnect) check(d *decoder) {
	for _, name := range slices.Sorted(maps.Keys(c.Peers)) {
		checkCA(d, decoding.Join("consul.connect.peers", name)+".ca", c.Peers[name].CA)
	}
}

// checkConnect checks the keys of a service that is reached through the mesh.
func (s *Service) checkConnect(d *decoder, key string) {
	if s.Consul == nil || !s.Consul.Connect {
		return
	}
	for _, other := range setKeys([]given{
		{"prepared_query", s.Consul.PreparedQuery != ""}, {"address", s.Consul.Address != ""}, {"port", s.Consul.Port != ""}, {"check_port", s.Consul.CheckPort != ""}, {"spill", s.Consul.Spill},
		{"nearest", s.Consul.Nearest}, {"datacenters", len(s.Consul.Datacenters) > 1},
	}) {
		d.Refuse(decoding.Join(key, "consul."+other), "", "not with connect: the discovery chain of the service says where its instances are")
	}
	if peer := s.Consul.Peer; peer != "" { // its discovery chain is in the other cluster, whose gateways carry it out
		s.Consul.Targets = []consulsource.Target{{Service: s.Consul.Service, Peer: peer}}
	}
	if s.Upstream.TLS != nil {
		d.Refuse(decoding.Join(key, "upstream.tls"), "", "not with consul.connect: the mesh has certificates of its own")
	}
	if a := s.Health.Active; a != nil && a.TLS != nil {
		d.Refuse(decoding.Join(key, "health.active.tls"), "", "not with consul.connect: checks use the certificates of the mesh")
	}
	if a := s.Health.Active; a != nil && a.Port != 0 {
		d.Refuse(decoding.Join(key, "health.active.port"), "", "not with consul.connect: no other port of a sidecar is in the mesh")
	}
}
