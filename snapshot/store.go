package snapshot

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
	quiet   = time.Second      // without a change, until the file is written
	maxWait = 10 * time.Second // until it is written in any case
	minGap  = 10 * time.Second // between two writes
	refresh = 10 * time.Minute // between two writes without a change
)

// Options say where the snapshot is and what is to be in it.
type Options struct {
	Path string
	// MaxAge is the age beyond which a set is not given back. 0: any age will do.
	MaxAge time.Duration
	// Watches returns the state of every watch; see discovery.Manager.Statuses.
	Watches func() []discovery.WatchStatus
	Log     zerolog.Logger
}

// Store holds the last known good set of each service. It is safe for
// concurrent use.
type Store struct {
	options Options
	changed chan struct{} // capacity 1: Put was called

	mu      sync.Mutex // guards the fields below
	entries map[string]entry
	sets    map[string][]discovery.Instance // put, by service
	spoiled bool                            // the file is damaged and not yet replaced
	status  Status
}

// Status is how writing fares.
type Status struct {
	Written   time.Time // when the file was last written; zero: not by this process
	Errors    uint64    // attempts to write that failed
	LastError string    // of the last attempt; empty if it succeeded
}

// Open reads the file, if there is one. One that is damaged is not used, and
// the log says so; that is no error. It is one if the file cannot be read or its
// directory is not there.
func Open(o Options) (*Store, error) {
	if info, err := os.Stat(filepath.Dir(o.Path)); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("snapshot: %s is no directory", filepath.Dir(o.Path))
	}
	s := &Store{options: o, changed: make(chan struct{}, 1), sets: make(map[string][]discovery.Instance)}
	entries, err := read(o.Path)
	switch {
	case errors.Is(err, errDamaged):
		s.spoiled = true
		o.Log.Warn().Err(err).Msg("snapshot refused: without an answer from its registry no service has peers; the file stays until there is one")
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

// sweep removes what a crash has left of a file that was being written.
func (s *Store) sweep() {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(s.options.Path), temporary(s.options.Path)))
	for _, name := range left {
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > time.Minute {
			_ = os.Remove(name)
		}
	}
}

// Get returns the set of a service that was saved for the same source, and the
// time at which its registry last confirmed it. It reports false if there is none,
// or none that is recent enough.
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
			Msg("snapshot: the set was saved for another source, and is not used")
		return nil, time.Time{}, false
	case s.options.MaxAge > 0 && age > s.options.MaxAge:
		s.options.Log.Warn().Str("service", service).Stringer("age", age.Round(time.Second)).
			Msg("snapshot: the set is too old, and is not used")
		return nil, time.Time{}, false
	}
	set, err := decode(e.Instances)
	return set, e.AsOf, err == nil // as parse has checked
}

// Services returns the services that there are sets of, in any order.
func (s *Store) Services() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.entries))
	for name := range s.entries {
		names = append(names, name)
	}
	return names
}

// Put remembers the set that a service has now, to be written if its watch
// has it from its registry. It does not wait for the write. The caller must not
// change the set later.
func (s *Store) Put(service string, set []discovery.Instance) {
	s.mu.Lock()
	s.sets[service] = set
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Status returns how writing fares.
func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run writes the file after changes until ctx ends, and once more then.
func (s *Store) Run(ctx context.Context) {
	due := time.NewTimer(refresh)
	defer due.Stop()
	var first, last time.Time // change that is not written, and write; zero: none
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

// save writes the file, if there is a set that counts.
func (s *Store) save() {
	watches := s.options.Watches()
	s.mu.Lock()
	good := s.collect(watches)
	entries, spoiled := maps.Clone(s.entries), s.spoiled
	s.mu.Unlock()
	if !good {
		return
	}
	err := write(s.options.Path, entries, spoiled)

	s.mu.Lock()
	failed := s.status.LastError != ""
	if err != nil {
		s.status.Errors++
		s.status.LastError = err.Error()
	} else {
		s.status.Written, s.status.LastError = time.Now(), ""
		s.spoiled = false
	}
	s.mu.Unlock()
	switch {
	case err != nil && !failed:
		s.options.Log.Error().Err(err).Msg("snapshot cannot be written")
	case err == nil && failed:
		s.options.Log.Info().Str("path", s.options.Path).Msg("snapshot is written again")
	}
}

// collect brings entries up to date with what was put, and reports whether a
// registry has answered for any of it. It needs mu.
func (s *Store) collect(watches []discovery.WatchStatus) (good bool) {
	watched := make(map[string]bool, len(watches))
	for _, w := range watches {
		watched[w.Service] = true
		set, put := s.sets[w.Service]
		if !put || w.Endpoint == "" || !w.Restored.IsZero() {
			continue
		}
		asOf := cmp.Or(w.LastSuccess, w.LastChange)
		s.entries[w.Service] = entry{Source: w.Source, AsOf: asOf.UTC().Truncate(time.Millisecond), Instances: encode(set)}
		good = true
	}
	for service := range s.sets {
		if !watched[service] {
			delete(s.sets, service)
			delete(s.entries, service)
		}
	}
	for service, e := range s.entries { // read from the file, and of no use any more
		if !watched[service] && s.options.MaxAge > 0 && time.Since(e.AsOf) > s.options.MaxAge {
			delete(s.entries, service)
		}
	}
	return good
}

// write replaces the file. One that is spoiled is kept beside it.
func write(path string, entries map[string]entry, spoiled bool) error {
	data, err := format(entries)
	if err != nil {
		return err
	}
	if spoiled {
		if err := os.Rename(path, path+".damaged"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return replace(path, data)
}
