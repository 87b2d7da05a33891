package leader

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sluice/consul"
	"sluice/discovery"
)

// reading is an answer about the key.
type reading struct {
	index  uint64
	named  string // "": nobody
	forgot bool   // Consul may have lost the name
}

// follow follows the key until ctx ends.
func (r *run) follow(ctx context.Context) {
	var value reading
	_ = r.client.Follow(ctx, consul.FollowOptions{
		Query:       consul.OneKey(r.options.Key),
		BeforeQuery: func(context.Context) (time.Duration, error) { return r.within(time.Now()), nil },
		Read: func(a consul.Answer, body []byte) (err error) {
			value, err = r.read(ctx, a, body)
			return err
		},
		Ended: func(err error) {
			if err != nil {
				r.fail(err)
				return
			}
			r.accept(value, time.Now())
		},
	})
}

// read reads an answer, and confirms one that ends a leader.
func (r *run) read(ctx context.Context, a consul.Answer, body []byte) (reading, error) {
	value, err := r.decode(a, body)
	if err != nil || !r.ends(value) {
		return value, err
	}
	forgot := a.Forgot
	if a, body, err = r.client.Confirm(ctx, consul.OneKey(r.options.Key)); err == nil {
		value, err = r.decode(a, body)
		value.forgot = forgot
	}
	if err != nil {
		return value, fmt.Errorf("confirm the answer: %w", err)
	}
	return value, nil
}

// decode returns whom the key names. It names nobody if it was locked and no session holds it:
// the holder has lost it, and the value is from before.
func (r *run) decode(a consul.Answer, body []byte) (reading, error) {
	keys, err := consul.DecodeKeys(a, body)
	if err != nil {
		return reading{}, fmt.Errorf("key %s: %w", r.options.Key, err)
	}
	value := reading{index: a.Index}
	if len(keys) > 0 && (keys[0].LockIndex == 0 || keys[0].Session != "") {
		value.named = strings.TrimSpace(string(keys[0].Value))
	}
	return value, nil
}

func (r *run) ends(value reading) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known && r.memory.Leader != "" && value.named != r.memory.Leader
}

// within returns how long the next query may block.
func (r *run) within(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.memory.LeaderLost.IsZero() {
		return r.options.Wait
	}
	return min(r.options.Wait, max(r.memory.LeaderLost.Add(r.options.Keep).Sub(now), 10*time.Millisecond))
}

// fail reports that the key cannot be read. The leader does not change.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = discovery.Refusal(err, consul.Refused(err))
	r.report(discovery.Report{Err: r.fault, Memory: r.memoriesLocked()})
}

// accept applies an answer, and reports a change.
func (r *run) accept(value reading, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &r.memory
	same := r.known && r.fault == nil
	was := m.Leader
	switch {
	case value.named != "":
		m.Leader, m.LeaderLost = value.named, time.Time{}
	case m.Leader == "":
	case m.LeaderLost.IsZero() && (value.index < m.Index || value.forgot): // state is lost
		m.LeaderLost = at
	case m.LeaderLost.IsZero() || at.Sub(m.LeaderLost) >= r.options.Keep:
		m.Leader, m.LeaderLost = "", time.Time{}
	}
	m.Part, m.Index = memoryPart, max(value.index, 1)
	r.known, r.fault = true, nil
	if same && m.Leader == was {
		r.report(discovery.Report{Memory: r.memoriesLocked()})
		return
	}
	r.resumeLocked()
	r.reportLocked()
}
