package consul

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"sluice/discovery"
)

// sidecar is the end of the names of the services that Consul registers for connect.sidecar_service.
const sidecar = "-sidecar-proxy"

// entryConnect has what an instance that another cluster exports says about connections to it (PeeringServiceMeta
// in agent/structs/peering.go of Consul, which Go's package api does not have).
type entryConnect struct {
	PeerMeta *struct{ SNI, SpiffeID []string }
}

// join makes i, an instance in an answer of /v1/health/connect, one of the service that was asked for: a sidecar has a
// name of its own. Its certificate is the service's, with the data centre of its node, as it is in the query's
// (makeUpstreamClusterForDiscoveryChain in agent/xds/clusters.go of Consul). It returns why i cannot be used, or "".
func (o *ServiceOptions) join(i *discovery.Instance, c *entryConnect) (unusable string) {
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

// identity returns the path of the SPIFFE URI of a service, as uriPath in agent/connect/uri_service.go of Consul.
func identity(namespace, partition, datacenter, service string) string {
	path := fmt.Sprintf("/ns/%s/dc/%s/svc/%s", cmp.Or(namespace, "default"), datacenter, service)
	if partition = notDefault(partition); partition != "" {
		path = "/ap/" + partition + path
	}
	return path
}
