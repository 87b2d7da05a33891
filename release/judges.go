package release

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
)

const (
	// attendInterval is how often a replica without a lock tries to get one.
	attendInterval = time.Second
	// unlockTimeout bounds the last write of a process.
	unlockTimeout = time.Second
)

// judges are the replicas that judge: each holds a lock while it does. It is safe for concurrent
// use.
type judges struct {
	shares *Shares
	needed atomic.Bool // this replica judges a service
	lost   atomic.Bool // the key of its lock has disappeared

	mu sync.Mutex // guards the fields below

	locks  int  // of replicas that judge
	oldest bool // this one's mark is the oldest
	own    bool // it is there
}

// state returns how many replicas judge, at least 1, and whether the lock of this one is the
// oldest.
func (j *judges) state() SharedState {
	j.mu.Lock()
	defer j.mu.Unlock()
	return SharedState{Judges: max(1, j.locks), Leads: j.oldest}
}

// leads reports whether this replica may move shares on.
func (j *judges) leads() bool {
	return !j.shares.Store.Shares() || j.state().Leads && j.shares.Store.Current()
}

// lockKey returns the name of the lock of this process: no other has it.
func (j *judges) lockKey() string {
	return fmt.Sprintf("%s/judges/%s/%d", j.shares.options.Prefix, j.shares.options.Replica(), os.Getpid())
}

// selectShares counts the locks in an answer of Consul, and returns the shares.
func (j *judges) selectShares(pairs []api.KVPair) (shares []api.KVPair) {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := j.own
	j.locks, j.oldest, j.own = 0, false, false
	oldest := uint64(math.MaxUint64)
	for _, pair := range pairs {
		switch name := pair.Key[len(j.shares.options.Prefix)+1:]; {
		case strings.HasPrefix(name, sharesBelow):
			shares = append(shares, pair)
		case strings.HasPrefix(name, "judges/") && pair.Session != "":
			j.locks++
			j.own = j.own || pair.Key == j.lockKey()
			if pair.CreateIndex < oldest {
				oldest, j.oldest = pair.CreateIndex, pair.Key == j.lockKey()
			}
		}
	}
	if before && !j.own {
		j.lost.Store(true)
	}
	return shares
}

// holdWhileJudging holds a lock while this replica judges, until ctx ends.
func (j *judges) holdWhileJudging(ctx context.Context) {
	client, failing := j.shares.options.Consul, false
	for {
		if j.needed.Load() {
			j.lost.Store(false)
			lock, err := client.Lock(ctx, j.lockKey())
			if err == nil {
				j.keepLock(ctx, lock)
			} else if !failing && ctx.Err() == nil {
				j.shares.log.Warn().Err(err).Msg("no judge lock: the release pauses on this replica")
			}
			failing = err != nil
		}
		if consul.Sleep(ctx, attendInterval+client.Jitter(attendInterval/10)) != nil {
			return
		}
	}
}

// keepLock keeps a lock while it is held and needed, and its key is there: who deletes all keys
// ends no session.
func (j *judges) keepLock(ctx context.Context, lock *consul.Lock) {
	needed := time.NewTicker(attendInterval)
	for j.needed.Load() {
		select {
		case <-needed.C:
			if !j.lost.Load() {
				continue
			}
		case <-lock.Held.Done():
		case <-ctx.Done():
		}
		break
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	_ = lock.Unlock(ctx) // else it ends by its TTL
}
