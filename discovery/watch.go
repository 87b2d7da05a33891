package discovery

import (
	"context"
	"errors"
	"time"
)

// WatchState says how current the set of a watch is.
type WatchState uint8

const (
	// WatchPending: no set is known yet.
	WatchPending WatchState = iota
	// WatchFresh: the last query was answered.
	WatchFresh
	// WatchStale: a set is known, but the source has not confirmed it since the
	// last error, or not yet since it replaced another source or since the set was
	// restored.
	WatchStale
)

// String returns the lower-case word for s.
func (s WatchState) String() string {
	switch s {
	case WatchPending:
		return "pending"
	case WatchFresh:
		return "fresh"
	case WatchStale:
		return "stale"
	}
	return "unknown"
}

// WatchStatus is what is known of a watch at one moment.
type WatchStatus struct {
	Service string
	Source  string // the source in words; its String method, if it has one

	// Endpoint is where the last set came from, such as the agent that answered;
	// empty if the source has no such thing.
	Endpoint string

	State WatchState
	Index uint64 // of the last answer; 0 where the registry has none

	Since       time.Time // when State began
	LastSuccess time.Time // zero: never
	LastChange  time.Time // when Sink last got a set; zero: never

	LastError string // of the last failed query; empty after a success
	Errors    uint64 // failed queries
	Refused   int    // of them, the last ones in a row that failed with ErrRefused
	Queries   uint64 // failed and answered queries
	Changes   uint64 // sets handed to Sink; at least 1 once the pool knows a first set
	Instances int    // in the last set that the source reported
	Probation int    // of them, those on probation; see Instance.Probation

	// Restored is the time at which the last set was known to be true, if it is
	// the Manager's Fallback; zero if the source has reported it.
	Restored time.Time
}

// Watch is one watched service: where its source reports, and what is known of
// how the watch fares. A Manager makes it. It is safe for concurrent use; after
// Unwatch, or once another source has replaced its own, it ignores reports.
type Watch struct {
	manager *Manager
	source  Source

	// The manager's mu guards the fields below.

	status  WatchStatus // its Service and Source never change
	failing bool        // the last query failed
	retired bool        // no longer the manager's watch of this service
	asked   bool        // for the fallback
	cancel  context.CancelFunc

	known   bool       // latest is a set, perhaps an empty one
	origin  string     // the source of latest in words
	latest  []Instance // as reported, normalised
	applied []Instance // as Sink last got it; meaningful if status.Changes > 0

	changed time.Time // when latest last changed
	waiting time.Time // since when latest differs from applied
	batched time.Time // when Sink last got more than removals
	due     time.Time // when Sink is to get latest; meaningful while queued
	index   int       // in the manager's queue; -1: not queued
}

// Service returns the name under which the service is watched.
func (w *Watch) Service() string { return w.status.Service }

// Emit reports the full set of instances as of now, in any order. It does not
// wait for Sink. The caller must not change set, or what it refers to, later.
func (w *Watch) Emit(set []Instance) {
	set = Normalize(set)
	m := w.manager
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.retired {
		return
	}
	w.status.Restored = time.Time{}
	w.origin = w.status.Source
	w.setLatest(set)
}

// setLatest makes a normalised set the latest one. It needs the manager's mu.
func (w *Watch) setLatest(set []Instance) {
	if w.known && equalSets(w.latest, set) {
		return
	}
	w.latest, w.known = set, true
	w.status.Instances, w.status.Probation = len(set), 0
	for _, i := range set {
		if !i.Probation.IsZero() {
			w.status.Probation++
		}
	}
	w.changed = time.Now()
	w.manager.schedule(w)
}

// Restore makes the manager's fallback the set, if there is none yet. The
// manager does so by itself when the source fails or is late; it is for a source
// that doubts its own first answer.
func (w *Watch) Restore() {
	m := w.manager
	if m.fallback == nil {
		return
	}
	m.mu.Lock()
	if w.known || w.asked || w.retired {
		m.mu.Unlock()
		return
	}
	w.asked = true
	set, asOf, ok := m.fallback(w.status.Service, w.status.Source)
	if ok {
		w.origin = w.status.Source
		w.setLatest(Normalize(set))
		w.setState(WatchStale, time.Now())
		w.status.Restored = asOf
	}
	m.mu.Unlock()
	if ok {
		m.log.Warn().Str("service", w.Service()).Stringer("source", name{w.source}).
			Int("instances", len(set)).Time("as_of", asOf).Msg("the saved set is used until the source is sure of its own")
	}
}

// Instances returns the last set that was reported, sorted by key: by this source
// or, before its first report, by the one that it replaced if that selected the
// same, which is if both say the same in words. It reports false if there is none.
// The caller must not change the set.
func (w *Watch) Instances() ([]Instance, bool) {
	w.manager.mu.Lock()
	defer w.manager.mu.Unlock()
	if !w.known || w.origin != w.status.Source {
		return nil, false
	}
	return w.latest, true
}

// From reports where the answers come from at present.
func (w *Watch) From(endpoint string) {
	m := w.manager
	m.mu.Lock()
	defer m.mu.Unlock()
	if !w.retired {
		w.status.Endpoint = endpoint
	}
}

// Succeeded reports that a query was answered and the answer is trusted,
// whether or not it brought a change. Index is the registry's, or 0.
func (w *Watch) Succeeded(index uint64) {
	m := w.manager
	m.mu.Lock()
	if w.retired {
		m.mu.Unlock()
		return
	}
	now := time.Now()
	recovered, outage := w.failing, now.Sub(w.status.Since)
	w.failing = false
	w.setState(WatchFresh, now)
	w.status.Index = index
	w.status.Queries++
	w.status.LastSuccess = now
	w.status.LastError, w.status.Refused = "", 0
	m.mu.Unlock()

	if recovered {
		m.log.Info().Str("service", w.Service()).Stringer("source", name{w.source}).
			Stringer("after", outage).Msg("watch recovered")
	}
}

// Failed reports that a query failed, or that its answer is not to be trusted.
// The instances stay as they are.
func (w *Watch) Failed(err error) {
	m := w.manager
	m.mu.Lock()
	if w.retired {
		m.mu.Unlock()
		return
	}
	first := !w.failing
	w.failing = true
	if w.status.State == WatchFresh {
		w.setState(WatchStale, time.Now())
	}
	w.status.Queries++
	w.status.Errors++
	w.status.LastError = err.Error()
	if errors.Is(err, ErrRefused) {
		w.status.Refused++
	} else {
		w.status.Refused = 0
	}
	instances := w.status.Instances
	m.mu.Unlock()

	event := m.log.Debug()
	if first {
		event = m.log.Warn()
	}
	event.Str("service", w.Service()).Stringer("source", name{w.source}).
		Int("kept_instances", instances).Err(err).Msg("watch failing")
	w.Restore()
}

// Status returns a copy of what is known now.
func (w *Watch) Status() WatchStatus {
	w.manager.mu.Lock()
	defer w.manager.mu.Unlock()
	return w.status
}

// setState needs the manager's mu.
func (w *Watch) setState(s WatchState, now time.Time) {
	if w.status.State != s {
		w.status.State = s
		w.status.Since = now
	}
}
