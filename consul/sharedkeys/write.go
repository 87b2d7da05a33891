package sharedkeys

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
)

// writeRetry is the delay after a failed write.
const writeRetry = time.Second

// write carries out changes until ctx ends.
func (k *Keys[V]) write(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-k.wake:
		case <-retry.C:
		case <-ctx.Done():
			return
		}
		if k.options.MayWrite != nil && !k.options.MayWrite() {
			retry.Reset(writeRetry)
			continue
		}
		failure := k.writeAll(ctx)
		if ctx.Err() != nil {
			return
		}
		if failure != nil {
			retry.Reset(writeRetry)
		}
		k.mu.Lock()
		before := k.refused
		k.refused = failure
		k.mu.Unlock()
		if failure != nil && before == nil {
			k.log.Warn().Err(failure).Msg(k.options.Name + ": a change cannot be written to Consul: other replicas do not know it yet")
		}
	}
}

// writeAll carries out all changes once: first changes that restore, then the mark, then the others.
func (k *Keys[V]) writeAll(ctx context.Context) error {
	restoring, others := make(map[string]*change[V]), make(map[string]*change[V])
	k.mu.Lock()
	values := len(k.known) > 0
	for key, c := range k.changes {
		switch {
		case c.accepted:
		case c.restores:
			restoring[key] = c
		default:
			others[key] = c
		}
		values = values || c.value != nil
	}
	lacksMark := values && !k.marked
	var witness *api.KVPair // while Consul has it with this index, it has lost nothing since the last answer
	for key, n := range k.known {
		if n.index > 0 {
			witness = &api.KVPair{Key: key, ModifyIndex: n.index}
		}
	}
	k.mu.Unlock()
	if witness != nil {
		witness.Key = k.name(witness.Key)
	}
	failure := k.carryOutAll(ctx, restoring)
	if lacksMark && failure == nil {
		failure = k.writeMark(ctx, cmp.Or(witness, k.oneOf(restoring)))
	}
	return cmp.Or(k.carryOutAll(ctx, others), failure)
}

// writeMark writes the mark, unless another replica has. If Consul has the witness no more, it has lost its state again: the mark
// would say that all was deleted. Without a witness, there was nothing to lose.
func (k *Keys[V]) writeMark(ctx context.Context, witness *api.KVPair) error {
	mark := &api.KVPair{Key: k.name(markKey)}
	if witness == nil {
		_, err := k.options.Consul.KV().Replace(ctx, mark)
		return err
	}
	there, err := k.options.Consul.KV().CreateBeside(ctx, mark, witness)
	if err == nil && !there {
		err = errLost
	}
	return err
}

// oneOf returns a key that Consul has since one of the changes was accepted; nil: there is none.
func (k *Keys[V]) oneOf(changes map[string]*change[V]) (has *api.KVPair) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, c := range changes {
		if c.accepted && c.value != nil {
			has = &api.KVPair{Key: k.name(key), ModifyIndex: c.seen}
		}
	}
	return has
}

// carryOutAll carries out changes, and returns the last error.
func (k *Keys[V]) carryOutAll(ctx context.Context, changes map[string]*change[V]) (failure error) {
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		c := changes[key]
		void, absent, seen, err := k.carryOut(ctx, key, c)
		failure = cmp.Or(err, failure)
		switch {
		case c.proposed && (void || err != nil):
			k.update(func() {
				if k.changes[key] == c {
					delete(k.changes, key)
				}
			})
		case err == nil:
			k.update(func() {
				c.proposed, c.accepted, c.seen = false, true, seen
				if absent { // or it has been deleted since
					c.value = nil
				}
				if k.changes[key] == c {
					k.forgetConfirmedLocked(key)
				}
			})
		}
		k.locked(func() { c.err = err })
		k.progress.Send()
	}
	return failure
}

var errLost = errors.New("lost by Consul since it accepted the change")

// carryOut changes a key, unless the change is void. It reports whether Consul lacks the key now, and
// the index of an answer that shows it.
func (k *Keys[V]) carryOut(ctx context.Context, key string, c *change[V]) (void, absent bool, seen uint64, err error) {
	var text []byte
	if c.value != nil {
		text, _ = json.Marshal(c.value) // cannot fail
	}
	for accepted := false; ; {
		pair, answer, err := k.options.Consul.KV().Get(ctx, k.name(key), 0, 0)
		if err != nil {
			return false, false, 0, err
		}
		absent, seen = pair == nil, answer.Index
		if absent {
			k.locked(func() { k.index = min(k.index, answer.Index) }) // Consul may have begun anew since the last answer
			pair = &api.KVPair{Key: k.name(key)}
		} else {
			seen = pair.ModifyIndex
		}
		void = !accepted && k.isVoid(key, c, pair)
		if accepted && absent && c.value != nil {
			mark, _, err := k.options.Consul.KV().Get(ctx, k.name(markKey), 0, 0)
			if err == nil && mark == nil {
				err = errLost
			}
			if err != nil {
				return false, false, 0, err
			}
		}
		if accepted || void || absent && c.value == nil {
			return void, absent, seen, nil
		}
		if c.value == nil {
			accepted, err = k.options.Consul.KV().DeleteIf(ctx, pair)
		} else {
			pair.Value = text
			accepted, err = k.options.Consul.KV().Replace(ctx, pair)
		}
		if err != nil {
			return false, false, 0, err
		}
	}
}

// isVoid reports whether a change has become void by what Consul has.
func (k *Keys[V]) isVoid(key string, c *change[V], pair *api.KVPair) bool {
	if c.void == nil {
		return false
	}
	now, err := k.options.Decode(key, pair.Value)
	if err != nil {
		now = *new(V)
	}
	return c.void(now, pair.ModifyIndex)
}
