package saved

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/discovery"
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
	// Watches returns the state of every watch; see discovery.Manager.Statuses.
	Watches func() []discovery.WatchStatus
	Log     zerolog.Logger
}

// Store holds the last known good set of each service. It is safe for concurrent use.
type Store struct {
	options Options
	changed chan struct{} // capacity 1: Put was called

	mu      sync.Mutex // guards the fields below
	entries map[string]entry
	sets    map[string][]discovery.Instance // put, by service
	damaged bool                            // the file is damaged and not replaced yet
	status  Status
}

// Status is the state of writing.
type Status struct {
	Written   time.Time // last write by this process; zero: none
	Errors    uint64    // failed attempts
	LastError string    // of the latest attempt; empty if it succeeded
}

// Open reads the file, if there is one. A damaged file is logged and not used. It is an
// error if the file cannot be read or its directory does not exist.
func Open(o Options) (*Store, error) {
	if info, err := os.Stat(filepath.Dir(o.Path)); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("snapshot: %s is not a directory", filepath.Dir(o.Path))
	}
	s := &Store{options: o, changed: make(chan struct{}, 1), sets: make(map[string][]discovery.Instance)}
	entries, err := read(o.Path)
	switch {
	case errors.Is(err, errDamaged):
		s.damaged = true
		o.Log.Warn().Err(err).Msg("snapshot not used; services have no peers until their registry answers")
	case err != nil:
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	s.entries = entries
	if s.entries == nil {
		s.entries = make(map[string]entry)
	}
	s.sweep()
	return s, nil
}

// sweep removes unfinished files of a crash.
func (s *Store) sweep() {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(s.options.Path), temporary(s.options.Path)))
	for _, name := range left {
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > time.Minute {
			_ = os.Remove(name)
		}
	}
}

// Get returns the set that was saved for a service with the same source, and the time
// of its last confirmation; false if there is none, or it is too old.
func (s *Store) Get(service, source string) (set []discovery.Instance, asOf time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[service]
	if !ok {
		return nil, time.Time{}, false
	}
	switch age := time.Since(e.AsOf); {
	case e.Source != source:
		s.options.Log.Warn().Str("service", service).Str("saved", e.Source).Str("wanted", source).
			Msg("snapshot: set not used, it has another source")
		return nil, time.Time{}, false
	case s.options.MaxAge > 0 && age > s.options.MaxAge:
		s.options.Log.Warn().Str("service", service).Stringer("age", age.Round(time.Second)).
			Msg("snapshot: set not used, it is too old")
		return nil, time.Time{}, false
	}
	return e.Instances, e.AsOf, true
}

// Services returns the services with a set, in any order.
func (s *Store) Services() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.entries))
	for name := range s.entries {
		names = append(names, name)
	}
	return names
}

// Put stores the current set of a service for the next write. The caller must not
// change the set.
func (s *Store) Put(service string, set []discovery.Instance) {
	s.mu.Lock()
	s.sets[service] = set
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run writes the file after changes, and once more when ctx ends.
func (s *Store) Run(ctx context.Context) {
	due := time.NewTimer(refresh)
	defer due.Stop()
	var first, last time.Time // first unwritten change, last write; zero: none
	for {
		select {
		case <-ctx.Done():
			s.save()
			return
		case <-s.changed:
			now := time.Now()
			if first.IsZero() {
				first = now
			}
			due.Reset(max(min(quiet, maxWait-now.Sub(first)), minGap-now.Sub(last)))
			continue
		case <-due.C:
		}
		s.save()
		first, last = time.Time{}, time.Now()
		due.Reset(refresh)
	}
}

// save writes the file, if a registry has reported a set.
func (s *Store) save() {
	watches := s.options.Watches()
	s.mu.Lock()
	good := s.collectLocked(watches)
	entries, damaged := maps.Clone(s.entries), s.damaged
	s.mu.Unlock()
	if !good {
		return
	}
	err := write(s.options.Path, entries, damaged)

	s.mu.Lock()
	failed := s.status.LastError != ""
	if err != nil {
		s.status.Errors++
		s.status.LastError = err.Error()
	} else {
		s.status.Written, s.status.LastError = time.Now(), ""
		s.damaged = false
	}
	s.mu.Unlock()
	switch {
	case err != nil && !failed:
		s.options.Log.Error().Err(err).Msg("snapshot cannot be written")
	case err == nil && failed:
		s.options.Log.Info().Str("path", s.options.Path).Msg("snapshot is written again")
	}
}

// collectLocked updates entries with the sets put, and reports whether a registry has
// reported any.
func (s *Store) collectLocked(watches []discovery.WatchStatus) (good bool) {
	watched := make(map[string]bool, len(watches))
	for _, w := range watches {
		watched[w.Service] = true
		set, put := s.sets[w.Service]
		if !put || w.Endpoint == "" || !w.Restored.IsZero() {
			continue
		}
		asOf := cmp.Or(w.LastSuccess, w.LastChange)
		s.entries[w.Service] = entry{Source: w.Source, AsOf: asOf.UTC().Truncate(time.Millisecond), Instances: set}
		good = true
	}
	for service := range s.sets {
		if !watched[service] {
			delete(s.sets, service)
			delete(s.entries, service)
		}
	}
	for service, e := range s.entries { // read from the file
		if !watched[service] && s.options.MaxAge > 0 && time.Since(e.AsOf) > s.options.MaxAge {
			delete(s.entries, service)
		}
	}
	return good
}

// write replaces the file. A damaged one is renamed.
func write(path string, entries map[string]entry, damaged bool) error {
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
