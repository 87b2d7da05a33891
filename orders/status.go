package orders

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// Listed is an order with its state.
type Listed struct {
	Order
	Pending bool `json:"pending,omitempty"` // the other replicas do not have it yet
}

// Invalid is a key in Consul without an order that can be used.
type Invalid struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
	InUse  bool   `json:"in_use"` // the last order that it had is
	index  uint64
}

// Status is the state of a Store.
type Status struct {
	Orders  []Listed  `json:"orders"`  // sorted by key
	Invalid []Invalid `json:"invalid"` // sorted by key
	Saved   bool      `json:"saved"`   // they are in the file
	Shared  bool      `json:"shared"`  // other replicas obey them too
	// Pending is the number of changes that the other replicas do not have yet.
	Pending int    `json:"pending"`
	Error   string `json:"error,omitempty"` // of the file, or of Consul
}

// Status returns the state of the store.
func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := Status{Orders: []Listed{}, Invalid: []Invalid{}, Saved: s.options.Path != "" && s.fileErr == nil, Shared: s.Shares()}
	for _, o := range s.Set().All() {
		c := s.changes[o.Key()]
		status.Orders = append(status.Orders, Listed{o, status.Shared && c != nil && !c.accepted})
	}
	for _, key := range slices.Sorted(maps.Keys(s.invalid)) {
		status.Invalid = append(status.Invalid, s.invalid[key])
	}
	err := errors.Join(s.fileErr, s.failure)
	if status.Shared {
		for _, key := range slices.Sorted(maps.Keys(s.changes)) {
			if c := s.changes[key]; !c.accepted {
				status.Pending++
				err = errors.Join(s.fileErr, s.failure, c.err)
			}
		}
	}
	if err != nil {
		status.Error = err.Error()
	}
	return status
}

// Await waits until Consul has accepted the latest change of the key, at most for timeout, and
// returns why it has not. Without other replicas it returns at once.
func (s *Store) Await(ctx context.Context, key string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errors.New("no answer of Consul yet"))
	defer cancel()
	for {
		s.mu.Lock()
		progress, done, err := s.progress, true, error(nil)
		if c := s.changes[key]; s.Shares() && c != nil {
			done, err = c.accepted || c.err != nil, c.err
		}
		s.mu.Unlock()
		if done {
			return err
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// AwaitFirst waits until Consul has answered, at most for timeout.
func (s *Store) AwaitFirst(ctx context.Context, timeout time.Duration) {
	if !s.Shares() {
		return
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-s.first:
	case <-timer.C:
		s.log.Warn().Stringer("waited", timeout).Msg("operators' orders in Consul are not known: those of the file are in use until it answers")
	case <-ctx.Done():
	}
}
