package proxy

import (
	"context"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/proxy/upstream"
)

// A peer in the mesh that ends a connection because Consul's intentions deny it is not at fault,
// and no other one would do better. So the request is refused with the names of both services.

// denial returns why the mesh has ended a connection to the peer of a token with err; nil: it has
// not.
func denial(t balancer.Token, err error, waiting func(time.Duration) (context.Context, context.CancelFunc)) *discovery.Denial {
	return t.Peer.Transport.(upstream.Connector).Denial(err, waiting)
}
