package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/test/consultest"
	"sluice/test/verify"
)

const lockKey = "sluice/locks/a"

// realClient returns a client of agent.
func realClient(t *testing.T, agent *consultest.Agent, token string) *Client {
	t.Helper()
	c := verify.Result(New(Options{Addresses: []string{agent.URL()}, Token: token, Log: zerolog.Nop()})).Must(t)
	done := c.KeepProbing()
	t.Cleanup(func() {
		done()
		c.Close()
	})
	return c
}

// lockLater requests the lock in the background, again if the machine stands still for seconds.
func lockLater(t *testing.T, c *Client, ctx context.Context) <-chan *Lock {
	t.Helper()
	got := make(chan *Lock, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l, err := c.Lock(ctx, lockKey)
		for err != nil && late(err) && ctx.Err() == nil {
			l, err = c.Lock(ctx, lockKey)
		}
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		got <- l
	}()
	t.Cleanup(func() { <-ended })
	return got
}

// awaitSessions waits until Consul has n sessions.
func awaitSessions(t *testing.T, agent *consultest.Agent, n int) {
	t.Helper()
	consultest.Await(t, "the sessions", func() bool {
		sessions, _, err := agent.Client().Session().List(nil)
		return err == nil && len(sessions) == n
	})
}

func TestWithACLs(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	t.Run("a lock", func(t *testing.T) { testLock(t, agent) })
	t.Run("keys", func(t *testing.T) { testKeys(t, agent) })
}

func TestLockThatIsNotReleased(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{Config: map[string]any{"session_ttl_min": "1s"}})
	t.Run("not awaited any more", func(t *testing.T) { lockIsNotAwaited(t, agent) })
	t.Run("of a dead process", func(t *testing.T) { lockOfADeadProcess(t, agent) })
	t.Run("lost", func(t *testing.T) { lockIsLost(t, agent) })
}

// testLock: one holds the lock, the next one gets it when it is free, and nothing is left.
func testLock(t *testing.T, agent *consultest.Agent) {
	_, token, err := agent.NewToken("locks", `
		key_prefix "sluice/" { policy = "write" }
		session_prefix "" { policy = "write" }`)
	verify.NoError(t, err)
	a, b := realClient(t, agent, token.SecretID), realClient(t, agent, token.SecretID)
	first := verify.Result(a.Lock(t.Context(), lockKey)).Must(t)
	second := lockLater(t, b, t.Context())
	awaitSessions(t, agent, 2)
	select {
	case <-second:
		t.Fatal("two hold the lock")
	case <-time.After(2 * lockDelay): // a lock that were free would be taken by then
	}
	verify.NoError(t, first.Unlock(t.Context()))
	verify.That(t, first.Held.Err() != nil, "Held goes on after Unlock")
	l := <-second
	verify.Require(t, l != nil, "no lock")
	verify.NoError(t, l.Unlock(t.Context()))
	awaitSessions(t, agent, 0)
	pair, _, err := a.KV().Get(t.Context(), lockKey, 0, 0)
	verify.NoError(t, err)
	verify.That(t, pair == nil, "the key is left: %+v", pair)
	_, err = realClient(t, agent, "").Lock(t.Context(), lockKey)
	verify.That(t, Forbidden(err), "without a token: %v", err)
}

// lockIsNotAwaited: who waits no longer leaves no session, which would be in the way of others.
func lockIsNotAwaited(t *testing.T, agent *consultest.Agent) {
	c := realClient(t, agent, "")
	c.lockTTL = time.Hour // no session ends by its TTL
	held := verify.Result(c.Lock(t.Context(), lockKey)).Must(t)
	ctx, cancel := context.WithCancel(t.Context())
	second := lockLater(t, c, ctx)
	awaitSessions(t, agent, 2)
	cancel()
	verify.That(t, <-second == nil, "two hold the lock")
	awaitSessions(t, agent, 1)
	verify.NoError(t, held.Unlock(t.Context()))
}

// The session is also destroyed if it is created just when the caller stops waiting. If Consul does
// not answer, Lock returns after sessionGrace.
func TestNewSessionIsDestroyedIfTheLockIsNotAwaited(t *testing.T) {
	for name, test := range map[string]struct {
		answersAfter time.Duration
		destroyed    []string
	}{
		"the answer comes":         {sessionGrace / 2, []string{"/v1/session/destroy/one"}},
		"the answer does not come": {time.Hour, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var mu sync.Mutex
				var destroyed []string
				c := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body) // the end of the request is noticed only after it
					switch {
					case r.URL.Path == "/v1/session/create":
						cancel()
						select {
						case <-time.After(test.answersAfter):
							io.WriteString(w, `{"ID":"one"}`)
						case <-r.Context().Done():
						}
					case strings.HasPrefix(r.URL.Path, "/v1/session/destroy/"):
						mu.Lock()
						defer mu.Unlock()
						destroyed = append(destroyed, r.URL.Path)
						io.WriteString(w, "true")
					default:
						t.Errorf("%s %s", r.Method, r.URL)
					}
				}))
				begin := time.Now()
				_, err := c.Lock(ctx, lockKey)
				verify.That(t, errors.Is(err, context.Canceled), "error %v", err)
				took := time.Since(begin)
				verify.That(t, took <= sessionGrace, "it took %v", took)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				verify.Slices(t, destroyed, test.destroyed, "destroyed")
			})
		})
	}
}

// Who waits for a lock no longer does not wait for Consul either, if that does not answer any more.
func TestLockIsNotAwaitedFromAConsulThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // the end of the request is noticed only after it
			if r.URL.Path == "/v1/session/create" {
				io.WriteString(w, `{"ID":"one"}`)
				return
			}
			<-r.Context().Done()
		}))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		_, err := c.Lock(ctx, lockKey)
		verify.That(t, errors.Is(err, context.Canceled), "error %v", err)
		took := time.Since(begin) - time.Second
		verify.That(t, took <= sessionGrace, "it took %v", took)
	})
}

// A recovery of the agent cancels the queries and writes of a lock, and does not end the wait for
// it.
func TestLockIsAwaitedThroughARecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			openSession = iota // what hangs until the recovery
			awaitFree
			acquire
			destroySession
		)
		var hanging atomic.Int32
		hang := func(r *http.Request, step int32) bool {
			if hanging.Load() != step {
				return false
			}
			<-r.Context().Done()
			return true
		}
		c := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // the end of the request is noticed only after it
			w.Header().Set("X-Consul-Index", "1")
			w.Header().Set("X-Consul-KnownLeader", "true")
			switch {
			case r.URL.Path == "/v1/session/create":
				if !hang(r, openSession) {
					io.WriteString(w, `{"ID":"one"}`)
				}
			case strings.HasPrefix(r.URL.Path, "/v1/session/destroy/"):
				if !hang(r, destroySession) {
					io.WriteString(w, "true")
				}
			case r.URL.Path == "/v1/txn":
				io.WriteString(w, `{"Results":[],"Errors":null}`)
			case r.Method == http.MethodPut:
				if !hang(r, acquire) {
					fmt.Fprint(w, hanging.Load() > acquire)
				}
			case r.URL.Query().Has("index"):
				hang(r, awaitFree)
			case hanging.Load() > awaitFree:
				w.WriteHeader(http.StatusNotFound)
			default:
				io.WriteString(w, `[{"Key":"`+lockKey+`","Session":"another"}]`)
			}
		}))
		recoverThen := func(next int32) {
			synctest.Wait()
			hanging.Store(next)
			c.CancelQueries()
		}
		second := lockLater(t, c, t.Context())
		recoverThen(awaitFree)
		recoverThen(acquire)
		time.Sleep(lockDelay)
		recoverThen(destroySession)
		l := <-second
		if l == nil {
			return // the test has failed
		}
		ended := make(chan error, 1)
		go func() { ended <- l.Unlock(t.Context()) }()
		recoverThen(destroySession + 1)
		verify.NoError(t, <-ended)
	})
}

// lockOfADeadProcess: a lock outlives the TTL of its session while its holder lives, and ends with
// it.
func lockOfADeadProcess(t *testing.T, agent *consultest.Agent) {
	mortal, c := realClient(t, agent, ""), realClient(t, agent, "")
	mortal.lockTTL = 2 * time.Second
	dead := verify.Result(mortal.Lock(t.Context(), lockKey)).Must(t)
	second := lockLater(t, c, t.Context())
	dead.stop() // no renewal, and no Unlock
	l := <-second
	verify.Require(t, l != nil, "no lock")
	session, _, err := agent.Client().Session().Info(l.session, nil)
	verify.NoError(t, err)
	verify.That(t, session != nil && session.TTL == c.lockTTL.String() && len(session.NodeChecks) <= 0, "the session depends on more than its TTL: %+v", session)
	// The process was asleep: it frees nothing.
	verify.NoError(t, dead.Unlock(t.Context()))
	pair, _, err := c.KV().Get(t.Context(), lockKey, 0, 0)
	verify.NoError(t, err)
	verify.That(t, pair != nil && pair.Session == l.session, "the lock is gone: %+v", pair)
	verify.NoError(t, l.Unlock(t.Context()))
}

// lockIsLost: the holder is told that its session has ended.
func lockIsLost(t *testing.T, agent *consultest.Agent) {
	c := realClient(t, agent, "")
	l := verify.Result(c.Lock(t.Context(), lockKey)).Must(t)
	verify.Result(agent.Client().Session().Destroy(l.session, nil)).Must(t)
	<-l.Held.Done()
	cause := context.Cause(l.Held)
	verify.That(t, errors.Is(cause, ErrLockLost), "the cause is %v", cause)
	verify.NoError(t, l.Unlock(t.Context()))
}
