package accesslog

import "time"

// ProtoTCP is the Proto of a connection of a listener for TCP, which has no method and
// no target.
const ProtoTCP = "TCP"

// Entry describes one finished request or connection; docs/access-log.md explains the fields. Log
// does not retain the slices.
type Entry struct {
	Time   time.Time
	Client string

	Method    []byte
	Host      []byte
	Target    []byte
	Proto     string
	UserAgent []byte
	Referer   []byte

	Status   int
	BytesIn  int64
	BytesOut int64

	Duration time.Duration
	Upstream time.Duration // 0: no response head arrived
	Connect  time.Duration // 0: no connection was opened

	Service  string
	Peer     string
	Group    string // of the peer; empty: its service has no groups
	Attempts int
	Reason   string

	// Failed: the entry is always logged, like those with a Status of 500 and above.
	Failed     bool
	GRPCStatus string // name of the status code of a gRPC call; empty: none
}
