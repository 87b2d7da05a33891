package consul

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"sluice/discovery"
)

// sidecar ends the names of services that Consul registers for connect.sidecar_service.
const sidecar = "-sidecar-proxy"

// entryConnect says how an instance that another cluster exports is reached: PeeringServiceMeta in
// Consul's agent/structs/peering.go, which Go's package api lacks.
type entryConnect struct {
	PeerMeta *struct{ SNI, SpiffeID []string }
}

// setMeshIdentity gives i, an instance in an answer of /v1/health/connect, the name and identity
// of the service that was asked for: a sidecar has its own name. The identity has the data centre
// of the node, as in Consul's makeUpstreamClusterForDiscoveryChain (agent/xds/clusters.go).
// It returns why i cannot be used, or "".
func (o *ServiceOptions) setMeshIdentity(i *discovery.Instance, c *entryConnect) (unusable string) {
	i.Service, i.ServerName = o.Service, o.ServerName
	if o.Peer == "" {
		i.Identity = identity(o.Namespace, o.Partition, i.Datacenter, o.Service)
		return ""
	}
	if c == nil || c.PeerMeta == nil || len(c.PeerMeta.SNI) == 0 || len(c.PeerMeta.SpiffeID) == 0 {
		return fmt.Sprintf("the peer %q does not say how it is reached through the mesh", o.Peer)
	}
	ids := make([]string, 0, len(c.PeerMeta.SpiffeID))
	for _, text := range c.PeerMeta.SpiffeID {
		id, err := url.Parse(text)
		if err != nil || !strings.EqualFold(id.Scheme, "spiffe") || id.Host == "" || id.Path == "" {
			return fmt.Sprintf("the peer %q gives it an identity that is no SPIFFE URI", o.Peer)
		}
		ids = append(ids, id.String())
	}
	i.ServerName, i.Identity, i.Peer = c.PeerMeta.SNI[0], strings.Join(ids, " "), o.Peer
	return ""
}

// identity returns the path of a service's SPIFFE URI (uriPath in Consul's connect/uri_service.go).
func identity(namespace, partition, datacenter, service string) string {
	path := fmt.Sprintf("/ns/%s/dc/%s/svc/%s", cmp.Or(namespace, "default"), datacenter, service)
	if partition = notDefault(partition); partition != "" {
		path = "/ap/" + partition + path
	}
	return path
}
