package gateway

import (
	"context"
	"encoding/json"
	"maps"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
)

const (
	// proposeInterval is the shortest time between two proposals for a service: one may fail.
	proposeInterval = 10 * time.Second
	// publishRetry is the delay after a failed write.
	publishRetry = time.Second
)

// shareOrder is a change of a key, which is repeated until Consul has it, or until it has become
// void.
type shareOrder struct {
	given *admin.GivenShare // nil: the key is deleted
	// yields says that an operator's share makes the order void.
	yields bool
	// onlyAt, if not nil, is the index of the key that the order is about: it is void if the key
	// has changed.
	onlyAt *uint64
	// ended, if not nil, is the share that the order is about: it is void if the key has another.
	ended *admin.GivenShare

	accepted bool   // by Consul; the watch has not shown it yet
	before   uint64 // with accepted: the index of the key before
}

// publish passes a given share on to all replicas. If it yields, one that an operator has set and
// this replica does not know yet stays.
func (s *sharing) publish(service string, given admin.GivenShare, yields bool) {
	s.order(service, &shareOrder{given: &given, yields: yields})
}

// withdraw ends the given share of a service in all replicas.
func (s *sharing) withdraw(service string) { s.order(service, &shareOrder{}) }

// retract ends given shares in all replicas that this one no longer has: the configuration has
// changed.
func (s *sharing) retract(ended map[string]admin.GivenShare) {
	for service, given := range ended {
		s.order(service, &shareOrder{ended: &given})
	}
}

// propose passes a given share on, and uses it, if Consul accepts it before anybody has changed the
// share. It reports false if it is too soon for another proposal.
func (s *sharing) propose(service string, given admin.GivenShare) bool {
	s.mu.Lock()
	index := s.known[service].index
	soon := s.orders[service] != nil || time.Since(s.proposed[service]) < proposeInterval
	if !soon {
		s.proposed[service] = time.Now()
	}
	s.mu.Unlock()
	if !soon {
		s.order(service, &shareOrder{given: &given, onlyAt: &index})
	}
	return !soon
}

func (s *sharing) order(service string, o *shareOrder) {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.orders[service] = o
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *sharing) key(service string) string { return s.prefix + "/shares/" + service }

// write carries out orders until ctx ends.
func (s *sharing) write(ctx context.Context) {
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
		orders := maps.Clone(s.orders)
		maps.DeleteFunc(orders, func(_ string, o *shareOrder) bool { return o.accepted })
		s.mu.Unlock()
		var failure error
		for service, o := range orders {
			if err := s.carryOut(ctx, service, o); err != nil {
				failure = err
				retry.Reset(publishRetry)
			}
		}
		if failure != nil && !failing && ctx.Err() == nil {
			s.log.Warn().Err(failure).Msg("a given share cannot be passed on: it is in use here only, until Consul accepts it")
		}
		failing = failure != nil
	}
}

// carryOut changes the key of a service, unless the order is void.
func (s *sharing) carryOut(ctx context.Context, service string, o *shareOrder) error {
	for {
		pair, _, err := s.client.Key(ctx, s.key(service), 0, 0)
		if err != nil {
			return s.failed(service, o, err)
		}
		now := sharedShare{}
		if pair == nil {
			pair = &api.KVPair{Key: s.key(service)}
		} else if now, err = decodeShare(*pair); err != nil {
			now = sharedShare{index: pair.ModifyIndex} // it is replaced
		}
		if s.isVoid(o, now, service) {
			s.done(service, o)
			s.reconsider()
			return nil
		}
		accepted := false
		if o.given == nil {
			accepted, err = s.client.DeleteKeyIf(ctx, pair)
		} else {
			pair.Value, _ = json.Marshal(o.given) // cannot fail
			accepted, err = s.client.ReplaceKey(ctx, pair)
		}
		if err != nil {
			return s.failed(service, o, err)
		}
		if accepted {
			if o.onlyAt != nil {
				s.shares.judged(service, *o.given)
			}
			s.mu.Lock()
			o.accepted, o.before = true, pair.ModifyIndex
			s.mu.Unlock()
			return nil
		}
	}
}

// isVoid reports whether an order has become void by what Consul has now.
func (s *sharing) isVoid(o *shareOrder, now sharedShare, service string) bool {
	switch {
	case o.onlyAt != nil:
		return *o.onlyAt != now.index
	case o.ended != nil:
		return !sameShare(*o.ended, now.GivenShare)
	case o.given == nil:
		return now.index == 0
	}
	return o.yields && now.By == admin.ByOperator && fits(now.GivenShare, s.split(service))
}

// failed returns err. A share that may grow only if Consul agrees does not.
func (s *sharing) failed(service string, o *shareOrder, err error) error {
	if o.onlyAt != nil {
		s.done(service, o)
	}
	return err
}

// done removes an order, unless another one has replaced it.
func (s *sharing) done(service string, o *shareOrder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.orders[service] == o {
		delete(s.orders, service)
	}
}
