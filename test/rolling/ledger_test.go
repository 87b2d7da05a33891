//go:build unix

package rolling

import (
	"bytes"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ledger records the requests that reached the instances of a mode. Its methods may be called
// concurrently.
type ledger struct {
	mu       sync.Mutex           // guards the fields below
	reached  map[int][]string     // ids of the instances that a request reached, by id of the request
	answered map[int]bool         // requests with a complete response
	late     map[int]bool         // requests that arrived during the close of a connection
	doomed   map[string]bool      // instances that die or hang
	dead     map[string]time.Time // when bury was last called, by the address of the instance
	first    map[string]time.Time // time of the first request of an instance
}

func newLedger() *ledger {
	return &ledger{
		reached: make(map[int][]string), answered: make(map[int]bool), late: make(map[int]bool),
		doomed: make(map[string]bool), dead: make(map[string]time.Time), first: make(map[string]time.Time),
	}
}

func (l *ledger) note(instance string, request int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reached[request] = append(l.reached[request], instance)
	if l.first[instance].IsZero() {
		l.first[instance] = time.Now()
	}
}

func (l *ledger) noteAnswer(request int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered[request] = true
}

// noteLate records data that reached a connection during its close.
func (l *ledger) noteLate(instance string, b []byte) {
	method, rest, ok := bytes.Cut(b, []byte(" /"))
	if !ok || string(method) != "GET" && string(method) != "POST" {
		return // not the start of a request
	}
	digits, _, _ := bytes.Cut(rest, []byte(" "))
	id, err := strconv.Atoi(string(digits))
	if err != nil {
		return
	}
	l.note(instance, id)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.late[id] = true
}

// doom records that an instance dies or hangs: its requests may be lost.
func (l *ledger) doom(instance string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doomed[instance] = true
}

// bury records that an instance has died, or was too slow to read a new connection and closed it:
// requests may have arrived that it has not read.
func (l *ledger) bury(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead[address] = time.Now()
}

// crossed reports whether a request, sent to an address at some time, may have crossed the
// end of its connection. A request between the last read of the instance and the reset is not
// recorded.
func (l *ledger) crossed(address string, sent time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return sent.Before(l.dead[address])
}

// used returns when an instance got its first request, or the zero time.
func (l *ledger) used(instance string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first[instance]
}

// visited returns the instances that a request reached, in order.
func (l *ledger) visited(request int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.reached[request])
}

// lost reports whether a request reached an instance that died, hung or closed the connection
// before it answered.
func (l *ledger) lost(request int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.answered[request] && (l.late[request] ||
		slices.ContainsFunc(l.reached[request], func(instance string) bool { return l.doomed[instance] }))
}
