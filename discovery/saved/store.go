package saved

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/discovery"
	"sluice/observe/wake"
)

const (
	quiet   = time.Second      // after the last change
	maxWait = 10 * time.Second // after the first change
	minGap  = 10 * time.Second // between writes
	refresh = 10 * time.Minute // between writes without a change
)

// Options configure a Store.
type Options struct {
	Path string
	// MaxAge is the maximum age of a set for Get. 0: no maximum.
	MaxAge time.Duration
	// States returns the states of all watches, by service.
	States func() map[string]discovery.WatchState
	// Owner calls f if this process may write the file, which belongs to one process at a time,
	// and reports whether it may. When it begins to, somebody calls Changed. nil: it always may.
	Owner func(f func()) bool
	Log   zerolog.Logger
}

// Store holds the last known good set of each service. It is safe for concurrent use.
type Store struct {
	options Options
	changed wake.One   // Changed was called
	writing sync.Mutex // one write at a time

	mu      sync.Mutex                      // guards the fields below
	entries map[string]discovery.WatchState // Restored is when the registry last confirmed the set
	watched map[string]bool                 // services with a watch at the last write
	damaged bool                            // the file is damaged and not replaced yet
	status  Status
}

// Status is the state of writing.
type Status struct {
	Written   time.Time // last write by this process; zero: none
	Errors    uint64    // failed attempts
	LastError string    // of the latest attempt; empty if it succeeded
}

// Open reads the file, if there is one. A damaged file is logged and not used. A file that cannot
// be read, or a missing directory, is an error. Without a path the Store stays empty.
func Open(o Options) (*Store, error) {
	s := &Store{options: o, changed: wake.NewOne(), entries: make(map[string]discovery.WatchState)}
	if o.Path == "" {
		return s, nil
	}
	if info, err := os.Stat(filepath.Dir(o.Path)); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("snapshot: %s is not a directory", filepath.Dir(o.Path))
	}
	entries, err := read(o.Path)
	switch {
	case errors.Is(err, errDamaged):
		s.damaged = true
		o.Log.Warn().Err(err).Msg("snapshot not used; services have no peers until their registry answers")
	case err != nil:
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	maps.Copy(s.entries, entries)
	return s, nil
}

// Get returns the state saved for a service with the same source, else that of another service with
// this source and addresses, which has had another name. ok is false if there is none, or it is too
// old. Its Restored is the time of its last confirmation.
func (s *Store) Get(service, source, addresses string) (state discovery.WatchState, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state, ok = s.entries[service]
	if wanted := state.Source; !ok || wanted != source {
		named, renamed := ok, false
		for _, other := range s.entries {
			if other.Source == source && other.Addresses == addresses && (!renamed || other.Restored.After(state.Restored)) {
				state, renamed = other, true
			}
		}
		if !renamed {
			if named {
				s.options.Log.Warn().Str("service", service).Str("saved", wanted).Str("wanted", source).
					Msg("snapshot: set not used, it has another source")
			}
			return discovery.WatchState{}, false
		}
	}
	if age := time.Since(state.Restored); s.options.MaxAge > 0 && age > s.options.MaxAge {
		s.options.Log.Warn().Str("service", service).Stringer("age", age.Round(time.Second)).
			Msg("snapshot: set not used, it is too old")
		return discovery.WatchState{}, false
	}
	state.Known, state.Fresh, state.LastSuccess, state.Endpoint = true, false, time.Time{}, ""
	state.Memory = slices.Clone(state.Memory)
	for n := range state.Memory {
		// The time on probation does not run without a process.
		state.Memory[n].Guard.AsOf = time.Time{}
	}
	return state, true
}

// Services returns the services with a set, in any order.
func (s *Store) Services() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.entries))
}

// Changed says that the states have changed, or that Owner has: the file is written soon.
func (s *Store) Changed() { s.changed.Send() }

func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run writes the file after changes, and once more when ctx ends.
func (s *Store) Run(ctx context.Context) {
	due := time.NewTimer(refresh)
	var first, last time.Time // first unwritten change, last write; zero: none
	for {
		select {
		case <-ctx.Done():
			s.Save()
			return
		case <-s.changed:
			now := time.Now()
			first = cmp.Or(first, now)
			due.Reset(max(min(quiet, maxWait-now.Sub(first)), minGap-now.Sub(last)))
			continue
		case <-due.C:
		}
		s.Save()
		first, last = time.Time{}, time.Now()
		due.Reset(refresh)
	}
}

// Save writes the file now, if it belongs to this process and a registry has reported a set.
func (s *Store) Save() {
	switch {
	case s.options.Path == "":
	case s.options.Owner == nil:
		s.replace()
	default:
		s.options.Owner(s.replace)
	}
}

func (s *Store) replace() {
	s.writing.Lock()
	defer s.writing.Unlock()
	states := s.options.States()
	good, entries, damaged := s.collect(states)
	if !good {
		return
	}
	err := write(s.options.Path, entries, damaged)
	failed := s.wrote(err)
	switch {
	case err != nil && !failed:
		s.options.Log.Error().Err(err).Msg("snapshot cannot be written")
	case err == nil && failed:
		s.options.Log.Info().Str("path", s.options.Path).Msg("snapshot is written again")
	}
}

// wrote notes the result of a write, and reports whether the one before has failed.
func (s *Store) wrote(err error) (failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	failed = s.status.LastError != ""
	if err != nil {
		s.status.Errors++
		s.status.LastError = err.Error()
	} else {
		s.status.Written, s.status.LastError = time.Now(), ""
		s.damaged = false
	}
	return failed
}

// collect updates the entries with states of watches, and returns what to write. good: a registry
// has reported a set, or a restored one has changed.
func (s *Store) collect(states map[string]discovery.WatchState) (good bool, entries map[string]discovery.WatchState, damaged bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for service := range s.watched {
		if _, watched := states[service]; !watched {
			delete(s.entries, service)
		}
	}
	s.watched = make(map[string]bool, len(states))
	for service, state := range states {
		s.watched[service] = true
		before := s.entries[service]
		switch {
		case !state.Known:
		case !state.Restored.IsZero():
			// The registry has not confirmed it, but an instance may have failed, or the
			// service has another name.
			if before.Source != state.Source || !slices.EqualFunc(before.Set, state.Set, discovery.Instance.Equal) {
				s.entries[service], good = state, true
			}
		case state.Endpoint != "":
			state.Restored = cmp.Or(state.LastSuccess, before.Restored, time.Now()).UTC().Truncate(time.Millisecond)
			s.entries[service], good = state, true
		}
	}
	for service, e := range s.entries { // read from the file
		if !s.watched[service] && s.options.MaxAge > 0 && time.Since(e.Restored) > s.options.MaxAge {
			delete(s.entries, service)
		}
	}
	return good, maps.Clone(s.entries), s.damaged
}

// write replaces the file. A damaged one is renamed.
func write(path string, entries map[string]discovery.WatchState, damaged bool) error {
	data, err := format(entries)
	if err != nil {
		return err
	}
	if damaged {
		if err := os.Rename(path, path+".damaged"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return Replace(path, data)
}
