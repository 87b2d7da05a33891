package operator

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

	"sluice/config/regular"
	"sluice/consul/sharedkeys"
	"sluice/discovery/saved"
)

// version is the version of the format of State.
const version = 1

// State is the content of the file, and what a process hands over to the next one.
type State[V Value[V]] struct {
	Version int        `json:"version"`
	Prefix  string     `json:"prefix,omitempty"` // StoreOptions.Prefix
	Orders  []Saved[V] `json:"orders"`
	// Ended are the keys of orders that Consul may still have, and Replaced are orders that it may
	// still have: those without an order in Orders end, unless Consul has others by then.
	Ended    []string `json:"ended,omitempty"`
	Seen     uint64   `json:"seen,omitempty"` // sharedkeys.Versions.Mark
	Replaced []V      `json:"replaced,omitempty"`
}

// Saved is an order in a State. In JSON it is the order with members of its own.
type Saved[V Value[V]] struct {
	Order V
	Beside
}

// Beside is what a State has beside an order.
type Beside struct {
	Shared   bool   `json:"shared,omitempty"`   // Consul has it
	Yields   bool   `json:"yields,omitempty"`   // it was put to yield, and Consul may lack it
	Restores bool   `json:"restores,omitempty"` // Consul has lost it
	Version  uint64 `json:"version,omitempty"`  // sharedkeys.Entry.Version
}

// MarshalJSON implements json.Marshaler.
func (s Saved[V]) MarshalJSON() ([]byte, error) {
	order, err := json.Marshal(s.Order)
	if err != nil || s.Beside == (Beside{}) {
		return order, err
	}
	beside, err := json.Marshal(s.Beside)
	return slices.Concat(bytes.TrimSuffix(order, []byte("}")), []byte(","), beside[1:]), err
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Saved[V]) UnmarshalJSON(text []byte) error {
	return errors.Join(json.Unmarshal(text, &s.Order), json.Unmarshal(text, &s.Beside))
}

func (s *State[V]) check() error {
	if s.Version != version {
		return fmt.Errorf("its version is %d, this sluice reads version %d", s.Version, version)
	}
	for _, o := range s.Orders {
		if err := o.Order.Check(); err != nil {
			return fmt.Errorf("%s: %w", o.Order.Key(), err)
		}
	}
	return nil
}

// Open reads the file, if there is one. After an error the store has no orders, and the file is
// renamed if it is damaged.
func (s *Store[V]) Open() error {
	if s.options.Path == "" {
		return nil
	}
	data, err := regular.ReadFile(s.options.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var state State[V]
	if err == nil {
		err = json.Unmarshal(data, &state)
		if err == nil {
			err = state.check()
		}
		if err != nil {
			err = errors.Join(fmt.Errorf("%s is damaged: %w", s.options.Path, err), os.Rename(s.options.Path, s.options.Path+".damaged"))
		}
	}
	s.opened(bytes.TrimSpace(data), err)
	if err != nil {
		return fmt.Errorf("%s: %w", s.options.Name, err)
	}
	s.use(state)
	return nil
}

// opened notes what the file has, or why it cannot be used.
func (s *Store[V]) opened(text []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fileErr = err; err == nil {
		s.written = text
	}
}

func (s *Store[V]) fileError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fileErr
}

// Restore takes over the orders of another process or, if it has handed over none, the orders in
// the file.
func (s *Store[V]) Restore(state State[V]) {
	if state.Version != 0 {
		// An order in the file may have ended since: the next write replaces it.
		text, _ := regular.ReadFile(s.options.Path)
		s.opened(bytes.TrimSpace(text), nil)
		s.use(state)
	} else if err := s.Open(); err != nil {
		s.log.Error().Err(err).Msg("what an earlier process had is lost, unless Consul has it")
	}
}

// use replaces the orders by another process's orders. No event is emitted.
func (s *Store[V]) use(state State[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, changes := make(map[string]V), make(map[string]*V)
	samePrefix := s.Shares() && state.Prefix == s.options.Prefix
	seen := sharedkeys.Versions{Keys: make(map[string]uint64)}
	if samePrefix {
		seen.Mark = state.Seen
	}
	for _, o := range state.Orders {
		if o.Shared && samePrefix {
			known[o.Order.Key()], seen.Keys[o.Order.Key()] = o.Order, o.Version
		} else {
			changes[o.Order.Key()] = &o.Order
		}
	}
	if !samePrefix {
		state.Ended, state.Replaced = nil, nil
	}
	for _, key := range state.Ended {
		changes[key] = nil
	}
	for _, order := range state.Replaced {
		known[order.Key()] = order
	}
	s.keys.Restore(known, changes, seen)
	for _, o := range state.Orders {
		switch {
		case o.Restores, o.Shared && !samePrefix: // there, others may have given a later one
			s.keys.RestoreLost(o.Order.Key(), o.Order, o.Version)
		case o.Yields && s.options.Yields != nil:
			s.put(o.Order, true)
		}
	}
	for _, order := range state.Replaced {
		if _, changes := changes[order.Key()]; !changes {
			s.retract(order)
		}
	}
	effective := s.effective(time.Now())
	s.inEffect.Store(&effective)
	if s.options.Changed != nil {
		s.options.Changed()
	}
	s.refreshLocked() // writes the file
}

// State returns the orders for another process. What this one only proposes is not in it: the other
// process finds itself whether it wants that.
func (s *Store[V]) State() State[V] {
	now := time.Now()
	s.expire(now) // while another process has the orders, nothing else does
	all := s.keys.All()
	state := State[V]{Version: version, Prefix: s.options.Prefix, Orders: []Saved[V]{}, Seen: s.keys.Seen()}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		e := all[key]
		// What Consul has accepted is not written again: others may have written since.
		switch shared := !e.Pending || e.Proposed; {
		case !e.Absent && !expired(e.Value, now):
			yields := !shared && e.Conditional && !e.Restores
			state.Orders = append(state.Orders, Saved[V]{e.Value, Beside{Shared: shared, Yields: yields, Restores: !shared && e.Restores, Version: e.Version}})
		case e.Absent && e.Pending && !e.Conditional:
			state.Ended = append(state.Ended, key)
		}
		if e.Pending && !e.Proposed && e.Before.Key() == key { // it had a value
			state.Replaced = append(state.Replaced, e.Before)
		}
	}
	return state
}

// saveLocked writes the state to the file, if its text is another one.
func (s *Store[V]) saveLocked() {
	if s.options.Path == "" {
		return
	}
	state := s.State()
	if len(state.Orders)+len(state.Ended)+len(state.Replaced) == 0 && s.written == nil {
		return // no file is needed yet
	}
	text, _ := json.MarshalIndent(state, "", "  ") // cannot fail
	if bytes.Equal(text, s.written) {
		return
	}
	err := saved.Replace(s.options.Path, append(text, '\n'))
	switch {
	case err == nil && s.fileErr != nil:
		s.log.Info().Str("file", s.options.Path).Msg(s.options.Name + " are written again")
	case err != nil && s.fileErr == nil:
		s.log.Error().Err(err).Str("file", s.options.Path).Msg(s.options.Name + " cannot be written: a restart loses them, unless Consul has them")
	}
	if s.fileErr = err; err == nil {
		s.written = text
	}
}
