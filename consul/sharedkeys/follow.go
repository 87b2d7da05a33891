package sharedkeys

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	"sluice/observe/excerpt"
	"sluice/observe/panics"
)

// markKey is the mark: see the package comment.
const markKey = "begun"

// maxReason is how many bytes are kept of why a value cannot be used, which may have a part of it.
const maxReason = 400

// Resume begins to follow Consul, and to write changes, if that is not done yet.
func (k *Keys[V]) Resume() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.Shared() || k.tasks.Runs() {
		return
	}
	tasks := []func(context.Context){k.follow, k.write}
	if k.options.Beside != nil {
		tasks = append(tasks, k.options.Beside)
	}
	k.tasks.Begin(context.Background(), panics.Watch, tasks...)
}

// Pause ends what Resume began, and forgets proposals.
func (k *Keys[V]) Pause() {
	var end func()
	k.locked(func() { end, k.current = k.tasks.Detach(), false })
	end()
	k.locked(func() {
		maps.DeleteFunc(k.changes, func(_ string, c *change[V]) bool { return c.proposed })
	})
}

// follow reads the keys until ctx ends.
func (k *Keys[V]) follow(ctx context.Context) {
	_ = k.options.Consul.Follow(ctx, consul.FollowOptions{ // ends with ctx
		Query:       consul.KeysBelow(k.options.Prefix + "/"),
		Read:        k.read,
		Ended:       k.ended,
		BeforeQuery: k.begin,
	})
}

// begin is called before each query, and returns how long it may block. The answer has what Consul
// has accepted by now.
func (k *Keys[V]) begin(context.Context) (time.Duration, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.changes {
		c.due = c.accepted
	}
	return k.options.Wait(), nil
}

// read takes an answer of Consul.
func (k *Keys[V]) read(a consul.Answer, body []byte) error {
	pairs, err := consul.DecodeKeys(a, body)
	if err != nil {
		return fmt.Errorf("keys below %s/: %w", k.options.Prefix, err)
	}
	k.setKnown(a.Index, pairs, a.Forgot)
	return nil
}

// setKnown sets what Consul has. forgot: it may have lost its state since the last answer.
func (k *Keys[V]) setKnown(index uint64, pairs []api.KVPair, forgot bool) {
	marked, mark := false, uint64(0)
	for _, p := range pairs {
		if p.Key == k.name(markKey) {
			marked, mark = true, p.Flags
		}
	}
	if k.options.Select != nil {
		pairs = k.options.Select(pairs)
	}
	k.update(func() {
		latest, invalid := k.decodeLocked(pairs)
		if k.marked && !marked {
			k.log.Warn().Msg(k.options.Name + ": Consul has lost its state, they are written again")
		}
		if k.began = k.began || marked; k.began && !marked {
			k.restoreLocked(latest)
		} else if reverted := k.revertLocked(latest, mark, forgot); len(reverted) > 0 {
			k.log.Warn().Strs("keys_below", reverted).Msg(k.options.Name + ": Consul is back at an earlier state, what was changed since is written again")
		}
		k.known, k.invalid, k.index, k.marked, k.mark, k.current = latest, invalid, index, marked, mark, true
		k.version = max(k.version, mark)
		for key := range k.changes {
			k.forgetConfirmedLocked(key)
		}
	})
	k.opened.Do(func() { close(k.first) })
	k.wake.Send()
}

// decodeLocked returns the values of pairs, and which of them cannot be used.
func (k *Keys[V]) decodeLocked(pairs []api.KVPair) (map[string]known[V], map[string]Invalid) {
	latest, invalid := make(map[string]known[V]), make(map[string]Invalid)
	for _, pair := range pairs {
		key := pair.Key[len(k.options.Prefix)+1:]
		if key == markKey {
			continue
		}
		value, err := k.options.Decode(key, pair.Value)
		if err == nil {
			latest[key] = known[V]{value, pair.ModifyIndex, pair.Flags}
			continue
		}
		last := k.entryLocked(key)
		used := !last.Absent
		if used {
			latest[key] = known[V]{last.Value, pair.ModifyIndex, pair.Flags}
		}
		reason := excerpt.Of(err.Error(), maxReason)
		invalid[key] = Invalid{Key: pair.Key, Reason: reason, InUse: used, index: pair.ModifyIndex}
		if k.invalid[key].index != pair.ModifyIndex {
			k.log.Warn().Str("error", reason).Str("key", pair.Key).Bool("last_in_use", used).Msg(k.options.Name + ": a key in Consul cannot be used")
		}
	}
	return latest, invalid
}

// restoreLocked restores values that Consul had, or has accepted, and that latest lacks.
func (k *Keys[V]) restoreLocked(latest map[string]known[V]) {
	for _, key := range k.keysLocked() {
		e, c := k.entryLocked(key), k.changes[key]
		_, still := latest[key]
		if !still && !e.Absent && (c == nil || c.accepted && !c.isVoid || c.proposed) {
			k.changes[key] = newRestoring(e.Value, 0)
		}
	}
}

// revertLocked restores what this replica has seen later than latest, the values of an answer with
// this version of the mark. It returns the keys. See "Versions" in the package comment.
func (k *Keys[V]) revertLocked(latest map[string]known[V], mark uint64, forgot bool) (reverted []string) {
	// seen returns what counted before. known is false while that is about to be written, or
	// void.
	seen := func(key string) (e Entry[V], known bool) {
		c := k.changes[key]
		e = k.entryLocked(key)
		if c != nil && c.accepted {
			e.Version = c.version
		}
		return e, c == nil || c.proposed || c.accepted && !c.isVoid && (c.due || forgot)
	}
	back := forgot || mark < k.version
	for key, n := range latest {
		e, known := seen(key)
		switch {
		case !known || n.version == 0:
		case e.Absent && n.version <= max(k.version, e.Version): // its end came later
			k.changes[key] = &change[V]{restores: true, version: max(k.version, e.Version) + 1}
			reverted = append(reverted, key)
		case !e.Absent && n.version < e.Version:
			k.changes[key] = newRestoring(e.Value, e.Version)
			reverted = append(reverted, key)
		}
	}
	back = back || len(reverted) > 0
	for _, key := range k.keysLocked() {
		e, known := seen(key)
		// With mark <= k.version, nobody has ended a value since.
		if _, there := latest[key]; known && !there && !e.Absent && back && mark <= k.version {
			k.changes[key] = newRestoring(e.Value, e.Version)
			reverted = append(reverted, key)
		}
	}
	slices.Sort(reverted)
	return reverted
}

// forgetConfirmedLocked forgets the change of a key if the last answer has it, or a later one.
func (k *Keys[V]) forgetConfirmedLocked(key string) {
	c := k.changes[key]
	if c == nil || !c.accepted {
		return
	}
	n, there := k.known[key]
	if c.due || there && n.index >= c.seen || !there && (c.value == nil || k.index >= c.seen) {
		delete(k.changes, key)
	}
}

// update makes f change keys, and tells that. The caller does not hold mu.
func (k *Keys[V]) update(f func()) {
	k.locked(f)
	if k.options.Changed != nil {
		k.options.Changed()
	}
}

func (k *Keys[V]) locked(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

// ended records the result of a query.
func (k *Keys[V]) ended(err error) {
	k.mu.Lock()
	before := k.failure
	k.failure = err
	k.mu.Unlock()
	switch {
	case err == nil && before != nil:
		k.log.Info().Msg(k.options.Name + ": Consul is followed again")
	case err != nil && before == nil:
		k.log.Warn().Err(err).Msg(k.options.Name + ": Consul cannot be followed: " + k.options.Alone)
	}
}

// name returns the name of a key in Consul.
func (k *Keys[V]) name(key string) string { return k.options.Prefix + "/" + key }
