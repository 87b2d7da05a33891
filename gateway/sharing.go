package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/config"
	"sluice/consul"
	"sluice/consul/sharedkeys"
)

// proposeInterval is the shortest time between two proposals for a service: one may fail.
const proposeInterval = 10 * time.Second

// sharing makes replicas agree about given shares, by keys of Consul's KV store below a prefix:
//
//	PREFIX/shares/SERVICE   the given share of a service, as JSON
//	PREFIX/judges/REPLICA   a lock that the replica holds while it judges
//
// All replicas follow these keys, as package sharedkeys says. Each may roll back, which takes effect
// at its own place at once. Only the one with the oldest lock moves a share on, by a proposal. So
// without Consul no share grows.
//
// Its methods may be called concurrently, also on a nil sharing: then each replica is on its own.
type sharing struct {
	sharingOptions
	keys *sharedkeys.Keys[admin.GivenShare]

	mu sync.Mutex // guards the fields below

	locks    int                  // of replicas that judge
	oldest   bool                 // that of this one is the oldest
	proposed map[string]time.Time // when this replica last proposed a share, by service
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
	// since returns when the split of a service became that of the configuration; false: it may not
	// be, since not all of the configuration is known yet.
	since func(service string) (time.Time, bool)
	// judging reports whether this replica judges a service.
	judging func() bool
}

const sharesBelow = "shares/"

func newSharing(o sharingOptions) *sharing {
	s := &sharing{sharingOptions: o, proposed: make(map[string]time.Time)}
	s.keys = sharedkeys.New(sharedkeys.Options[admin.GivenShare]{
		Consul: o.client, Prefix: o.prefix, Wait: o.wait, Log: o.log,
		Decode: decodeShare, Select: s.selectShares, Changed: s.changed, Beside: s.attend,
		Name: "given shares", Alone: "this replica judges on its own, and no share grows",
	})
	return s
}

// resume begins to follow Consul, if that is not done yet.
func (s *sharing) resume() {
	if s != nil {
		s.keys.Resume()
	}
}

// pause ends what resume began. From then on no share grows.
func (s *sharing) pause() {
	if s != nil {
		s.keys.Pause()
	}
}

// await waits until Consul has answered, at most for timeout.
func (s *sharing) await(ctx context.Context, timeout time.Duration) {
	if s != nil {
		s.keys.AwaitFirst(ctx, timeout)
	}
}

// state returns the state of a service's given share, for the admin API.
func (s *sharing) state(service string) *admin.SharedState {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	state := &admin.SharedState{Judges: max(1, s.locks), Leads: s.oldest}
	s.mu.Unlock()
	state.Pending = s.keys.Of(sharesBelow + service).Pending
	if query, _ := s.keys.Errors(); query != nil {
		state.Error = query.Error()
	}
	return state
}

// changed uses what other replicas have changed. The given shares of the keys that are gone have
// ended.
func (s *sharing) changed(gone []string) {
	for _, key := range gone {
		if service := key[len(sharesBelow):]; s.shares.release(service) {
			s.log.Info().Str("service", service).Msg("the given share has ended: that of the configuration is in use")
		}
	}
	s.reconsider()
}

// reconsider uses the shares in Consul that are in place of the configuration's. What this replica
// changes is in use already.
func (s *sharing) reconsider() {
	if s == nil {
		return
	}
	for key, e := range s.keys.All() {
		service, given := key[len(sharesBelow):], e.Value
		now, ok := s.shares.of(service)
		if e.Changing || e.Absent || ok && sameShare(now, given) {
			continue
		}
		if !fits(given, s.split(service)) {
			if since, known := s.since(service); known && given.Since.Before(since) {
				s.log.Info().Str("service", service).Msg("the given share has ended: the configuration, which is later, has another split")
				s.retract(map[string]admin.GivenShare{service: given})
			}
			continue
		}
		s.shares.give(service, given)
		s.log.Info().Str("service", service).Str("group", given.Group).Float64("share", given.Share).
			Str("by", given.By).Str("replica", given.Replica).Str("why", given.Why).Msg("a share of another replica is in use")
	}
}

func sameShare(a, b admin.GivenShare) bool {
	sameTime := a.Since.Equal(b.Since)
	a.Since, b.Since = time.Time{}, time.Time{}
	return sameTime && a == b
}

// decodeShare reads the value of a key.
func decodeShare(_ string, text []byte) (given admin.GivenShare, err error) {
	if err := json.Unmarshal(text, &given); err != nil {
		return given, fmt.Errorf("not a share: %w", err)
	}
	if !(given.Share >= 0 && given.Share <= 1) {
		return given, fmt.Errorf("share %v: want a number from 0 to 1", given.Share)
	}
	return given, nil
}

// publish passes a given share on to all replicas. If it yields, one that an operator has set and
// this replica does not know yet stays.
func (s *sharing) publish(service string, given admin.GivenShare, yields bool) {
	if s == nil {
		return
	}
	s.keys.Put(sharesBelow+service, given, func(now admin.GivenShare, _ uint64) bool {
		return yields && now.By == admin.ByOperator && fits(now, s.split(service))
	})
}

// withdraw ends the given share of a service in all replicas.
func (s *sharing) withdraw(service string) {
	if s != nil {
		s.keys.Delete(sharesBelow+service, nil)
	}
}

// sharedShares are what a process knows of the keys of given shares, for the one that replaces it.
type sharedShares struct {
	Prefix  string                       `json:"prefix"`
	Known   map[string]admin.GivenShare  `json:"known,omitempty"`   // Consul has them
	Changes map[string]*admin.GivenShare `json:"changes,omitempty"` // Consul may lack them; nil: the share has ended
}

// handed returns what this process knows of the keys; nil without Consul.
func (s *sharing) handed() *sharedShares {
	if s == nil {
		return nil
	}
	h := &sharedShares{Prefix: s.prefix}
	h.Known, h.Changes = s.keys.State()
	return h
}

// inherit takes over what the old process knows: what Consul has ended or lost since is found by its
// first answer, as in that process. It must be called before resume.
func (s *sharing) inherit(old *sharedShares) {
	if s == nil || old == nil || old.Prefix != s.prefix {
		return
	}
	s.keys.Adopt(old.Known, old.Changes)
	for key, given := range old.Changes {
		if given != nil && given.By == admin.ByJudge {
			s.publish(key[len(sharesBelow):], *given, true)
		}
	}
}

// retract ends given shares in all replicas that this one no longer has: the configuration has
// changed.
func (s *sharing) retract(ended map[string]admin.GivenShare) {
	if s == nil {
		return
	}
	for service, given := range ended {
		s.keys.Delete(sharesBelow+service, func(now admin.GivenShare, _ uint64) bool { return !sameShare(given, now) })
	}
}

// propose passes a given share on, and uses it, if Consul accepts it before anybody has changed the
// share. It reports false if it is too soon for another proposal.
func (s *sharing) propose(service string, given admin.GivenShare) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.proposed[service]) < proposeInterval ||
		!s.keys.Propose(sharesBelow+service, given, func() { s.shares.judged(service, given) }) {
		return false
	}
	s.proposed[service] = time.Now()
	return true
}

// selectShares counts the locks in an answer of Consul, and returns the shares.
func (s *sharing) selectShares(pairs []api.KVPair) (shares []api.KVPair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locks, s.oldest = 0, false
	oldest := uint64(math.MaxUint64)
	for _, pair := range pairs {
		switch name := pair.Key[len(s.prefix)+1:]; {
		case strings.HasPrefix(name, sharesBelow):
			shares = append(shares, pair)
		case strings.HasPrefix(name, "judges/") && pair.Session != "":
			s.locks++
			if pair.CreateIndex < oldest {
				oldest, s.oldest = pair.CreateIndex, pair.Key == s.lockKey()
			}
		}
	}
	return shares
}

// newSharing returns the sharing below a prefix of Consul's KV store, or nil without one.
func (g *Gateway) newSharing(prefix string) *sharing {
	if prefix == "" {
		return nil
	}
	return newSharing(sharingOptions{
		client: g.consul, prefix: prefix, judge: fmt.Sprintf("%s/%d", g.replicaName(), os.Getpid()),
		log:    g.log.With().Str("keys", "consul_kv:"+prefix).Logger(),
		shares: g.shares, wait: g.consulWait, split: g.configuredSplit, since: g.splitSince,
		judging: func() bool { return len(g.trialsInUse()) > 0 },
	})
}
