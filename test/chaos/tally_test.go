package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// tally is the result of all seeds. Its methods may be called concurrently.
type tally struct {
	mu sync.Mutex
	// mu guards the fields below.
	requests, failed int64
	slowest          time.Duration // of the requests
	served           map[string][]time.Duration
}

// recovered records the time from the end of a fault until a new app was served.
func (t *tally) recovered(fault string, served time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.served == nil {
		t.served = make(map[string][]time.Duration)
	}
	t.served[fault] = append(t.served[fault], served)
}

func (t *tally) requested(l *load) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests += l.sent.Load()
	t.failed += l.failed.Load()
	t.slowest = max(t.slowest, l.slowest())
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests, %d failed, the slowest %v\n", t.requests, t.failed, t.slowest.Round(time.Millisecond))
	fmt.Fprintf(&b, "%-36s %6s %10s %10s\n", "a new app is served after", "faults", "median", "slowest")
	var all []time.Duration
	row := func(name string, served []time.Duration) {
		slices.Sort(served)
		fmt.Fprintf(&b, "%-36s %6d %10v %10v\n", name, len(served), served[len(served)/2].Round(time.Millisecond), served[len(served)-1].Round(time.Millisecond))
	}
	for _, name := range slices.Sorted(maps.Keys(t.served)) {
		row(name, t.served[name])
		all = append(all, t.served[name]...)
	}
	if len(all) > 0 {
		row("all", all)
	}
	return b.String()
}
