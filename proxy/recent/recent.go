// Package recent keeps a sample of the requests of the last hour, so that operators see what
// another configuration would do with them.
package recent

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sluice/route"
)

const (
	// Age is how long a request is kept.
	Age = time.Hour
	// Every is how many seconds are between two requests of a route in the sample: a client
	// that sends more leaves the other routes their room.
	Every = 5
	// MaxHead is the size of the largest head that is kept, in bytes.
	MaxHead = 1 << 10

	// maxRequests bounds the requests of routes of the file, and those of other routes.
	maxRequests = 2048
)

// A Request is what conditions of routes read of a request.
type Request struct {
	Time        time.Time
	Listener    string             // its name
	Client      netip.Addr         // of the connection
	Certificate *route.Certificate // of the client; nil: none
	Head        []byte             // in HTTP/1.1, with what conditions read; may be secret
}

// Requests are a sample: at most 4096 of the last hour, half of them by routes of the file, however
// many routes tags and documents have. They are safe for concurrent use. The zero value is empty.
type Requests struct {
	// Unrouted is the turn of requests that no route matches.
	Unrouted route.Turn

	mu sync.Mutex
	// mu guards the fields below.
	ofFile, ofOthers []Request
}

// Add adds a request, by a route of others than the file or not. If there are too many it takes the
// place of one that chance chooses: each route adds as often as others, so each has as many.
func (r *Requests) Add(request Request, byOthers bool) {
	if len(request.Head) > MaxHead {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := &r.ofFile
	if byOthers {
		all = &r.ofOthers
	}
	if len(*all) < maxRequests {
		*all = append(*all, request)
		return
	}
	(*all)[rand.IntN(maxRequests)] = request
}

// Since returns the requests since begin, the oldest first.
func (r *Requests) Since(begin time.Time) []Request {
	r.mu.Lock()
	all := slices.Concat(r.ofFile, r.ofOthers)
	r.mu.Unlock()
	all = slices.DeleteFunc(all, func(request Request) bool { return request.Time.Before(begin) })
	slices.SortStableFunc(all, func(a, b Request) int { return a.Time.Compare(b.Time) })
	return all
}
