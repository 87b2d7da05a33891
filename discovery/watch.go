package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/observe/events"
)

// Freshness says how current the set of a watch is.
type Freshness uint8

const (
	// WatchPending: no set is known yet.
	WatchPending Freshness = iota
	// WatchFresh: the last query succeeded.
	WatchFresh
	// WatchStale: a set is known, but the source has not confirmed it since the last
	// error, the change of the source, or the restore.
	WatchStale
)

// String returns the name of s in logs and the API.
func (s Freshness) String() string {
	return [...]string{"pending", "fresh", "stale"}[s]
}

// WatchStatus is the status of a watch.
type WatchStatus struct {
	Service string
	Source  string // the name of the source; its String method, if it has one

	// Endpoint is the origin of the last set, such as the agent that answered; may be empty.
	Endpoint string

	State Freshness
	Index uint64 // of the last answer; 0 if the registry has none

	Since       time.Time // when State began
	LastSuccess time.Time // when the registry last answered about (a part of) the set; zero: never
	LastChange  time.Time // when Sink last got a set; zero: never

	LastError string // of the last failed query; empty after a success
	Errors    uint64 // failed queries
	Refused   int    // consecutive last queries that failed with a RefusedError
	Queries   uint64 // failed and successful queries
	Changes   uint64 // sets that Sink got
	Instances int    // in the last set
	Probation int    // of them, the ones on probation; see Instance.Probation

	// Invalid lists the entries of the registry that the last set lacks, or has with an
	// earlier value. It must not be changed.
	Invalid []Invalid

	// Restored is the time when the last set was current, if it is from the Manager's
	// Fallback; zero if the source has reported it.
	Restored time.Time
}

// watch is one watched service with its source. When it is retired, by Unwatch or
// another source, it ignores reports.
type watch struct {
	manager *Manager
	source  Source
	static  bool          // the source is Static
	settled chan struct{} // closed when Sink has the source's first set; then nil
	tooLong atomic.Bool   // the last answer had instances that exceed the bounds

	// The manager's mu guards the fields below.

	status   WatchStatus // its Service and Source never change
	failing  bool        // the last query failed
	refused  bool        // with failing: since the last success, a query was refused
	retired  bool        // no longer the manager's watch of this service
	restored bool        // the fallback was called
	saved    WatchState  // what it has returned
	cancel   context.CancelFunc

	reported bool // the source has reported a set
	handed   bool // Sink gets, or has, a set that the source has reported

	known   bool       // latest is a set, which may be empty
	origin  string     // the name of the source of latest
	latest  []Instance // normalised
	memory  []Memory   // of the source of latest
	applied []Instance // the last set that Sink got; valid if status.Changes > 0

	// arrived are the new addresses of latest. What another service loses at one of them until the
	// time there has lost its address to this service.
	arrived map[Key]time.Time
	first   time.Time // when the source reported a set, and nothing was known before; zero: never

	changed time.Time // when latest last changed
	waiting time.Time // since when latest differs from applied
	batched time.Time // when Sink last got an addition or update
	due     time.Time // when Sink gets latest; valid while queued
}

// before returns the state that the source gets when it runs.
func (w *watch) before() WatchState {
	w.manager.mu.Lock()
	defer w.manager.mu.Unlock()
	if w.known {
		return w.stateLocked()
	}
	return w.savedLocked()
}

// apply processes a report of the source.
func (w *watch) apply(r Report) {
	told, before, after, retired := w.record(r, Normalize(r.Set))
	if retired {
		return
	}
	w.log(r, told, before, after)
	if r.Known {
		w.warnTooLong(r.Invalid)
	}
	if r.Err != nil {
		w.restore()
	}
}

// record updates the state with r, unless w is retired, and returns what log needs.
func (w *watch) record(r Report, set []Instance) (told bool, before, after WatchStatus, retired bool) {
	w.manager.mu.Lock()
	defer w.manager.mu.Unlock()
	if w.retired {
		return false, before, after, true
	}
	if r.Partial && CountServing(set) == 0 && CountServing(w.latest) > 0 {
		r.Known = false
	}
	told, before = w.failing && (w.refused || !refuses(r.Err)), w.status
	w.recordLocked(r, set, time.Now())
	return told, before, w.status, false
}

// recordLocked updates the state with r. set is r.Set, normalised.
func (w *watch) recordLocked(r Report, set []Instance, now time.Time) {
	if r.Known {
		w.status.Restored, w.status.Endpoint = r.Restored, r.Endpoint
		if r.Restored.IsZero() {
			w.status.LastSuccess = cmp.Or(r.Answered, now)
		}
		w.arriveLocked(set, now)
		w.origin = w.status.Source
		w.memory = nil
		w.status.Invalid = r.Invalid
		w.reported = w.reported || r.Restored.IsZero()
		w.setLatestLocked(set)
	}
	if r.Memory != nil && w.origin == w.status.Source {
		w.memory = r.Memory
	}
	switch {
	case r.Err != nil:
		w.failedLocked(r.Err, now)
	case r.Known:
		w.succeededLocked(r.Index, now)
	}
}

// firstLocked reports whether latest is of the source, and Sink gets no set of the source yet.
func (w *watch) firstLocked() bool { return w.settled != nil && w.reported && !w.handed }

// log logs the changes by r. told: the query before r failed, as r does. A refusal after other
// failures is news: it does not end by itself. before and after are the status before and after r.
func (w *watch) log(r Report, told bool, before, after WatchStatus) {
	log := &w.manager.options.Log
	switch {
	case r.Err != nil:
		event := log.Debug()
		if !told {
			event = log.Warn()
			w.emitFailure(r.Err)
		}
		w.named(event).Int("instances_in_use", after.Instances).Err(r.Err).Msg("watch failing")
	case r.Known && told:
		w.named(log.Info()).Stringer("after", after.LastSuccess.Sub(before.Since)).Msg("watch recovered")
		w.emit(events.KindReadable, events.Info, "%s can be read again, after %s", w.status.Source, after.LastSuccess.Sub(before.Since).Round(time.Millisecond))
	}
	if r.Reset {
		w.emit(events.KindReset, events.Warning, "%s has lost its state, or is back at an earlier one", w.status.Source)
	}
	switch {
	case after.Probation > before.Probation:
		w.named(log.Warn()).Int("instances", after.Probation).
			Msg("the registry has lost instances: they are on probation, used until they first fail")
	case after.Probation == 0 && before.Probation > 0:
		w.named(log.Info()).Msg("no instance is on probation any more")
	}
}

// warnTooLong logs that an answer has instances that exceed the bounds, once until one has none.
func (w *watch) warnTooLong(invalid []Invalid) {
	first := slices.IndexFunc(invalid, func(i Invalid) bool { return i.tooLong })
	if had := w.tooLong.Swap(first >= 0); had || first < 0 {
		return
	}
	w.named(w.manager.options.Log.Warn()).Str("id", invalid[first].Key).Str("reason", invalid[first].Reason).
		Msg("instances with too long texts are not used")
}

// refuses reports whether err is that the registry refuses the query.
func refuses(err error) bool { return errors.As(err, new(RefusedError)) }

// emitFailure adds a failed query to the feed.
func (w *watch) emitFailure(err error) {
	kind, what := events.KindFailing, "cannot be read, its peers do not change"
	if refuses(err) {
		kind, what = events.KindRefused, "refuses the query, its peers do not change"
	}
	w.emit(kind, events.Warning, "%s %s: %v", w.status.Source, what, err)
}

// emit adds an event of the service to the feed.
func (w *watch) emit(kind events.Kind, level events.Level, format string, values ...any) {
	w.manager.options.Events.Add(events.Event{Kind: kind, Level: level, Service: w.status.Service, Text: fmt.Sprintf(format, values...)})
}

// named adds the service and its source to a log line.
func (w *watch) named(e *zerolog.Event) *zerolog.Event {
	return e.Str("service", w.status.Service).Str("source", w.status.Source)
}

// succeededLocked records a successful query.
func (w *watch) succeededLocked(index uint64, now time.Time) {
	w.failing, w.refused = false, false
	w.setStateLocked(WatchFresh, now)
	w.status.Index = index
	w.status.Queries++
	w.status.LastSuccess = now
	w.status.LastError, w.status.Refused = "", 0
}

// failedLocked records a failed query. The set does not change.
func (w *watch) failedLocked(err error, now time.Time) {
	w.failing, w.refused = true, w.refused || refuses(err)
	if w.known {
		w.setStateLocked(WatchStale, now)
	}
	w.status.Queries++
	w.status.Errors++
	w.status.LastError = err.Error()
	if refuses(err) {
		w.status.Refused++
	} else {
		w.status.Refused = 0
	}
}

// setLatestLocked sets the latest set, which must be normalised.
func (w *watch) setLatestLocked(set []Instance) {
	set = w.manager.withoutReusedLocked(w, w.withFailuresLocked(set))
	if w.known && equalSets(w.latest, set) && !w.firstLocked() {
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
	w.manager.recordProbationLocked(w)
	w.manager.scheduleLocked(w)
	w.manager.reuseLocked(w)
}

// restore sets the state to the saved one, if there is no set yet.
func (w *watch) restore() {
	if s, ok := w.adoptSaved(); ok {
		set, asOf := s.Set, s.Restored
		w.named(w.manager.options.Log.Warn()).
			Int("instances", len(set)).Time("as_of", asOf).Msg("the saved set is in use until the source reports one")
		w.emit(events.KindSaved, events.Warning, "The saved set of %s, with %d instances, is in use until %s reports one",
			asOf.UTC().Format(time.RFC3339), len(set), w.status.Source)
	}
}

// adoptSaved adopts the saved state, if there is no set yet.
func (w *watch) adoptSaved() (s WatchState, ok bool) {
	w.manager.mu.Lock()
	defer w.manager.mu.Unlock()
	if w.known || w.retired {
		return s, false
	}
	s = w.savedLocked()
	return s, w.adoptLocked(s)
}

// savedLocked returns the state of the manager's fallback; without a set, if it has none.
func (w *watch) savedLocked() WatchState {
	if fallback := w.manager.options.Fallback; fallback != nil && !w.restored {
		w.restored = true
		w.saved, _ = fallback(w.status.Service, w.status.Source, addressesOf(w.source))
		w.saved = renamed(w.saved, w.status.Service, w.source)
	}
	return w.saved
}

func (w *watch) setStateLocked(s Freshness, now time.Time) {
	if w.status.State != s {
		w.status.State = s
		w.status.Since = now
	}
}
