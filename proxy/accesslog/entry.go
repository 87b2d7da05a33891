package accesslog

import "time"

// ProtoTCP is the Proto of a connection of a listener for TCP, which has no method and
// no target.
const ProtoTCP = "TCP"

// Entry describes one finished request or connection; docs/access-log.md explains the fields. Log
// does not retain the slices.
type Entry struct {
	Time      time.Time
	RequestID []byte
	TraceID   []byte
	Client    []byte
	Proxy     string // address of the trusted proxy that the client came through; empty: none
	User      string

	Method    []byte
	Host      []byte
	Target    []byte
	Proto     string
	UserAgent []byte
	Referer   []byte
	Head      []byte // of the request, in HTTP/1.1 text, for templates

	TLSVersion    string // empty: without TLS
	TLSCipher     string
	TLSServerName string

	Status         int
	UpstreamStatus int // 0: the last peer has not answered
	BytesIn        int64
	BytesOut       int64

	Duration time.Duration
	Upstream time.Duration // 0: no response head arrived
	Connect  time.Duration // 0: no connection was opened
	// Waited is how long the client has waited, for Options.Slow: it has no time in
	// which a tunnel was open.
	Waited time.Duration

	Service  string
	Peer     string
	Group    string // of the peer; empty: its service has no groups
	Attempts int
	Tries    []Try // if there were several
	Reason   string

	// Failed: the entry is always logged, like those with a Status of 500 and above.
	Failed     bool
	GRPCStatus string // name of the status code of a gRPC call; empty: none
}

// Try is an attempt with one peer.
type Try struct {
	Peer     string
	Outcome  string        // without characters that need an escape
	Status   int           // of the peer's response; 0: none
	Start    time.Duration // from the start of the request
	Duration time.Duration
}
