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

// writeAll writes all changes once: first restored values, then the mark, then the others.
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
	lacksMark, raises := values && !k.marked, k.marked && k.mark < k.version
	// While Consul has the witness at this index, it has lost nothing since the last answer.
	var witness *api.KVPair
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
	switch {
	case failure != nil:
	case lacksMark:
		failure = k.writeMark(ctx, cmp.Or(witness, k.oneOf(restoring)))
	case raises:
		failure = k.raiseMark(ctx)
	}
	return cmp.Or(k.carryOutAll(ctx, others), failure)
}

// writeMark writes the mark, unless another replica has. If Consul lacks the witness, it has lost
// its state again, and the mark would mean that all was deleted. nil: there was nothing to lose.
func (k *Keys[V]) writeMark(ctx context.Context, witness *api.KVPair) error {
	mark := &api.KVPair{Key: k.name(markKey)}
	k.locked(func() { mark.Flags = k.version })
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

// raiseMark gives the mark the highest version that was seen, if Consul is back at an earlier one.
func (k *Keys[V]) raiseMark(ctx context.Context) error {
	mark, _, err := k.options.Consul.KV().Get(ctx, k.name(markKey), 0, 0)
	if err != nil || mark == nil {
		return err
	}
	if version := k.Seen(); mark.Flags < version {
		mark.Flags = version
		_, err = k.options.Consul.KV().Replace(ctx, mark) // or others have
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
		void, absent, seen, version, err := k.carryOut(ctx, key, c)
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
				c.proposed, c.accepted, c.isVoid, c.seen, c.version = false, true, void, seen, max(version, c.version)
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

// maxConflicts is how often a change is tried again at once after changes of others.
const maxConflicts = 20

var errConflicts = errors.New("others change the keys all the time")

// carryOut writes a change, unless it is void. It reports whether Consul lacks the key now,
// the index of an answer that shows it, and the version of the value there.
func (k *Keys[V]) carryOut(ctx context.Context, key string, c *change[V]) (void, absent bool, seen, version uint64, err error) {
	var text []byte
	if c.value != nil {
		text, _ = json.Marshal(c.value) // cannot fail
	}
	for accepted, tries := false, 0; ; tries++ {
		pair, answer, err := k.options.Consul.KV().Get(ctx, k.name(key), 0, 0)
		if err == nil && tries > maxConflicts {
			err = errConflicts
		}
		if err != nil {
			return false, false, 0, 0, err
		}
		absent, seen = pair == nil, answer.Index
		if absent {
			// Consul may have begun anew since the last answer.
			k.locked(func() { k.index = min(k.index, answer.Index) })
			pair = &api.KVPair{Key: k.name(key)}
		} else {
			seen, version = pair.ModifyIndex, pair.Flags
		}
		void = !accepted && c.voidedBy(key, pair, k.options.Decode)
		if accepted && absent && c.value != nil {
			mark, _, err := k.options.Consul.KV().Get(ctx, k.name(markKey), 0, 0)
			if err == nil && mark == nil {
				err = errLost
			}
			if err != nil {
				return false, false, 0, 0, err
			}
		}
		if accepted || void || absent && c.value == nil {
			return void, absent, seen, version, nil
		}
		if pair.Value = text; c.value == nil {
			pair.Value = nil
		}
		if accepted, err = k.writeKey(ctx, pair, c); err != nil {
			return false, false, 0, 0, err
		}
	}
}

// writeKey writes or deletes a key, if it and the mark are as Consul has them now. The version
// is above both and all that this replica has seen, and at least the time in milliseconds:
// so a replica that has seen nothing writes later versions than before.
func (k *Keys[V]) writeKey(ctx context.Context, pair *api.KVPair, c *change[V]) (done bool, err error) {
	kv := k.options.Consul.KV()
	mark, _, err := kv.Get(ctx, k.name(markKey), 0, 0)
	if err != nil {
		return false, err
	}
	version := max(pair.Flags, c.version, uint64(time.Now().UnixMilli()))
	if mark != nil {
		version = max(version, mark.Flags)
	}
	k.locked(func() { version = max(version, k.version) + 1 })
	switch {
	case c.value != nil && mark == nil:
		pair.Flags = version
		return kv.Replace(ctx, pair)
	case c.value != nil:
		pair.Flags = version
		return kv.ReplaceBeside(ctx, pair, mark)
	case mark == nil:
		return kv.DeleteIf(ctx, pair)
	}
	mark.Flags = version
	if done, err = kv.DeleteWith(ctx, pair, mark); done {
		k.locked(func() { c.version = version })
	}
	return done, err
}

// voidedBy reports whether the change of a key has become void by what Consul has.
func (c *change[V]) voidedBy(key string, pair *api.KVPair, decode func(string, []byte) (V, error)) bool {
	if c.restores && c.version > 0 {
		return pair.ModifyIndex > 0 && (pair.Flags == 0 || pair.Flags >= c.version)
	}
	if c.void == nil {
		return false
	}
	latest, err := decode(key, pair.Value)
	if err != nil {
		latest = *new(V)
	}
	return c.void(latest, pair.ModifyIndex)
}
