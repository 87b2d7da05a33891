package accesslog

import "time"

// Entry describes one finished request. The package's comment says what each
// field means in the log. Log reads the slices while it runs and keeps none.
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
	Upstream time.Duration // 0: no head of a response arrived
	Connect  time.Duration // 0: no connection was opened

	Service  string
	Peer     string
	Attempts int
	Reason   string
}
