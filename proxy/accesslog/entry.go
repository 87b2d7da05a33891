package accesslog

import "time"

// ProtoTCP is the Proto of a connection of a listener for TCP, which has no method and
// no target.
const ProtoTCP = "TCP"

// Entry describes one finished request or connection; docs/access-log.md explains the fields. Log
// does not retain the slices.
//
// The tag log names the variable of a field. Lines of JSON have the fields in this order, without
// zero fields, but for tags with "always", and with "http" for all but TCP. With "word" it is one
// word in templates.
type Entry struct {
	Time      time.Time `log:"time"`
	RequestID []byte    `log:"request_id"`
	TraceID   []byte    `log:"trace_id"`
	Client    []byte    `log:"client,always"`
	Proxy     string    `log:"proxy"` // address of the trusted proxy that the client came through; empty: none
	User      string    `log:"user,word"`

	Method []byte `log:"method,http"`
	Host   []byte `log:"host"`
	Target []byte `log:"target,http"`
	Proto  string `log:"proto,always"`

	TLSVersion    string `log:"tls_version"` // empty: without TLS
	TLSCipher     string `log:"tls_cipher"`
	TLSServerName string `log:"tls_server_name"`

	Status         int64         `log:"status,always"`
	GRPCStatus     string        `log:"grpc_status"`     // name of the status code of a gRPC call; empty: none
	UpstreamStatus int64         `log:"upstream_status"` // 0: the last peer has not answered
	BytesIn        int64         `log:"bytes_in,always"`
	BytesOut       int64         `log:"bytes_out,always"`
	Duration       time.Duration `log:"duration_ms,always"`

	Service  string        `log:"service"`
	Route    string        `log:"route"` // its name; empty: it has none
	Peer     string        `log:"peer"`
	Group    string        `log:"group"` // of the peer; empty: its service has no groups
	Attempts int64         `log:"attempts,always"`
	Tries    []Try         `log:"tries"`       // if there were several
	Upstream time.Duration `log:"upstream_ms"` // 0: no response head arrived
	Connect  time.Duration `log:"connect_ms"`  // 0: no connection was opened
	Reason   string        `log:"reason"`

	UserAgent []byte `log:"user_agent"`
	Referer   []byte `log:"referer"`

	Head []byte // of the request, in HTTP/1.1 text, for templates
	// Waited is how long the client has waited, for Options.Slow: it has no time in
	// which a tunnel was open.
	Waited time.Duration
	// Failed: the entry is always logged, like entries with a Status of 500 and above.
	Failed bool
}

// Try is an attempt with one peer.
type Try struct {
	Peer     string
	Outcome  string        // without characters that need an escape
	Status   int           // of the peer's response; 0: none
	Start    time.Duration // from the start of the request
	Duration time.Duration
}
