//go:build unix

package rolling

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

type kind struct {
	protocol protocol
	method   string // of HTTP, or one of the gRPC methods below
	length   int    // of the body, or of each message
	fresh    bool   // on a new connection; otherwise on a persistent one
}

// Methods of gRPC.
const (
	unary        = "unary"
	clientStream = "client stream"
	serverStream = "server stream"
	bidiStream   = "bidi stream"
)

func (k kind) String() string {
	b := k.method
	if k.protocol != plain {
		b = fmt.Sprintf("%s, %s", k.protocol, k.method)
	}
	switch {
	case k.length >= 1000:
		b += fmt.Sprintf(" %d kB", k.length/1000)
	case k.length > 0:
		b += fmt.Sprintf(" %d B", k.length)
	}
	if k.fresh {
		return b + ", fresh"
	}
	return b + ", keep-alive"
}

func (k kind) isGRPC() bool { return k.protocol == grpcH2 || k.protocol == grpcH2C }

// repeatable reports whether the request may be sent twice.
func (k kind) repeatable() bool { return k.method == http.MethodGet }

func (k kind) path(id int) string {
	if k.isGRPC() {
		return grpcService + strconv.Itoa(id)
	}
	return "/" + strconv.Itoa(id)
}

// mix is the order of kinds of requests in a load, which repeats.
type mix []kind

func (m mix) kinds() (kinds []kind) {
	for _, k := range m {
		if !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

var (
	getKept    = kind{plain, "GET", 0, false}
	getFresh   = kind{plain, "GET", 0, true}
	postKept   = kind{plain, "POST", 200, false}
	postFresh  = kind{plain, "POST", 200, true}
	largeKept  = kind{plain, "POST", 100_000, false}
	largeFresh = kind{plain, "POST", 100_000, true}

	plainMix = mix{
		getKept, postKept, getFresh, getKept, postFresh, getKept, postKept, getFresh, getKept, largeKept,
		getKept, postKept, getFresh, getKept, postFresh, getKept, postKept, getFresh, getKept, largeFresh,
	}
	// httpMix has all protocols of HTTP.
	httpMix = mix{
		{https, "GET", 0, false}, {h2, "GET", 0, false}, {h2, "POST", 200, false}, {h2c, "GET", 0, false}, {https, "POST", 200, false},
		{h2, "GET", 0, true}, {h2, "POST", 100_000, false}, {https, "GET", 0, true}, {h2c, "POST", 200, false}, getKept,
		{h2, "GET", 0, false}, {https, "POST", 100_000, false}, {h2, "POST", 200, true}, {h2c, "POST", 100_000, false}, postKept,
		{h3, "GET", 0, false}, {h3, "POST", 200, false}, {h3, "GET", 0, false}, {h3, "POST", 100_000, false},
	}
	grpcMix = mix{
		{grpcH2C, unary, 200, false}, {grpcH2, unary, 200, false}, {grpcH2, bidiStream, 200, false}, {grpcH2, unary, 0, false},
		{grpcH2C, serverStream, 200, false}, {grpcH2, unary, 100_000, false}, {grpcH2C, bidiStream, 5_000, false}, {grpcH2C, unary, 0, false},
		{grpcH2, clientStream, 5_000, false}, {grpcH2C, unary, 200, true}, {grpcH2, serverStream, 0, true}, {grpcH2C, clientStream, 200, false},
	}
)

// requestTimeout is the timeout of a client.
const requestTimeout = 2 * time.Minute

// maxInFlight returns how many requests of a load may be in flight. On an overloaded machine
// more would accumulate, and all loads of a test together run out of file descriptors.
func maxInFlight(perSecond int) int64 { return int64(max(perSecond, 100)) }

type result struct {
	id      int
	kind    kind
	due     time.Time     // scheduled time
	latency time.Duration // since then
	err     error
}

// load sends requests at a constant rate, also if earlier ones have not ended. The client
// does not retry.
type load struct {
	senders  map[protocol]sender
	cancel   context.CancelFunc
	running  sync.WaitGroup
	inFlight atomic.Int64
	unsent   atomic.Int64 // requests that were not sent because of maxInFlight

	mu      sync.Mutex // guards the field below
	results []result
}

func startLoad(to target, m mix, perSecond int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{senders: make(map[protocol]sender), cancel: cancel}
	body := bytes.Repeat([]byte("0123456789abcdef"), 100_000/16+1)
	for _, k := range m {
		if l.senders[k.protocol] == nil {
			l.senders[k.protocol] = to.sender(k.protocol, body)
		}
	}
	l.running.Go(func() {
		start := time.Now()
		timer := time.NewTimer(0)
		defer timer.Stop()
		for id := 0; ; id++ {
			due := start.Add(time.Duration(id) * time.Second / time.Duration(perSecond))
			timer.Reset(time.Until(due))
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			if l.inFlight.Load() >= maxInFlight(perSecond) {
				l.unsent.Add(1)
				continue
			}
			l.inFlight.Add(1)
			l.running.Go(func() {
				defer l.inFlight.Add(-1)
				l.one(id, m[id%len(m)], due)
			})
		}
	})
	return l
}

// stop ends the load, waits for the requests in flight, and returns all results.
func (l *load) stop() []result {
	l.cancel()
	l.running.Wait()
	for _, s := range l.senders {
		s.close()
	}
	return l.results
}

func (l *load) one(id int, k kind, due time.Time) {
	err := l.senders[k.protocol].send(id, k, due.Add(requestTimeout))
	latency := time.Since(due)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.results = append(l.results, result{id, k, due, latency, err})
}
