package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Debounce says how additions and updates of a service are batched. Removals
// never wait.
type Debounce struct {
	// Quiet is how long nothing must have changed before a set is handed on, and
	// how long no addition or update must have been handed on for the next one
	// not to wait at all. 0 means 100 ms, a negative value means no wait.
	Quiet time.Duration
	// MaxWait is the longest that a change waits for a quiet moment. 0 means
	// 1 s, a negative value means no wait.
	MaxWait time.Duration
}

func (d Debounce) withDefaults() Debounce {
	d.Quiet = max(0, cmp.Or(d.Quiet, 100*time.Millisecond))
	d.MaxWait = max(0, cmp.Or(d.MaxWait, time.Second))
	return d
}

// ManagerOptions configures a Manager.
type ManagerOptions struct {
	Debounce Debounce
	// Sink gets the full, normalised set of a service each time it changed. It
	// is called by one goroutine, so it should be quick, and must not change the
	// set. It may call the manager's methods, except Run.
	Sink func(service string, set []Instance)

	// Fallback returns a set to begin with for a service whose source has not
	// reported one when its first query failed, or after a second, and the time at
	// which that set was known to be true. Source is the source in words, as in
	// WatchStatus. It is called once for a watch at most, and must neither block
	// nor call the manager. May be nil.
	Fallback func(service, source string) (set []Instance, asOf time.Time, ok bool)

	Log zerolog.Logger
}

// fallbackAfter is how long a watch without a set waits for its source.
const fallbackAfter = time.Second

// Manager runs the sources of many services and hands their sets to one Sink.
// It is safe for concurrent use.
type Manager struct {
	sink     func(service string, set []Instance)
	fallback func(service, source string) ([]Instance, time.Time, bool)
	log      zerolog.Logger
	wake     chan struct{} // capacity 1: the queue or starting has changed
	sources  sync.WaitGroup
	pausing  sync.Mutex // one Pause or Resume at a time

	mu       sync.Mutex // guards the fields below, and those of every Watch
	debounce Debounce
	running  bool
	paused   bool
	watches  map[string]*Watch
	starting []*Watch // their sources do not run yet
	queue    queue
}

// NewManager makes a manager; Run starts its work.
func NewManager(o ManagerOptions) *Manager {
	return &Manager{
		sink:     o.Sink,
		fallback: o.Fallback,
		log:      o.Log,
		wake:     make(chan struct{}, 1),
		debounce: o.Debounce.withDefaults(),
		watches:  make(map[string]*Watch),
	}
}

// Run runs the sources of the watched services and calls Sink until ctx ends,
// and returns ctx's error after the last source returned. It may be called
// once.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	again := m.running
	m.running = true
	m.mu.Unlock()
	if again {
		return errors.New("discovery: Manager.Run called twice")
	}

	defer m.sources.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		m.startSources(ctx)
		m.handOver(ctx, timer)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.wake:
		case <-timer.C:
		}
	}
}

// Watch starts to watch service through s. It may be called before and during
// Run. Another source of the same service is stopped; its last set stays until
// s reports one, and the watch is stale until then.
func (m *Manager) Watch(service string, s Source) {
	w := &Watch{manager: m, source: s, index: -1}
	w.status = WatchStatus{Service: service, Source: name{s}.String(), Since: time.Now()}

	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.watches[service]; old != nil {
		m.inherit(w, old)
		m.retire(old)
	}
	m.watches[service] = w
	m.starting = append(m.starting, w)
	m.poke()
}

// Unwatch stops to watch service; one that is not watched is ignored. Sink is
// not told. A call of Sink that is under way may end after Unwatch returned.
func (m *Manager) Unwatch(service string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.watches[service]; w != nil {
		m.retire(w)
		delete(m.watches, service)
	}
}

// SetDebounce changes how changes are batched, also those that wait now.
func (m *Manager) SetDebounce(d Debounce) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.debounce = d.withDefaults()
	for _, w := range slices.Clone(m.queue) {
		m.schedule(w)
	}
}

// Statuses returns the status of every watch, sorted by service.
func (m *Manager) Statuses() []WatchStatus {
	m.mu.Lock()
	statuses := make([]WatchStatus, 0, len(m.watches))
	for _, w := range m.watches {
		statuses = append(statuses, w.status)
	}
	m.mu.Unlock()
	slices.SortFunc(statuses, func(a, b WatchStatus) int { return cmp.Compare(a.Service, b.Service) })
	return statuses
}

// startSources runs the sources that do not run yet, each in its goroutine.
func (m *Manager) startSources(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.paused {
		return
	}
	for _, w := range m.starting {
		if w.retired {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		w.cancel = cancel
		m.sources.Go(func() {
			defer cancel()
			if m.fallback != nil {
				late := time.AfterFunc(fallbackAfter, w.Restore)
				defer late.Stop()
			}
			if err := w.source.Run(ctx, w); ctx.Err() == nil {
				w.Failed(fmt.Errorf("the watch ended: %w", cmp.Or(err, errSourceEnded)))
			}
		})
	}
	m.starting = nil
}

var errSourceEnded = errors.New("its source returned without an error")

// handOver calls Sink for each set that is due, and sets timer for the next.
func (m *Manager) handOver(ctx context.Context, timer *time.Timer) {
	for ctx.Err() == nil {
		m.mu.Lock()
		if len(m.queue) == 0 {
			m.mu.Unlock()
			return
		}
		now := time.Now()
		w := m.queue[0]
		if wait := w.due.Sub(now); wait > 0 {
			timer.Reset(wait)
			m.mu.Unlock()
			return
		}
		m.queue.remove(w)
		set := w.latest
		if !takesAway(w.applied, set) || takesAway(set, w.applied) {
			w.batched = now
		}
		w.applied = set
		w.status.Changes++
		w.status.LastChange = now
		m.mu.Unlock()
		m.sink(w.Service(), set)
	}
}

// schedule decides when Sink is to get w's latest set. It needs mu.
func (m *Manager) schedule(w *Watch) {
	if w.index < 0 {
		w.waiting = w.changed
	}
	switch {
	case w.status.Changes == 0:
		w.due = w.changed
	case equalSets(w.applied, w.latest):
		m.queue.remove(w)
		return
	case takesAway(w.applied, w.latest), w.waiting.Equal(w.changed) && w.changed.Sub(w.batched) >= m.debounce.Quiet:
		w.due = w.changed
	default:
		w.due = w.changed.Add(m.debounce.Quiet)
		if limit := w.waiting.Add(m.debounce.MaxWait); limit.Before(w.due) {
			w.due = limit
		}
	}
	m.queue.add(w)
	m.poke()
}

// inherit gives w what old knows. It needs mu.
func (m *Manager) inherit(w, old *Watch) {
	w.known, w.origin, w.latest, w.applied = old.known, old.origin, old.latest, old.applied
	w.changed, w.waiting, w.due, w.batched = old.changed, old.waiting, old.due, old.batched
	w.status.Changes, w.status.LastChange = old.status.Changes, old.status.LastChange
	w.status.Instances, w.status.LastSuccess = old.status.Instances, old.status.LastSuccess
	w.status.Probation, w.status.Restored = old.status.Probation, old.status.Restored
	if w.known {
		w.status.State = WatchStale
	}
	if old.index >= 0 {
		m.queue.add(w)
	}
}

// retire ends w's source and what waits of it. It needs mu.
func (m *Manager) retire(w *Watch) {
	w.retired = true
	m.queue.remove(w)
	if w.cancel != nil {
		w.cancel()
	}
}

// poke makes Run look at the queue and the starting sources again.
func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// equalSets compares normalised sets.
func equalSets(a, b []Instance) bool {
	return slices.EqualFunc(a, b, Instance.Equal)
}

// takesAway reports whether latest lacks an instance of applied, or no longer
// wants traffic for one that it did. One that was out of service already counts
// if it now is for another reason: who uses critical instances, because checks
// of its own say that they work, must still hear at once that one is put into
// maintenance mode. Both are normalised.
func takesAway(applied, latest []Instance) bool {
	for _, old := range applied {
		for len(latest) > 0 && compareKeys(latest[0], old) < 0 {
			latest = latest[1:]
		}
		if len(latest) == 0 || compareKeys(latest[0], old) != 0 {
			return true
		}
		if !latest[0].Serving() && (old.Serving() || old.Status != latest[0].Status) {
			return true
		}
	}
	return false
}

// name is a source in words.
type name struct{ source Source }

func (n name) String() string {
	if s, ok := n.source.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T", n.source)
}
