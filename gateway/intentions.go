package gateway

import (
	"sluice/balancer"
	"sluice/config"
	"sluice/consul/mesh"
	"sluice/discovery"
	"sluice/proxy/upstream"
)

// destinationsOf returns the services in the mesh whose instances c uses, also those that stand in for others. Those of
// peered clusters are not among them: their intentions are not in this Consul.
func destinationsOf(c *config.Config) (all []mesh.Destination) {
	for _, s := range c.Services {
		if !isInMesh(s) {
			continue
		}
		for _, t := range s.Consul.Targets {
			if t.Peer == "" {
				all = append(all, mesh.Destination{Partition: t.Partition, Namespace: t.Namespace, Service: t.Service})
			}
		}
	}
	return all
}

// isDenied reports whether the mesh does not let sluice connect to an instance.
func (s *services) isDenied(i discovery.Instance) bool { return s.intentions.Denial(i) != nil }

// cut ends the connections to the instances of a service in the mesh, in all pools.
func (s *services) cut(d mesh.Destination) {
	for _, pool := range s.pools() {
		snapshot := pool.Snapshot()
		for _, peers := range [...][]*balancer.Peer{snapshot.All, snapshot.Draining} {
			for _, peer := range peers {
				if of, ok := mesh.DestinationOf(peer.Instance()); ok && of == d {
					peer.Transport.(upstream.Connector).Cut()
				}
			}
		}
	}
}
