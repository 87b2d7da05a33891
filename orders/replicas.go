package orders

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
)

const (
	// writeRetry is the delay after a failed write.
	writeRetry = time.Second
	// markKey is below the prefix since the first order. An index that falls does not say
	// that Consul has lost its state: it also falls a while after a key was deleted.
	markKey = "begun"
)

// Resume begins to follow Consul, and to accept orders again after Pause.
func (s *Store) Resume() {
	s.mu.Lock()
	s.paused = false
	if s.Shares() && s.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { s.follow(ctx) })
		running.Go(func() { s.write(ctx) })
		s.stop = func() {
			cancel()
			running.Wait()
		}
	}
	s.mu.Unlock()
	s.refresh()
}

// Pause refuses orders, since another process has them, and ends what Resume began.
func (s *Store) Pause() {
	s.mu.Lock()
	stop := s.stop
	s.stop, s.paused = nil, true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// follow reads the keys until ctx ends.
func (s *Store) follow(ctx context.Context) {
	defer s.options.Consul.Join()()
	_ = s.options.Consul.Follow(ctx, consul.FollowOptions{ // ends with ctx
		Query: consul.KeysBelow(s.options.Prefix + "/"),
		Read:  s.read,
		Ended: s.ended,
		Begin: func(context.Context) (time.Duration, error) { return s.options.Wait(), nil },
	})
}

// read takes an answer of Consul.
func (s *Store) read(a consul.Answer, body []byte) error {
	list, err := consul.DecodeKeys(a, body)
	if err != nil {
		return fmt.Errorf("keys below %s/: %w", s.options.Prefix, err)
	}
	s.use(a.Index, list)
	return nil
}

// use makes pairs what Consul has. If Consul has lost its state, orders that it does not have any
// more are written again.
func (s *Store) use(index uint64, pairs []api.KVPair) {
	s.mu.Lock()
	marked := slices.ContainsFunc(pairs, func(p api.KVPair) bool { return p.Key == s.options.Prefix+"/"+markKey })
	lost := index < s.index && s.marked && !marked
	known, invalid := make(map[string]knownOrder), make(map[string]Invalid)
	for _, pair := range pairs {
		key := pair.Key[len(s.options.Prefix)+1:]
		if key == markKey {
			continue
		}
		order, err := parse(key, pair.Value)
		if err != nil {
			last, used := s.Set().byKey[key]
			if used {
				known[key] = knownOrder{last, pair.ModifyIndex}
			}
			invalid[key] = Invalid{Key: pair.Key, Reason: err.Error(), InUse: used, index: pair.ModifyIndex}
			if s.invalid[key].index != pair.ModifyIndex {
				s.log.Warn().Err(err).Str("key", pair.Key).Bool("last_in_use", used).Msg("an order in Consul cannot be used")
			}
			continue
		}
		known[key] = knownOrder{order, pair.ModifyIndex}
	}
	for _, c := range s.changes {
		c.accepted = c.accepted && !lost
	}
	for key, k := range s.known {
		if _, still := known[key]; lost && !still && s.changes[key] == nil {
			s.changes[key] = &change{order: &k.Order}
		}
	}
	s.known, s.invalid, s.index, s.marked = known, invalid, index, marked
	s.settleLocked()
	first := !s.answered
	s.answered = true
	s.mu.Unlock()
	s.refresh()
	if first { // they are in effect
		close(s.first)
	}
	wake(s.wake)
}

// settleLocked forgets the changes that the last answer of Consul has, or later ones of other replicas.
func (s *Store) settleLocked() {
	for key, c := range s.changes {
		now, there := s.known[key]
		if c.accepted && (now.index > c.before || !there && (c.order == nil || s.index >= c.written)) {
			delete(s.changes, key)
		}
	}
}

// ended records the result of a query.
func (s *Store) ended(err error) {
	s.mu.Lock()
	before := s.failure
	s.failure = err
	s.mu.Unlock()
	switch {
	case err == nil && before != nil:
		s.log.Info().Msg("operators' orders in Consul are followed again")
	case err != nil && before == nil:
		s.log.Warn().Err(err).Msg("operators' orders in Consul cannot be followed: those that are known stay")
	}
}

// write carries out changes until ctx ends.
func (s *Store) write(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	failing := false
	for {
		select {
		case <-s.wake:
		case <-retry.C:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		changes := maps.Clone(s.changes)
		maps.DeleteFunc(changes, func(_ string, c *change) bool { return c.accepted })
		s.mu.Unlock()
		var failure error
		for _, key := range slices.Sorted(maps.Keys(changes)) {
			if err := s.carryOut(ctx, key, changes[key]); err != nil {
				failure = err
				retry.Reset(writeRetry)
			}
			s.progressed()
		}
		if failure != nil && !failing && ctx.Err() == nil {
			s.log.Warn().Err(failure).Msg("an operator's order cannot be written to Consul: other replicas do not know it yet")
		}
		failing = failure != nil
	}
}

// progressed wakes those who wait for changes.
func (s *Store) progressed() {
	s.mu.Lock()
	close(s.progress)
	s.progress = make(chan struct{})
	s.mu.Unlock()
}

// carryOut changes a key.
func (s *Store) carryOut(ctx context.Context, key string, c *change) error {
	name := s.options.Prefix + "/" + key
	if err := s.mark(ctx, c); err != nil {
		return s.refused(c, err)
	}
	for {
		pair, _, err := s.options.Consul.Key(ctx, name, 0, 0)
		if err != nil {
			return s.refused(c, err)
		}
		if pair == nil {
			pair = &api.KVPair{Key: name}
		}
		done := false
		switch {
		case c.order != nil:
			pair.Value, _ = json.Marshal(c.order) // cannot fail
			done, err = s.options.Consul.ReplaceKey(ctx, pair)
		case pair.ModifyIndex == 0, c.onlyAt != nil && *c.onlyAt != pair.ModifyIndex:
			done = true // there is nothing to delete
		default:
			done, err = s.options.Consul.DeleteKeyIf(ctx, pair)
		}
		if err != nil {
			return s.refused(c, err)
		}
		if !done {
			continue
		}
		written := uint64(0)
		if c.order != nil {
			now, _, err := s.options.Consul.Key(ctx, name, 0, 0)
			if err != nil {
				return s.refused(c, err)
			}
			if now != nil { // else it has been deleted since: the next answer shows it
				written = now.ModifyIndex
			}
		}
		s.mu.Lock()
		c.accepted, c.before, c.written, c.err = true, pair.ModifyIndex, written, nil
		if c.onlyAt != nil {
			c.before = *c.onlyAt
		}
		s.settleLocked()
		s.mu.Unlock()
		s.refresh()
		return nil
	}
}

// mark writes the mark before the first order.
func (s *Store) mark(ctx context.Context, c *change) error {
	s.mu.Lock()
	marked := s.marked
	s.mu.Unlock()
	if marked || c.order == nil {
		return nil
	}
	_, err := s.options.Consul.ReplaceKey(ctx, &api.KVPair{Key: s.options.Prefix + "/" + markKey}) // or another replica has
	return err
}

func (s *Store) refused(c *change, err error) error {
	s.mu.Lock()
	c.err = err
	s.mu.Unlock()
	return err
}
