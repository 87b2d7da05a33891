package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// writeTimeout bounds each write. A server answers when the raft log has it.
const writeTimeout = 10 * time.Second

// keys are the keys of a query: all with a prefix, or one key. Consul ignores a leading slash.
type keys struct {
	prefix string
	one    bool
}

// has reports whether k has a key; nil has any.
func (k *keys) has(key string) bool {
	return k == nil || strings.HasPrefix(key, k.prefix) && !(k.one && key != k.prefix)
}

// KeysBelow returns the query of all keys of Consul's KV store that begin with prefix, and
// their values. DecodeKeys reads its answers.
func KeysBelow(prefix string) Query {
	return Query{
		MayBeAbsent: true,
		keys:        &keys{prefix: strings.TrimPrefix(prefix, "/")},
		Needs:       fmt.Sprintf("key:read: key_prefix %q { policy = \"read\" }", prefix),
		Send: func(c *api.Client, q *api.QueryOptions) error {
			_, _, err := c.KV().List(prefix, q)
			return err
		},
	}
}

// OneKey returns the query of a key of Consul's KV store, and its value. DecodeKeys reads its
// answers.
func OneKey(key string) Query {
	return Query{
		MayBeAbsent: true,
		keys:        &keys{prefix: strings.TrimPrefix(key, "/"), one: true},
		Needs:       fmt.Sprintf("key:read: key %q { policy = \"read\" }", key),
		Send: func(c *api.Client, q *api.QueryOptions) error {
			_, _, err := c.KV().Get(key, q)
			return err
		},
	}
}

// DecodeKeys returns the keys in the body of an answer to KeysBelow or OneKey, without directories:
// keys that end with a slash. The error is ErrFiltered if ACLs hide a key: the rest must not
// be taken for all. A key that the query is not about is an error.
func DecodeKeys(a Answer, body []byte) ([]api.KVPair, error) {
	if a.FilteredByACL {
		return nil, ErrFiltered
	}
	if a.Absent {
		return nil, nil
	}
	var found []api.KVPair
	d := json.NewDecoder(bytes.NewReader(body))
	if begin, err := d.Token(); err != nil || begin != json.Delim('[') {
		return nil, errNoKeys
	}
	for d.More() {
		var k api.KVPair
		if err := d.Decode(&k); err != nil {
			return nil, fmt.Errorf("%w: %w", errNoKeys, err)
		}
		if !a.keys.has(k.Key) { // before more of them take memory
			return nil, fmt.Errorf("the answer has the key %.200q, which was not asked for", k.Key)
		}
		if k.Key != "" && k.Key[len(k.Key)-1] != '/' {
			found = append(found, k)
		}
	}
	if _, err := d.Token(); err != nil { // its end
		return nil, fmt.Errorf("%w: %w", errNoKeys, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errNoKeys
	}
	return found, nil
}

var errNoKeys = errors.New("the answer is not a list of keys")

// KV is Consul's KV store.
type KV struct{ c *Client }

// Get returns a key; nil: there is none. With an index above 0 it
// waits, at most for wait, until the index of the key is greater. Only the leader answers,
// so the answer has every write that has succeeded before.
func (k KV) Get(ctx context.Context, key string, index uint64, wait time.Duration) (*api.KVPair, Answer, error) {
	q := OneKey(key)
	q.WaitIndex, q.WaitTime = index, wait
	a, body, err := k.c.whole(ctx, q)
	if err != nil {
		return nil, a, err
	}
	list, err := DecodeKeys(a, body)
	if err != nil || len(list) == 0 {
		return nil, a, err
	}
	return &list[0], a, nil
}

// Names returns the names of the keys that begin with prefix. If separator is not
// empty, it is the part of each name up to the next separator after prefix, once.
func (k KV) Names(ctx context.Context, prefix, separator string) ([]string, error) {
	q := KeysBelow(prefix)
	q.Send = func(c *api.Client, q *api.QueryOptions) error {
		_, _, err := c.KV().Keys(prefix, separator, q)
		return err
	}
	a, body, err := k.c.whole(ctx, q)
	if err == nil && a.FilteredByACL {
		err = ErrFiltered
	}
	if err != nil || a.Absent {
		return nil, err
	}
	var names []string
	if err := json.Unmarshal(body, &names); err != nil {
		return nil, fmt.Errorf("decode the answer: %w", err)
	}
	return names, nil
}

// Put writes a key.
func (k KV) Put(ctx context.Context, pair *api.KVPair) error {
	return k.c.writeAgain(ctx, keyWrite(pair.Key), func(c *api.Client, w *api.WriteOptions) error {
		_, err := c.KV().Put(pair, w)
		return err
	})
}

// Replace writes a key if it still has the ModifyIndex of pair; 0: if
// there is no such key.
func (k KV) Replace(ctx context.Context, pair *api.KVPair) (replaced bool, err error) {
	err = k.c.write(ctx, keyWrite(pair.Key), func(c *api.Client, w *api.WriteOptions) (err error) {
		replaced, _, err = c.KV().CAS(pair, w)
		return err
	})
	return replaced, err
}

// CreateBeside writes a key, in one transaction, if there is none and beside still has its
// ModifyIndex. It reports whether beside has: then the key is there, written now or before.
func (k KV) CreateBeside(ctx context.Context, pair, beside *api.KVPair) (there bool, err error) {
	done, failed, err := k.together(ctx,
		&api.KVTxnOp{Verb: api.KVCheckIndex, Key: beside.Key, Index: beside.ModifyIndex},
		&api.KVTxnOp{Verb: api.KVCAS, Key: pair.Key, Value: pair.Value, Flags: pair.Flags})
	return done || len(failed) > 0 && !slices.ContainsFunc(failed, func(e *api.TxnError) bool { return e.OpIndex == 0 }), err
}

// ReplaceBeside is Replace, in one transaction, if beside still has its ModifyIndex.
func (k KV) ReplaceBeside(ctx context.Context, pair, beside *api.KVPair) (replaced bool, err error) {
	replaced, _, err = k.together(ctx,
		&api.KVTxnOp{Verb: api.KVCheckIndex, Key: beside.Key, Index: beside.ModifyIndex},
		&api.KVTxnOp{Verb: api.KVCAS, Key: pair.Key, Value: pair.Value, Flags: pair.Flags, Index: pair.ModifyIndex})
	return replaced, err
}

// DeleteWith is DeleteIf, together with Replace of another key: both, or none.
func (k KV) DeleteWith(ctx context.Context, pair, other *api.KVPair) (done bool, err error) {
	done, _, err = k.together(ctx,
		&api.KVTxnOp{Verb: api.KVDeleteCAS, Key: pair.Key, Index: pair.ModifyIndex},
		&api.KVTxnOp{Verb: api.KVCAS, Key: other.Key, Value: other.Value, Flags: other.Flags, Index: other.ModifyIndex})
	return done, err
}

// together takes steps at one moment, or none of them if some are not possible: failed.
func (k KV) together(ctx context.Context, steps ...*api.KVTxnOp) (done bool, failed api.TxnErrors, err error) {
	var ops api.TxnOps
	for _, step := range steps {
		ops = append(ops, &api.TxnOp{KV: step})
	}
	needs := keyWrite(steps[0].Key)
	err = k.c.write(ctx, needs, func(c *api.Client, w *api.WriteOptions) error {
		ok, answer, _, err := c.Txn().Txn(ops, (&api.QueryOptions{Token: w.Token}).WithContext(w.Context()))
		done, failed = ok, nil
		if err != nil || answer == nil {
			return err
		}
		failed = slices.DeleteFunc(answer.Errors, func(e *api.TxnError) bool { return e == nil })
		for _, e := range failed { // its status is 409
			if strings.Contains(e.What, "Permission denied") {
				return api.StatusError{Code: http.StatusForbidden, Body: e.What}
			}
		}
		return nil
	})
	return done, failed, err
}

// DeleteIf deletes a key if it has not changed since it had pair's
// ModifyIndex. It reports whether it did.
func (k KV) DeleteIf(ctx context.Context, pair *api.KVPair) (done bool, err error) {
	err = k.c.write(ctx, keyWrite(pair.Key), func(c *api.Client, w *api.WriteOptions) (err error) {
		done, _, err = c.KV().DeleteCAS(pair, w)
		return err
	})
	return done, err
}

// Delete deletes a key. It is no error if there is none.
func (k KV) Delete(ctx context.Context, key string) error {
	return k.c.writeAgain(ctx, keyWrite(key), func(c *api.Client, w *api.WriteOptions) error {
		_, err := c.KV().Delete(key, w)
		return err
	})
}

// DeleteBelow deletes all keys that begin with prefix.
func (k KV) DeleteBelow(ctx context.Context, prefix string) error {
	return k.c.writeAgain(ctx, keyWrite(prefix), func(c *api.Client, w *api.WriteOptions) error {
		_, err := c.KV().DeleteTree(prefix, w)
		return err
	})
}

func keyWrite(key string) string {
	return fmt.Sprintf("key:write: key_prefix %q { policy = \"write\" }", key)
}

// writeAgain is write, repeated when another agent is in use or the same one has recovered:
// send may happen twice.
func (c *Client) writeAgain(ctx context.Context, needs string, send func(*api.Client, *api.WriteOptions) error) error {
	for {
		if err := c.write(ctx, needs, send); !canceledByAgents(err) {
			return err
		}
	}
}

// write sends a request that changes Consul's state to the agent in use. After an answer
// 403 it repeats it once if the token has changed. needs are the permissions that a token
// needs. An error does not mean that nothing was changed.
func (c *Client) write(ctx context.Context, needs string, send func(*api.Client, *api.WriteOptions) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, writeTimeout, fmt.Errorf("no answer within %v", writeTimeout))
	defer cancel()
	if err := c.gate.enter(ctx, kindNonBlocking); err != nil {
		return err
	}
	defer c.gate.leave(kindNonBlocking, false)
	agent, limited, done := c.agents.lease(ctx, false)
	defer done()
	try := func(token string) error {
		return send(agent.api, (&api.WriteOptions{Token: token}).WithContext(limited))
	}
	token := c.token.current()
	err := try(token)
	if Forbidden(err) {
		if latest := c.token.current(); latest != token {
			err = try(latest)
		}
	}
	switch {
	case err == nil:
		return nil
	case limited.Err() != nil:
		err = context.Cause(limited)
	default:
		err = explain(err, needs)
	}
	return fmt.Errorf("consul %s: %w", agent.url, err)
}
