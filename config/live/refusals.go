package live

import (
	"maps"
	"slices"
	"sync"
	"time"

	"sluice/config"
)

// refusals are what sources offer and sluice does not use, by source. Its methods may be
// called concurrently.
type refusals struct {
	mu       sync.Mutex
	bySource map[string]config.Refusal // guarded by mu
}

// all returns a copy.
func (r *refusals) all() map[string]config.Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.bySource)
}

// latest returns the latest one; nil: there is none.
func (r *refusals) latest() (latest *config.Refusal) {
	for _, one := range r.all() {
		if latest == nil || one.Time.After(latest.Time) {
			latest = &one
		}
	}
	return latest
}

// set replaces the refusals by refusals for these errors, and returns the sources with another
// error than before, sorted.
func (r *refusals) set(errs map[string]error) (fresh []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := make(map[string]config.Refusal, len(errs))
	for _, source := range slices.Sorted(maps.Keys(errs)) {
		before, known := r.bySource[source]
		if known && before.Err.Error() == errs[source].Error() {
			now[source] = before
			continue
		}
		now[source] = config.Refusal{Time: time.Now(), Source: source, Err: errs[source]}
		fresh = append(fresh, source)
	}
	r.bySource = now
	return fresh
}
