package gateway

import (
	"sluice/balancer"
	"sluice/config"
	"sluice/consul/mesh"
	consulsource "sluice/discovery/consul"
	"sluice/proxy/upstream"
)

// destinationsOf returns the services in the mesh whose instances c uses, also those that stand in
// for others. Those of peered clusters are not among them: their intentions are not in this Consul.
func destinationsOf(c *config.Config) (all []mesh.Destination) {
	for _, s := range c.Services {
		if !isInMesh(s) {
			continue
		}
		for _, t := range s.Consul.Targets {
			if t.Peer == "" {
				all = append(all, destinationOf(t))
			}
		}
	}
	return all
}

// destinations returns the services in the mesh of which there are peers, draining ones too: their
// connections end when an intention begins to deny them, also after the configuration or a chain
// has dropped the service.
func (s *services) destinations() (all []mesh.Destination) {
	for _, peer := range s.peers() {
		if d, ok := mesh.DestinationOf(peer.Instance()); ok {
			all = append(all, d)
		}
	}
	return all
}

func destinationOf(t consulsource.Target) mesh.Destination {
	return mesh.Destination{Partition: t.Partition, Namespace: t.Namespace, Service: t.Service}
}

// deniedBy returns why the mesh denies the connections for requests to a service of c; "": it does
// not, or that is not known.
func (m *membership) deniedBy(c *config.Config, service string) string {
	s := c.Services[service]
	if !isInMesh(s) || len(s.Consul.Targets) == 0 || s.Consul.Targets[0].Peer != "" {
		return ""
	}
	return m.intentions.DeniedBy(destinationOf(s.Consul.Targets[0]))
}

// cut ends the connections to the instances of a service in the mesh, in all pools.
func (s *services) cut(d mesh.Destination) {
	for _, peer := range s.peers() {
		if of, ok := mesh.DestinationOf(peer.Instance()); ok && of == d {
			peer.Transport.(upstream.Connector).Cut()
		}
	}
}

// peers returns the peers of all pools, with the draining ones.
func (s *services) peers() (all []*balancer.Peer) {
	for _, pool := range s.pools() {
		snapshot := pool.Snapshot()
		all = append(append(all, snapshot.All...), snapshot.Draining...)
	}
	return all
}
