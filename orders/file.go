package orders

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"sluice/consul/sharedkeys"
	"sluice/discovery/saved"
)

// version is that of State.
const version = 1

// State is the content of the file, and what a process hands over to the next one.
type State struct {
	Version int          `json:"version"`
	Prefix  string       `json:"prefix,omitempty"` // Options.Prefix
	Orders  []SavedOrder `json:"orders"`
	// Ended are the keys of orders that Consul may still have.
	Ended []string `json:"ended,omitempty"`
}

// SavedOrder is an order in a State.
type SavedOrder struct {
	Order
	Shared bool `json:"shared,omitempty"` // Consul has it
}

func (s *State) check() error {
	if s.Version != version {
		return fmt.Errorf("its version is %d, this sluice reads version %d", s.Version, version)
	}
	for _, o := range s.Orders {
		if err := o.check(); err != nil {
			return fmt.Errorf("%s: %w", o.Key(), err)
		}
	}
	return nil
}

// Open reads the file, if there is one. After an error the store has no orders, and the file is
// renamed if it is damaged.
func (s *Store) Open() error {
	if s.options.Path == "" {
		return nil
	}
	data, err := os.ReadFile(s.options.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var state State
	if err == nil {
		err = json.Unmarshal(data, &state)
		if err == nil {
			err = state.check()
		}
		if err != nil {
			err = errors.Join(fmt.Errorf("%s is damaged: %w", s.options.Path, err), os.Rename(s.options.Path, s.options.Path+".damaged"))
		}
	}
	if err != nil {
		s.mu.Lock()
		s.fileErr = err
		s.mu.Unlock()
		return fmt.Errorf("operators' orders: %w", err)
	}
	s.mu.Lock()
	s.written = bytes.TrimSpace(data)
	s.mu.Unlock()
	s.Adopt(state)
	return nil
}

// Adopt replaces the orders by those of another process. Nothing is told.
func (s *Store) Adopt(state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, changes := make(map[string]Order), make(map[string]*Order)
	samePrefix := s.Shares() && state.Prefix == s.options.Prefix
	for _, o := range state.Orders {
		if o.Shared && samePrefix {
			known[o.Key()] = o.Order
		} else {
			changes[o.Key()] = &o.Order
		}
	}
	for _, key := range state.Ended {
		if samePrefix {
			changes[key] = nil
		}
	}
	s.keys.Adopt(known, changes)
	set := effective(s.keys.All(), time.Now())
	s.set.Store(&set)
	if s.options.Changed != nil {
		s.options.Changed()
	}
	s.takeEffectLocked("") // writes the file
}

// State returns the orders for another process.
func (s *Store) State() State { return s.stateOf(s.keys.All(), time.Now()) }

func (s *Store) stateOf(all map[string]sharedkeys.Entry[Order], now time.Time) State {
	state := State{Version: version, Prefix: s.options.Prefix, Orders: []SavedOrder{}}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		e := all[key]
		switch {
		case !e.Absent && !e.Value.expired(now):
			state.Orders = append(state.Orders, SavedOrder{e.Value, !e.Changing})
		case e.Absent && e.Pending && !e.Conditional:
			state.Ended = append(state.Ended, key)
		}
	}
	return state
}

// saveLocked writes state to the file, if its text is another one.
func (s *Store) saveLocked(state State) {
	if s.options.Path == "" {
		return
	}
	if len(state.Orders)+len(state.Ended) == 0 && s.written == nil {
		return // no file is needed yet
	}
	text, _ := json.MarshalIndent(state, "", "  ") // cannot fail
	if bytes.Equal(text, s.written) {
		return
	}
	err := saved.Replace(s.options.Path, append(text, '\n'))
	switch {
	case err == nil && s.fileErr != nil:
		s.log.Info().Str("file", s.options.Path).Msg("operators' orders are written again")
	case err != nil && s.fileErr == nil:
		s.log.Error().Err(err).Str("file", s.options.Path).Msg("operators' orders cannot be written: a restart loses them, unless Consul has them")
	}
	if s.fileErr = err; err == nil {
		s.written = text
	}
}
