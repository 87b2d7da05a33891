package route

import (
	"time"

	"sluice/balancer"
)

// Defaults of a Service's limits, used where the configuration leaves one out.
const (
	DefaultConnectTimeout        = time.Second
	DefaultResponseHeaderTimeout = 30 * time.Second
	DefaultIdleTimeout           = 60 * time.Second
	DefaultTunnelTimeout         = time.Hour
	DefaultAttempts              = 2
	DefaultRetryBodyBytes        = 64 << 10
)

// Service is where a route leads: a pool, and how requests to it are sent.
// It is a value shared by all routes that name it and is never changed after
// it is in a Table; a reload makes a new Service around the same Pool.
type Service struct {
	Name string
	Pool *balancer.Pool

	Timeouts Timeouts
	Retry    Retry

	// Affinity says which requests belong together. nil: none do.
	Affinity *Affinity

	// WaitForPeer is how long a request waits for a first peer while the pool
	// has none that is eligible. 0: not at all, the answer is 503 at once.
	WaitForPeer time.Duration
}

// Timeouts bound the parts of an exchange with a peer. All are greater
// than 0.
type Timeouts struct {
	// Connect bounds opening a connection to the peer.
	Connect time.Duration
	// ResponseHeader bounds the time from the end of the request to the end of
	// the response's head, over all attempts. The answer after that is 504.
	ResponseHeader time.Duration
	// Idle bounds each pause within a body, either way.
	Idle time.Duration
	// Tunnel bounds each pause of a connection that has left HTTP, such as a
	// WebSocket: the time without a byte either way.
	Tunnel time.Duration
}

// Retry says how often a request may be sent.
type Retry struct {
	// Attempts is how many peers a request is tried on in all, at least 1.
	Attempts int
	// PerTryTimeout bounds the wait for the response's head at one peer, for a
	// request that may be sent twice and has an attempt left: it then goes to
	// another one. 0: only Timeouts.ResponseHeader counts.
	PerTryTimeout time.Duration
	// BodyBytes is up to which length a request's body is kept, so that it can
	// be sent again. A longer one is passed on while it arrives; the request is
	// then tried again only if no connection could be made. Bodies of up to
	// about 15 KiB that arrive with their head are always kept.
	BodyBytes int64
	// Hedge, if not nil, is for requests that only read and have no body.
	Hedge *Hedge
}

// DefaultTimeouts returns the timeouts of a service that sets none.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		Connect:        DefaultConnectTimeout,
		ResponseHeader: DefaultResponseHeaderTimeout,
		Idle:           DefaultIdleTimeout,
		Tunnel:         DefaultTunnelTimeout,
	}
}
