package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// Debounce configures the batching of additions and updates. Removals never wait.
type Debounce struct {
	// Quiet is the time without a change before Sink gets a set. If Sink has got no
	// addition or update for this time, the next one does not wait. 0: no change waits.
	Quiet time.Duration `key:"quiet" default:"100ms" min:"0s" max:"1m"`
	// MaxWait is the longest wait of a change.
	MaxWait time.Duration `key:"max_wait" default:"1s" min:"0s" max:"5m"`
}

// Set is the full set of a service's instances, normalised, and where it is from.
type Set struct {
	Service   string
	Source    string // the name of the source that reported it, as in WatchStatus
	Instances []Instance
}

// ManagerOptions configures a Manager.
type ManagerOptions struct {
	Debounce Debounce
	// Sink gets the set of a service after each change, and the first set of each source, even if
	// it is the same. One goroutine calls it, so it should be fast, and it must not modify the set.
	// It may call the manager's methods, except Run.
	Sink func(Set)

	// Fallback returns the saved state, with Restored, of a service without a set. Its source
	// gets the state, which is in use when the first query fails, or after a second. source is as
	// in WatchStatus, and addresses as in WatchState. It is called once for each watch at most,
	// and must neither block nor call the manager. May be nil.
	Fallback func(service, source, addresses string) (state WatchState, ok bool)

	// Complete adds to a set the failed instances on probation, which only the service's pool
	// knows. It must not call the manager. May be nil.
	Complete func(service string, set []Instance) []Instance

	Log    zerolog.Logger
	Events *events.Feed // gets what happens to the watches; may be nil
}

// fallbackAfter is how long a watch without a set waits for its source.
const fallbackAfter = time.Second

// Manager runs the sources of many services and passes their sets to one Sink. It is
// safe for concurrent use.
type Manager struct {
	options ManagerOptions
	wake    wake.One // the queue or starting has changed
	again   wake.All // m is not paused any more
	sources sync.WaitGroup
	pausing sync.Mutex // one Pause or Resume at a time

	mu          sync.Mutex // guards the fields below, and the fields of every watch
	debounce    Debounce
	running     bool
	paused      bool
	resumed     func(service string) bool // services that run although paused; nil: none
	watches     map[string]*watch
	former      map[string]WatchState // of the process before, by service
	starting    []*watch              // whose sources do not run yet
	queue       queue
	onProbation map[*watch]bool // with instances on probation
}

// NewManager returns a manager. Run starts its sources.
func NewManager(o ManagerOptions) *Manager {
	return &Manager{
		options:  o,
		wake:     wake.NewOne(),
		debounce: o.Debounce,
		watches:  make(map[string]*watch),

		onProbation: make(map[*watch]bool),
	}
}

// Run runs the sources of the watched services and calls Sink until ctx ends, and returns ctx's
// error after the last source returned. It may be called once.
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

// Watch starts to watch service with s. It may be called before and during Run. It stops another
// source of the same service, whose last set stays in use until s reports one; the watch is stale
// until then. known is what is known of the source, for a service without a set.
func (m *Manager) Watch(service string, s Source, known ...WatchState) {
	w := &watch{manager: m, source: s}
	w.status = WatchStatus{Service: service, Source: NameOf(s), Since: time.Now()}
	w.settled = make(chan struct{})
	_, w.static = s.(*Static)

	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.watches[service]; old != nil {
		m.inheritLocked(w, old)
		m.retireLocked(old)
	}
	m.watches[service] = w
	for _, k := range known {
		w.adoptLocked(k)
	}
	m.recordProbationLocked(w)
	m.starting = append(m.starting, w)
	m.wake.Send()
}

// Unwatch stops watching service, if it is watched. It does not call Sink. A running
// call of Sink may end after Unwatch has returned.
func (m *Manager) Unwatch(service string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.watches[service]; w != nil {
		m.retireLocked(w)
		delete(m.watches, service)
	}
}

// AwaitSources waits until Sink has the set of every [Static] source that is watched now, and then
// for the first set from the source of each of services, at most for timeout or until ctx ends.
// Without Run, and while m is paused, it returns at once. Sink must not call it.
func (m *Manager) AwaitSources(ctx context.Context, timeout time.Duration, services ...string) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, settled := range m.unsettled(services) {
		if wake.Await(ctx, settled) != nil {
			return
		}
	}
}

func (m *Manager) unsettled(services []string) (pending []chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.running || m.paused {
		return nil
	}
	for _, w := range m.watches {
		if w.static && w.settled != nil {
			pending = append(pending, w.settled)
		}
	}
	for _, service := range services {
		if w := m.watches[service]; w != nil && w.settled != nil {
			pending = append(pending, w.settled)
		}
	}
	return pending
}

// AwaitResume waits while m is paused, at most for timeout or until ctx ends. It reports whether m
// was paused, and is no longer.
func (m *Manager) AwaitResume(ctx context.Context, timeout time.Duration) bool {
	again := m.again.Wait() // before the look
	m.mu.Lock()
	paused := m.paused
	m.mu.Unlock()
	if !paused {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return wake.Await(ctx, again) == nil
}

// UseFallback gives each watch without a set the set of Fallback now: the caller cannot wait for
// its source.
func (m *Manager) UseFallback() {
	m.mu.Lock()
	watches := slices.Collect(maps.Values(m.watches))
	m.mu.Unlock()
	for _, w := range watches {
		w.restore()
	}
}

// SetDebounce changes the batching, also of changes that wait.
func (m *Manager) SetDebounce(d Debounce) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.debounce = d
	for _, w := range slices.Clone(m.queue) {
		m.scheduleLocked(w)
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

// Status returns the status of the watch of a service. It costs less than Statuses. Without a watch
// it is empty.
func (m *Manager) Status(service string) WatchStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.watches[service]; w != nil {
		return w.status
	}
	return WatchStatus{}
}

// startSources starts the sources that do not run yet, each in its own goroutine.
func (m *Manager) startSources(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var waiting []*watch
	for _, w := range m.starting {
		switch {
		case w.retired:
			continue
		case m.paused && (m.resumed == nil || !m.resumed(w.status.Service)):
			waiting = append(waiting, w)
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		w.cancel = cancel
		m.sources.Go(func() {
			defer panics.Contain(panics.Watch, nil)
			defer cancel()
			if m.options.Fallback != nil {
				late := time.AfterFunc(fallbackAfter, func() {
					defer panics.Contain(panics.Watch, nil)
					w.restore()
				})
				defer late.Stop()
			}
			panics.Repeat(ctx.Done(), panics.Watch, watchAgain, func() {
				err := panics.Err
				defer func() {
					if ctx.Err() == nil {
						w.apply(Report{Err: fmt.Errorf("the watch ended: %w", cmp.Or(err, errSourceEnded))})
					}
				}()
				err = w.source.Run(ctx, w.before(), w.apply)
			})
		})
	}
	m.starting = waiting
}

// watchAgain is the pause before a source runs again that has panicked.
const watchAgain = time.Second

var errSourceEnded = errors.New("source returned without an error")

// handOver calls Sink for each set that is due, and sets timer for the next one.
func (m *Manager) handOver(ctx context.Context, timer *time.Timer) {
	for ctx.Err() == nil {
		w, set := m.nextDue(timer)
		if w == nil {
			return
		}
		m.handOverOne(w, set)
	}
}

// handOverOne hands a set over. If Sink panics, the other services get theirs.
func (m *Manager) handOverOne(w *watch, set Set) {
	defer m.closeSettled(w)
	defer panics.Contain(panics.Watch, nil)
	m.options.Sink(set)
}

// nextDue removes the watch whose set is due from the queue, and records that Sink gets the set.
// If none is due, it sets timer for the next one, and returns nil.
func (m *Manager) nextDue(timer *time.Timer) (*watch, Set) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) == 0 {
		return nil, Set{}
	}
	now := time.Now()
	w := m.queue[0]
	if wait := w.due.Sub(now); wait > 0 {
		timer.Reset(wait)
		return nil, Set{}
	}
	m.queue.remove(w)
	set := w.latest
	if !takesAway(w.applied, set) || takesAway(set, w.applied) {
		w.batched = now
	}
	w.applied, w.handed = set, w.reported
	w.status.Changes++
	w.status.LastChange = now
	return w, Set{Service: w.status.Service, Source: w.origin, Instances: set}
}

// closeSettled closes settled if Sink has got a set that the source has reported.
func (m *Manager) closeSettled(w *watch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.settled != nil && w.handed {
		close(w.settled)
		w.settled = nil
	}
}

// scheduleLocked schedules the call of Sink with w's latest set.
func (m *Manager) scheduleLocked(w *watch) {
	if !m.queue.has(w) {
		w.waiting = w.changed
	}
	switch {
	case w.status.Changes == 0:
		w.due = w.changed
	case equalSets(w.applied, w.latest) && !w.firstLocked():
		m.queue.remove(w)
		return
	case w.settled != nil, takesAway(w.applied, w.latest), w.waiting.Equal(w.changed) && w.changed.Sub(w.batched) >= m.debounce.Quiet:
		w.due = w.changed
	default:
		w.due = w.changed.Add(m.debounce.Quiet)
		if limit := w.waiting.Add(m.debounce.MaxWait); limit.Before(w.due) {
			w.due = limit
		}
	}
	m.queue.add(w)
	m.wake.Send()
}

// inheritLocked copies the state of old to w.
func (m *Manager) inheritLocked(w, old *watch) {
	w.known, w.origin, w.latest, w.memory, w.applied = old.known, old.origin, old.latest, old.memory, old.applied
	w.arrived, w.first = old.arrived, old.first
	w.changed, w.waiting, w.due, w.batched = old.changed, old.waiting, old.due, old.batched
	w.status.Changes, w.status.LastChange = old.status.Changes, old.status.LastChange
	w.status.Instances, w.status.LastSuccess = old.status.Instances, old.status.LastSuccess
	w.status.Probation, w.status.Restored = old.status.Probation, old.status.Restored
	if w.origin == w.status.Source {
		w.status.Endpoint, w.status.Index = old.status.Endpoint, old.status.Index
	}
	if w.known {
		w.status.State = WatchStale
	}
	if m.queue.has(old) {
		m.queue.add(w)
	}
}

// retireLocked ends w's source and removes w from the queue.
func (m *Manager) retireLocked(w *watch) {
	w.retired = true
	delete(m.onProbation, w)
	m.queue.remove(w)
	if w.settled != nil {
		close(w.settled)
		w.settled = nil
	}
	if w.cancel != nil {
		w.cancel()
	}
}

// equalSets compares normalised sets.
func equalSets(a, b []Instance) bool {
	return slices.EqualFunc(a, b, Instance.Equal)
}

// takesAway reports whether latest lacks an instance of applied, or takes one out of service,
// out of use on probation, or out of the lead. A change of the reason counts, too:
// a pool may use critical instances that pass its own checks, but none in maintenance mode.
// Both sets are normalised.
func takesAway(applied, latest []Instance) bool {
	for _, old := range applied {
		for len(latest) > 0 && compareKeys(latest[0], old) < 0 {
			latest = latest[1:]
		}
		if len(latest) == 0 || compareKeys(latest[0], old) != 0 {
			return true
		}
		if latest[0].Failed != "" && old.Failed == "" || latest[0].Follower && !old.Follower || !latest[0].Serving() && (old.Serving() || old.Status != latest[0].Status) {
			return true
		}
	}
	return false
}

// NameOf returns the name of a source in states, statuses and logs.
func NameOf(s Source) string {
	if named, ok := s.(fmt.Stringer); ok {
		return named.String()
	}
	return fmt.Sprintf("%T", s)
}

// addressesOf returns the addresses of an Addressed source; else "".
func addressesOf(s Source) string {
	if a, ok := s.(Addressed); ok {
		return a.Addresses()
	}
	return ""
}
