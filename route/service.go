package route

import (
	"time"

	"sluice/balancer"
	"sluice/config/units"
)

// Service is a pool and how requests to it are sent. It does not change after it is in
// a Table; a reload makes a new Service around the same Pool.
type Service struct {
	Name string
	Pool *balancer.Pool

	Timeouts Timeouts
	Retry    Retry

	// HTTP2: the peers use HTTP/2, so that they may be servers of gRPC.
	HTTP2 bool

	// Affinity is nil for a service without.
	Affinity *Affinity

	// ProxyProtocol is the version, 1 or 2, of the PROXY header at the start of each
	// connection to a peer, for connections of listeners for TCP. 0: none.
	ProxyProtocol byte

	// WaitForPeer bounds the wait for an eligible peer. 0: answer 503 at once.
	WaitForPeer time.Duration
	// ConnectionWait is how long a request waits while every connection to every
	// peer is in use (balancer.Limits.PeerConnections). 0: as for WaitForPeer.
	ConnectionWait time.Duration
}

// Timeouts bound the parts of an exchange with a peer. All are above 0.
type Timeouts struct {
	// Connect bounds opening a connection.
	Connect time.Duration `key:"connect" default:"1s" min:"1ms" max:"10m"`
	// ResponseHeader bounds the time from the end of the request to the end of the
	// response head, over all attempts. After it the answer is 504.
	ResponseHeader time.Duration `key:"response_header" default:"30s" min:"1ms" max:"24h"`
	// Idle bounds each pause within a body, in either direction.
	Idle time.Duration `key:"idle" default:"60s" min:"1ms" max:"24h"`
	// Tunnel bounds each pause of an upgraded connection, such as a WebSocket.
	Tunnel time.Duration `key:"tunnel" default:"1h" min:"1s" max:"720h"`
}

// Retry configures retries.
type Retry struct {
	// Attempts is the maximum number of attempts.
	Attempts int `key:"attempts" default:"3" min:"1" max:"5"`
	// PerTryTimeout bounds the wait for the response head of one attempt, if the
	// request can be retried on another peer. 0: only Timeouts.ResponseHeader.
	PerTryTimeout time.Duration `key:"per_try_timeout" default:"0s" min:"0s" max:"1h"`
	// BodyBytes bounds the request bodies that are buffered for a retry. A longer one
	// is streamed; its request is retried only after a connect failure. Bodies of up
	// to about 15 KiB that arrive with their head are always buffered.
	BodyBytes units.Size `key:"body" default:"64KiB" min:"0" max:"16MiB"`
}
