package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/config"
	"sluice/consul"
)

// sharing makes replicas agree about given shares, by keys of Consul's KV store below a prefix:
//
//	PREFIX/shares/SERVICE   the given share of a service, as JSON
//	PREFIX/judges/REPLICA   a lock that the replica holds while it judges
//
// All replicas follow these keys. Each may roll back, which takes effect at its own place at once.
// Only the one with the oldest lock moves a share on, and only by a write that Consul accepts
// if nobody has changed the share before. So without Consul no share grows.
//
// Its methods may be called concurrently, also on a nil sharing: then each replica is on its own.
type sharing struct {
	sharingOptions
	wake  chan struct{} // capacity 1: orders has changed
	first chan struct{} // closed when Consul has answered

	mu sync.Mutex // guards the fields below

	stop     func() // ends all goroutines, and waits for that; nil: none runs
	answered bool
	failure  error // of the last query
	index    uint64
	known    map[string]sharedShare // what Consul has, by service
	locks    int                    // of replicas that judge
	oldest   bool                   // that of this one is the oldest
	orders   map[string]*shareOrder // what Consul does not have yet, by service
	proposed map[string]time.Time   // when this replica last proposed a share, by service
}

type sharingOptions struct {
	client *consul.Client
	prefix string
	judge  string // the name of this process as a judge: no other has it
	log    zerolog.Logger
	shares *shares
	wait   func() time.Duration // of blocking queries
	// split returns the split of a service in the configuration, without given shares.
	split func(service string) config.Split
	// judging reports whether this replica judges a service.
	judging func() bool
}

// sharedShare is a given share in Consul.
type sharedShare struct {
	admin.GivenShare
	index uint64 // of its last change
}

func newSharing(o sharingOptions) *sharing {
	return &sharing{sharingOptions: o, wake: make(chan struct{}, 1), first: make(chan struct{}), orders: make(map[string]*shareOrder), proposed: make(map[string]time.Time)}
}

// resume begins to follow Consul, if that is not done yet.
func (s *sharing) resume() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		defer s.client.Join()()
		_ = s.client.Follow(ctx, consul.FollowOptions{ // ends with ctx
			Query: consul.KeysBelow(s.prefix + "/"),
			Read:  s.read,
			Ended: s.ended,
			Begin: func(context.Context) (time.Duration, error) { return s.wait(), nil },
		})
	})
	running.Go(func() { s.attend(ctx) })
	running.Go(func() { s.write(ctx) })
	s.stop = func() {
		cancel()
		running.Wait()
	}
}

// pause ends what resume began. From then on no share grows.
func (s *sharing) pause() {
	if s == nil {
		return
	}
	s.mu.Lock()
	stop := s.stop
	s.stop, s.answered = nil, false
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// await waits until Consul has answered, at most for timeout.
func (s *sharing) await(ctx context.Context, timeout time.Duration) {
	if s == nil {
		return
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-s.first:
	case <-timer.C:
		s.log.Warn().Stringer("waited", timeout).Msg("the shared shares are not known: those of the configuration are in use until Consul answers")
	case <-ctx.Done():
	}
}

// state returns the state of a service's given share, for the admin API.
func (s *sharing) state(service string) *admin.SharedState {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.orders[service]
	state := &admin.SharedState{Judges: max(1, s.locks), Leads: s.oldest, Pending: o != nil && !o.accepted}
	if s.failure != nil {
		state.Error = s.failure.Error()
	}
	return state
}

// reconsider uses the shares in Consul that fit the configuration, which has changed.
func (s *sharing) reconsider() {
	if s == nil {
		return
	}
	s.mu.Lock()
	usable := maps.Clone(s.known)
	for service := range s.orders {
		delete(usable, service)
	}
	s.mu.Unlock()
	for service, given := range usable {
		s.adopt(service, given.GivenShare)
	}
}

// adopt uses a share in Consul, if it is one in place of the configuration's.
func (s *sharing) adopt(service string, given admin.GivenShare) {
	now, ok := s.shares.of(service)
	if !fits(given, s.split(service)) || ok && sameShare(now, given) {
		return
	}
	s.shares.give(service, given)
	s.log.Info().Str("service", service).Str("group", given.Group).Float64("share", given.Share).
		Str("by", given.By).Str("replica", given.Replica).Str("why", given.Why).Msg("a share of another replica is in use")
}

func sameShare(a, b admin.GivenShare) bool {
	sameTime := a.Since.Equal(b.Since)
	a.Since, b.Since = time.Time{}, time.Time{}
	return sameTime && a == b
}

// read takes an answer of Consul.
func (s *sharing) read(a consul.Answer, body []byte) error {
	list, err := consul.DecodeKeys(a, body)
	if err != nil {
		return fmt.Errorf("keys below %s/: %w", s.prefix, err)
	}
	next := make(map[string]sharedShare)
	var locks []api.KVPair
	for _, pair := range list {
		switch kind, name, _ := strings.Cut(pair.Key[len(s.prefix)+1:], "/"); {
		case kind == "shares":
			if shared, err := decodeShare(pair); err == nil {
				next[name] = shared
			} else {
				s.log.Warn().Err(err).Msg("a shared share cannot be used")
			}
		case kind == "judges" && pair.Session != "":
			locks = append(locks, pair)
		}
	}
	s.use(a.Index, next, locks)
	return nil
}

func decodeShare(pair api.KVPair) (sharedShare, error) {
	shared := sharedShare{index: pair.ModifyIndex}
	err := json.Unmarshal(pair.Value, &shared.GivenShare)
	if err == nil && !(shared.Share >= 0 && shared.Share <= 1) {
		err = fmt.Errorf("share %v: want a number from 0 to 1", shared.Share)
	}
	if err != nil {
		return shared, fmt.Errorf("consul_kv:%s: %w", pair.Key, err)
	}
	return shared, nil
}

// use makes next what Consul has. A share that is gone is released, unless Consul has lost its
// state: then it is written again.
func (s *sharing) use(index uint64, next map[string]sharedShare, locks []api.KVPair) {
	s.mu.Lock()
	lost := index < s.index
	var gone []string
	for service, o := range s.orders {
		if lost {
			o.accepted = false
		}
		shared, there := next[service]
		if o.accepted && (shared.index > o.before || o.given == nil && !there) {
			delete(s.orders, service)
		}
	}
	for service := range s.known {
		if _, still := next[service]; !still && s.orders[service] == nil {
			gone = append(gone, service)
		}
	}
	s.known, s.index = next, index
	s.locks, s.oldest = len(locks), false
	oldest := uint64(0)
	for _, l := range locks {
		if oldest == 0 || l.CreateIndex < oldest {
			oldest, s.oldest = l.CreateIndex, l.Key == s.lockKey()
		}
	}
	if !s.answered {
		s.answered = true
		if !closed(s.first) {
			defer close(s.first)
		}
	}
	s.mu.Unlock()
	for _, service := range gone {
		given, ok := s.shares.of(service)
		switch {
		case !ok:
		case lost:
			s.publish(service, given, given.By == admin.ByJudge)
		default:
			s.shares.release(service)
			s.log.Info().Str("service", service).Msg("the given share has ended: that of the configuration is in use")
		}
	}
	s.reconsider()
}

// ended records the result of a query.
func (s *sharing) ended(err error) {
	s.mu.Lock()
	before := s.failure
	s.failure = err
	s.mu.Unlock()
	switch {
	case err == nil && before != nil:
		s.log.Info().Msg("the shared shares are followed again")
	case err != nil && before == nil:
		s.log.Warn().Err(err).Msg("the shared shares cannot be followed: this replica judges on its own, and no share grows")
	}
}

// newSharing returns the sharing below a prefix of Consul's KV store, or nil without one.
func (g *Gateway) newSharing(prefix string) *sharing {
	if prefix == "" {
		return nil
	}
	return newSharing(sharingOptions{
		client: g.consul, prefix: prefix, judge: fmt.Sprintf("%s/%d", g.replicaName(), os.Getpid()),
		log:    g.log.With().Str("keys", "consul_kv:"+prefix).Logger(),
		shares: g.shares, wait: g.consulWait, split: g.configuredSplit,
		judging: func() bool { return len(g.trialsInUse()) > 0 },
	})
}
