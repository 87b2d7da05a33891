package listeners

import (
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxRouted limits the names of routes that a listener gets certificates for.
	maxRouted = 1000
	// ordersAtOnce and orderEvery limit the orders for new names of routes: Let's Encrypt takes 300
	// in three hours from an account, and one service must not take those of others.
	ordersAtOnce = 100
	orderEvery   = time.Minute
)

// routed are the names that a listener gets certificates for because its routes have them. Names
// without a certificate are ordered in turn. It is safe for concurrent use.
type routed struct {
	mu sync.Mutex
	// mu guards the fields below.
	names   []string        // in their turn; it is replaced, not changed
	set     map[string]bool // of names
	ordered map[string]bool // of names
	limiter *rate.Limiter
}

// replace replaces the names, which are in lower case, in the order in which they get a turn. Those
// beyond maxRouted are left out, but none that had its turn is for one that had none.
func (r *routed) replace(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var had, others []string
	for _, name := range names {
		if r.ordered[name] {
			had = append(had, name)
		} else {
			others = append(others, name)
		}
	}
	names = slices.Concat(had, others)
	names = names[:min(len(names), maxRouted)]
	set, ordered := make(map[string]bool), make(map[string]bool)
	for _, name := range names {
		set[name] = true
		if r.ordered[name] {
			ordered[name] = true
		}
	}
	r.names, r.set, r.ordered = names, set, ordered
}

// waits reports whether a name waits for its turn.
func (r *routed) waits() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ordered) < len(r.names)
}

func (r *routed) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names
}

// has reports whether a name, in any case, is one of them.
func (r *routed) has(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set[strings.ToLower(name)]
}

// due returns the names whose certificates may be ordered or renewed now. obtained reports which
// names have a certificate: they wait for no turn.
func (r *routed) due(obtained func(name string) bool) (due []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limiter == nil {
		r.limiter = rate.NewLimiter(rate.Every(orderEvery), ordersAtOnce)
	}
	for _, name := range r.names {
		if r.ordered[name] || obtained(name) || r.limiter.Allow() {
			r.ordered[name] = true
			due = append(due, name)
		}
	}
	return due
}
