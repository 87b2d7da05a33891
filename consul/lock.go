package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/observe/panics"
)

const (
	// lockTTL is the TTL of the session of a lock, the shortest that Consul accepts. A
	// session that is not renewed ends after twice this time at the latest.
	lockTTL = 10 * time.Second
	// lockRenewals is the number of renewals in this time.
	lockRenewals = 3
	// lockDelay is how long nobody gets a lock whose session has ended without Unlock.
	// Its holder, which may not know that yet, has this time to notice.
	lockDelay = time.Second
	// lockWait is how long a query waits for the end of another lock.
	lockWait = time.Minute
	// sessionGrace is how much longer than its caller a new session is waited for, or its end.
	sessionGrace = 2 * time.Second
)

// ErrLockLost is the cause of the end of a Lock's context.
var ErrLockLost = errors.New("the lock is lost: its session has ended")

// A Lock is a lock that this process holds, on a key of Consul's KV store, by a session.
// While Consul is away it stays held: sessions do not end then.
type Lock struct {
	client  *Client
	key     string
	session string
	renewed sync.WaitGroup
	end     context.CancelCauseFunc

	// Held ends with ErrLockLost when the lock is lost, and in Unlock.
	Held context.Context
}

// Lock waits until it gets the lock on key, or ctx ends. If Consul does not answer, it
// returns a few seconds after the end of ctx. The token needs key:write for key
// and session:write for the agent's node. The key should be for nothing else: it is deleted
// with the lock. If this process dies, the lock is free after 21 s. The caller must call
// Unlock.
func (c *Client) Lock(ctx context.Context, key string) (*Lock, error) {
	held, end := context.WithCancelCause(context.Background())
	l := &Lock{client: c, key: key, end: end, Held: held}
	if err := l.open(ctx); err != nil {
		end(err)
		return nil, fmt.Errorf("lock %s: %w", key, err)
	}
	l.renewed.Go(func() {
		defer panics.Contain(panics.Watch, func() { end(panics.Err) }) // the session ends
		l.renew()
	})
	if err := l.acquire(ctx); err != nil {
		l.stop()
		ctx, cancel := Extend(ctx, sessionGrace)
		defer cancel()
		_ = l.destroy(ctx) // else it ends by its TTL
		return nil, fmt.Errorf("lock %s: %w", key, err)
	}
	return l, nil
}

// Unlock frees the lock. After an error the lock is free after 21 s at the latest. It must
// be called once. It works after the end of Held.
func (l *Lock) Unlock(ctx context.Context) error {
	l.stop()
	// Without the key, the end of the session does not delay the next lock.
	err := l.client.writeAgain(ctx, keyWrite(l.key), func(c *api.Client, w *api.WriteOptions) error {
		_, _, _, err := c.Txn().Txn(api.TxnOps{
			{KV: &api.KVTxnOp{Verb: api.KVCheckSession, Key: l.key, Session: l.session}},
			{KV: &api.KVTxnOp{Verb: api.KVDelete, Key: l.key}},
		}, (&api.QueryOptions{Token: w.Token}).WithContext(w.Context()))
		return err
	})
	if err = errors.Join(err, l.destroy(ctx)); err != nil {
		return fmt.Errorf("unlock %s: %w", l.key, err)
	}
	return nil
}

// stop ends the renewals.
func (l *Lock) stop() {
	l.end(nil)
	l.renewed.Wait()
}

// acquire waits until the session has the key.
func (l *Lock) acquire(ctx context.Context) error {
	for {
		var got bool
		err := l.client.writeAgain(ctx, keyWrite(l.key), func(c *api.Client, w *api.WriteOptions) (err error) {
			got, _, err = c.KV().Acquire(&api.KVPair{Key: l.key, Session: l.session}, w)
			return err
		})
		if got || err != nil {
			return err
		}
		if err := l.awaitFree(ctx); err != nil {
			return err
		}
		if l.Held.Err() != nil {
			return context.Cause(l.Held)
		}
	}
}

// awaitFree waits until no session has the key.
func (l *Lock) awaitFree(ctx context.Context) error {
	for index := uint64(0); ; {
		pair, a, err := l.client.KV().Get(ctx, l.key, index, lockWait)
		if canceledByAgents(err) {
			index = 0
			continue
		}
		if err != nil {
			return err
		}
		if pair == nil || pair.Session == "" {
			// It may be free already, or within lockDelay.
			return Sleep(ctx, lockDelay/20+l.client.Jitter(lockDelay/10))
		}
		if a.Index < index {
			index = 0
			continue
		}
		index = max(a.Index, 1)
	}
}

// open creates the session, which ends by its TTL only: the health of the agent's node
// says nothing about this process. If the write is repeated, a first session, which nobody
// knows, ends by its TTL too.
func (l *Lock) open(ctx context.Context) error {
	// Without the answer nobody could destroy the session.
	ctx, cancel := Extend(ctx, sessionGrace)
	defer cancel()
	return l.client.writeAgain(ctx, sessionWrite, func(c *api.Client, w *api.WriteOptions) (err error) {
		l.session, _, err = c.Session().CreateNoChecks(&api.SessionEntry{
			Name: "sluice: lock " + l.key, TTL: l.client.lockTTL.String(), LockDelay: lockDelay, Behavior: api.SessionBehaviorDelete,
		}, w)
		return err
	})
}

// Extend returns a context that ends grace after ctx.
func Extend(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	extended, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		defer panics.Contain(panics.Watch, nil)
		time.AfterFunc(grace, func() { end(context.Cause(ctx)) })
	})
	return extended, func() {
		stop()
		end(nil)
	}
}

const sessionWrite = `session:write for the agent's node: session_prefix "" { policy = "write" }`

// renew renews the session until Held ends.
func (l *Lock) renew() {
	for Sleep(l.Held, l.client.lockTTL/lockRenewals) == nil {
		err := l.client.writeAgain(l.Held, sessionWrite, func(c *api.Client, w *api.WriteOptions) error {
			entry, _, err := c.Session().Renew(l.session, w)
			if err == nil && entry == nil {
				err = &statusError{code: http.StatusNotFound, text: "there is no such session"}
			}
			return err
		})
		if StatusCode(err) == http.StatusNotFound {
			l.end(ErrLockLost)
		}
	}
}

// destroy ends the session.
func (l *Lock) destroy(ctx context.Context) error {
	return l.client.writeAgain(ctx, sessionWrite, func(c *api.Client, w *api.WriteOptions) error {
		_, err := c.Session().Destroy(l.session, w)
		return err
	})
}
