//go:build unix

package rolling

import (
	"bytes"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ledger is what the instances of a mode know of the requests that reached
// them. It is safe for concurrent use.
type ledger struct {
	mu       sync.Mutex           // guards the fields below
	reached  map[int][]string     // ids of the instances that a request reached, by the request's id
	answered map[int]bool         // requests that an instance has sent a whole answer to
	late     map[int]bool         // requests that reached a connection at its end
	doomed   map[string]bool      // instances that die or hang
	dead     map[string]time.Time // when an instance had died, by its address
	first    map[string]time.Time // when an instance got its first request
}

func newLedger() *ledger {
	return &ledger{
		reached: make(map[int][]string), answered: make(map[int]bool), late: make(map[int]bool),
		doomed: make(map[string]bool), dead: make(map[string]time.Time), first: make(map[string]time.Time),
	}
}

// note takes in that a request reached an instance.
func (l *ledger) note(instance string, request int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reached[request] = append(l.reached[request], instance)
	if l.first[instance].IsZero() {
		l.first[instance] = time.Now()
	}
}

// noteAnswer takes in that a request was answered.
func (l *ledger) noteAnswer(request int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered[request] = true
}

// noteLate takes in bytes that reached a connection which its instance closes,
// whatever they are.
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

// doom takes in that an instance dies or hangs: what has reached it may be
// lost.
func (l *ledger) doom(instance string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doomed[instance] = true
}

// bury takes in that an instance has died.
func (l *ledger) bury(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead[address] = time.Now()
}

// crossed reports whether a request that was sent to an address at some time may
// have crossed the end of its connection: the instance there had not died yet, and
// what arrives between its last look and the reset no instance knows of.
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

// lost reports whether a request reached an instance that died or hung, or
// closed the connection at that moment, before it answered.
func (l *ledger) lost(request int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.answered[request] && (l.late[request] ||
		slices.ContainsFunc(l.reached[request], func(instance string) bool { return l.doomed[instance] }))
}
