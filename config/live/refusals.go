package live

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Refusal is what a source offers and sluice does not use.
type Refusal struct {
	Time time.Time
	Err  error
}

// refusals are what sources offer and sluice does not use, by source. Its methods may be
// called concurrently.
type refusals struct {
	mu       sync.Mutex
	bySource map[string]Refusal // guarded by mu
}

// all returns a copy.
func (r *refusals) all() map[string]Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.bySource)
}

// set replaces the refusals by refusals for these errors, and returns the sources with another
// error than before, sorted.
func (r *refusals) set(errs map[string]error) (fresh []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := make(map[string]Refusal, len(errs))
	for _, source := range slices.Sorted(maps.Keys(errs)) {
		before, known := r.bySource[source]
		if known && before.Err.Error() == errs[source].Error() {
			now[source] = before
			continue
		}
		now[source] = Refusal{Time: time.Now(), Err: errs[source]}
		fresh = append(fresh, source)
	}
	r.bySource = now
	return fresh
}
