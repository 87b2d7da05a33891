package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/test/parallel"
	"sluice/test/verify"
)

// fake is a cluster in memory with its client, for virtual time.
type fake struct {
	mu       sync.Mutex
	id       uint64
	revision int64
	entries  map[string]Entry
	down     error         // of every query
	frozen   bool          // nothing is answered
	deaf     bool          // watches get no events
	late     chan struct{} // answers to lists wait until it is closed; nil: they do not
	watches  []*fakeWatch  // open
	lost     chan struct{} // closed when no member is connected
	lists    int
	counts   int
	opened   int
	closed   int
}

type fakeWatch struct {
	ctx    context.Context
	events chan clientv3.WatchResponse
}

func newFake() *fake {
	return &fake{id: 1, revision: 100, entries: make(map[string]Entry), lost: make(chan struct{})}
}

func (f *fake) Get(ctx context.Context, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	op := clientv3.OpGet(key, options...)
	f.mu.Lock()
	defer f.mu.Unlock()
	if op.IsCountOnly() {
		f.counts++
	} else {
		f.lists++
	}
	if f.frozen {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return nil, ctx.Err()
	}
	if f.down != nil {
		return nil, f.down
	}
	r := &clientv3.GetResponse{Header: &etcdserverpb.ResponseHeader{ClusterId: f.id, Revision: f.revision}, Count: int64(len(f.entries))}
	if !op.IsCountOnly() {
		for _, key := range slices.Sorted(maps.Keys(f.entries)) {
			e := f.entries[key]
			r.Kvs = append(r.Kvs, &mvccpb.KeyValue{Key: []byte(key), Value: e.Value, ModRevision: e.Modified})
		}
		if late := f.late; late != nil {
			f.mu.Unlock()
			<-late
			f.mu.Lock()
		}
	}
	return r, nil
}

func (f *fake) Watch(ctx context.Context, key string, options ...clientv3.OpOption) clientv3.WatchChan {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
	}
	w := &fakeWatch{ctx, make(chan clientv3.WatchResponse, 1000)}
	if ctx.Err() != nil {
		close(w.events)
		return w.events
	}
	f.opened++
	f.watches = append(f.watches, w)
	return w.events
}

func (f *fake) AwaitConnected(ctx context.Context, connected bool) bool {
	if connected {
		<-ctx.Done()
		return false
	}
	select {
	case <-f.lost:
		return true
	case <-ctx.Done():
		return false
	}
}

func (f *fake) Close() error {
	f.closed++
	return nil
}

// put writes a key, and sends its event; an empty value deletes the key.
func (f *fake) put(key, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revision++
	e := &clientv3.Event{Type: clientv3.EventTypePut, Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: f.revision}}
	if value == "" {
		e.Type = clientv3.EventTypeDelete
		delete(f.entries, key)
	} else {
		f.entries[key] = Entry{Value: []byte(value), Modified: f.revision}
	}
	if !f.deaf {
		f.sendLocked(clientv3.WatchResponse{Header: &etcdserverpb.ResponseHeader{ClusterId: f.id, Revision: f.revision}, Events: []*clientv3.Event{e}})
	}
}

func (f *fake) sendLocked(r clientv3.WatchResponse) {
	for _, w := range f.watches {
		if w.ctx.Err() == nil {
			w.events <- r
		}
	}
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// inBubble follows the keys below /p/ of a fake in virtual time. happened returns what Read and
// Failed got since its last call: "15s a=1", with a "!" in front if the cluster forgot, or
// "3s: error".
func inBubble(t *testing.T, run func(t *testing.T, f *fake, happened func() []string)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		connected := 0
		c := &Cluster{
			options: Options{Endpoints: "http://fake", User: "sluice"}, heartbeatTimeout: heartbeatTimeout, turn: make(chan struct{}, 1),
			connect: func(context.Context, string) (store, error) {
				connected++ // again, when the login may be dead
				return f, nil
			},
		}
		begin := time.Now()
		var mu sync.Mutex
		var all []string
		note := func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, fmt.Sprintf("%v", time.Since(begin).Round(10*time.Millisecond))+fmt.Sprintf(format, args...))
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- c.Follow(ctx, FollowOptions{
				Range: Range{Prefix: "/p/"},
				Read: func(v View) time.Duration {
					text := " " + entries(v, "/p/")
					if v.Forgot {
						text = " !" + text
					}
					note("%s", strings.TrimRight(text, " "))
					return 0
				},
				Failed: func(err error) { note(": %v", err) },
			})
		}()
		run(t, f, func() []string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			now := all
			all = nil
			return now
		})
		cancel()
		verify.Equal(t, <-ended, context.Canceled, "Follow returned")
		verify.Equal(t, f.closed, connected, "closed connections")
	})
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	verify.That(t, slices.Equal(got, want), "got  %q\nwant %q", got, want)
}

// Several changes that have arrived are one view; each heartbeat confirms the view.
func TestChangesAndHeartbeats(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, happened func() []string) {
		expect(t, happened(), "0s")
		time.Sleep(time.Second)
		f.put("/p/a", "1")
		expect(t, happened(), "1s a=1")
		f.put("/p/b", "2")
		f.put("/p/a", "")
		got := happened()
		verify.That(t, len(got) != 0 && got[len(got)-1] == "1s b=2", "got %q", got)
		time.Sleep(15 * time.Second)
		expect(t, happened(), "16s b=2")
		verify.That(t, f.opened == 1 && f.lists == 1 && f.counts == 1, "%d watches, %d lists, %d counts", f.opened, f.lists, f.counts)
	})
}

// A frozen cluster is noticed by two heartbeats, a second apart, that have 3 s each.
func TestTwoHeartbeatsWithoutAnAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, happened func() []string) {
		happened()
		f.set(func() { f.frozen = true })
		time.Sleep(15*time.Second + 3*time.Second + time.Second + 2999*time.Millisecond)
		expect(t, happened())
		time.Sleep(time.Millisecond)
		expect(t, happened(), "22s: etcd http://fake: no answer: context deadline exceeded")
		f.set(func() { f.frozen = false })
		time.Sleep(6 * time.Second) // a list may have begun before
		got := happened()
		verify.That(t, len(got) != 0 && !strings.Contains(got[len(got)-1], ":"), "after the outage: %q", got)
	})
}

// One lost heartbeat is no failure.
func TestOneHeartbeatWithoutAnAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, happened func() []string) {
		happened()
		f.set(func() { f.frozen = true })
		time.Sleep(18 * time.Second)
		f.set(func() { f.frozen = false })
		time.Sleep(time.Second)
		expect(t, happened(), "19s")
		verify.Equal(t, f.opened, 1, "watches")
	})
}

// With no connection, one heartbeat is enough.
func TestLostConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, happened func() []string) {
		happened()
		f.set(func() { f.down = rpctypes.ErrNoLeader })
		time.Sleep(time.Second)
		close(f.lost)
		expect(t, happened()[:1], "1s: etcd: etcdserver: no leader")
	})
}

// The delay after errors grows to 5 s, ± 50 %.
func TestDelayAfterErrors(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, happened func() []string) {
		f.set(func() { f.down = errors.New("down") })
		time.Sleep(5 * time.Minute)
		n := len(happened())
		verify.That(t, n >= 40 && n <= 140, "%d queries in 5 minutes, want 60 of 5 s, and the short ones", n)
		f.set(func() { f.down = nil })
		time.Sleep(7500 * time.Millisecond)
		got := happened()
		verify.That(t, len(got) != 0 && !strings.Contains(got[len(got)-1], "down"), "%q", got)
	})
}

// A refusal of the user is told at the first heartbeat.
func TestRevokedPermission(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, happened func() []string) {
		happened()
		f.set(func() { f.down = rpctypes.ErrPermissionDenied })
		time.Sleep(15 * time.Second)
		got := happened()
		want := `15s: etcd: the user "sluice" needs the read permission for prefix "/p/": etcdserver: permission denied`
		verify.That(t, len(got) != 0 && got[0] == want, "got %q, want %q", got, want)
	})
}

// After compaction the keys are listed, and that is no failure.
func TestCompaction(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, happened func() []string) {
		happened()
		f.set(func() {
			f.entries["/p/a"] = Entry{Value: []byte("1"), Modified: 100}
			f.sendLocked(clientv3.WatchResponse{Header: &etcdserverpb.ResponseHeader{ClusterId: 1}, Canceled: true, CompactRevision: 105})
		})
		time.Sleep(time.Second)
		got := happened()
		verify.That(t, len(got) == 1 && strings.HasSuffix(got[0], " a=1"), "got %q", got)
	})
}

// A cluster that was restored is noticed by its revision, its id, or an older value.
func TestForgot(t *testing.T) {
	for what, change := range map[string]func(f *fake){
		"revision": func(f *fake) { f.revision = 99 },
		"id":       func(f *fake) { f.id, f.revision = 2, 1000 },
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fake, happened func() []string) {
				f.put("/p/a", "1")
				f.put("/p/b", "1")
				happened()
				f.set(func() {
					delete(f.entries, "/p/b")
					change(f)
				})
				time.Sleep(16 * time.Second)
				got := happened()
				verify.That(t, len(got) == 1 && strings.HasSuffix(got[0], " ! a=1"), "got %q", got)
				time.Sleep(time.Minute)
				again := strings.Join(happened(), ";")
				verify.That(t, !strings.Contains(again, "!"), "forgot again: %q", again)
			})
		})
	}
	t.Run("older value", func(t *testing.T) {
		inBubble(t, func(t *testing.T, f *fake, happened func() []string) {
			f.put("/p/a", "1")
			f.put("/p/a", "2")
			happened()
			f.set(func() {
				f.entries["/p/a"] = Entry{Value: []byte("1"), Modified: 101}
				f.revision = 1000
			})
			time.Sleep(6 * time.Minute) // the next list
			verify.Contains(t, strings.Join(happened(), ";")+";", " ! a=1;", "what happened")
		})
	})
}

// A watch that misses changes is replaced when two heartbeats have counted other keys.
func TestDeafWatch(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, happened func() []string) {
		happened()
		f.set(func() { f.deaf = true })
		f.put("/p/a", "1")
		time.Sleep(15 * time.Second)
		expect(t, happened())
		time.Sleep(1200 * time.Millisecond)
		got := happened()
		verify.That(t, len(got) == 1 && strings.HasSuffix(got[0], " a=1"), "got %q", got)
		verify.Equal(t, f.opened, 2, "watches")
	})
}

// A change that a count cannot show is found by the list every 5 min.
func TestListNowAndThen(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, happened func() []string) {
		f.put("/p/a", "1")
		happened()
		f.set(func() { f.deaf = true })
		f.put("/p/a", "2")
		time.Sleep(4 * time.Minute)
		got := happened()
		verify.That(t, strings.HasSuffix(got[len(got)-1], " a=1"), "got %q", got)
		time.Sleep(2 * time.Minute)
		got = happened()
		verify.That(t, strings.HasSuffix(got[len(got)-1], " a=2"), "got %q", got)
		verify.Equal(t, f.opened, 1, "watches")
	})
}

// A watch that was behind gets its events with the revision of now. A list that was under way
// meanwhile is older, and not from a cluster that was restored.
func TestListBesideLateEvents(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fake, happened func() []string) {
		f.put("/p/a", "1")
		happened()
		f.set(func() { f.deaf, f.late = true, make(chan struct{}) })
		f.put("/p/a", "2")
		for asked := 1; asked == 1; f.set(func() { asked = f.lists }) {
			time.Sleep(time.Second)
		}
		happened()
		f.set(func() {
			f.revision = 110
			f.sendLocked(clientv3.WatchResponse{
				Header: &etcdserverpb.ResponseHeader{ClusterId: f.id, Revision: f.revision},
				Events: []*clientv3.Event{{Type: clientv3.EventTypePut, Kv: &mvccpb.KeyValue{Key: []byte("/p/a"), Value: []byte("2"), ModRevision: 102}}},
			})
		})
		happened()
		close(f.late)
		got := happened()
		verify.That(t, len(got) == 1 && strings.HasSuffix(got[0], " a=2") && !strings.Contains(got[0], "!"), "got %q", got)
	})
}

// A watch that the cluster does not confirm ends after 5 s.
func TestWatchIsNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.frozen = true
		w := &watch{follower: &follower{cluster: &Cluster{}, options: FollowOptions{Range: Range{Prefix: "/p/"}}}, store: f}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begin := time.Now()
		_, err := w.open(ctx, cancel)
		verify.That(t, errors.Is(err, context.DeadlineExceeded), "the error is %v", err)
		verify.Equal(t, time.Since(begin), answerTimeout, "it took")
	})
}

// A password file that is empty for a moment, or has a password before etcd has it, ends no
// connection: the services that are followed go on, and so does one that a reload adds.
func TestPasswordThatIsNotValidYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := &Cluster{turn: make(chan struct{}, 1), options: Options{PasswordFile: filepath.Join(t.TempDir(), "password")}}
		valid := "first"
		c.connect = func(_ context.Context, password string) (store, error) {
			if password != valid {
				return nil, errors.New("authentication failed")
			}
			return f, nil
		}
		follow := func() {
			parallel.Run(t, func(ctx context.Context) {
				_ = c.Follow(ctx, FollowOptions{
					Range: Range{Prefix: "/p/"}, Read: func(View) time.Duration { return 0 },
					Failed: func(err error) { t.Error(err) },
				})
			})
			synctest.Wait()
		}
		write(t, c.options.PasswordFile, "first")
		follow()
		write(t, c.options.PasswordFile, "")
		follow()
		write(t, c.options.PasswordFile, "second")
		follow()
		verify.That(t, f.opened == 3 && f.closed == 0, "%d watches, closed %d times", f.opened, f.closed)
		valid = "second"
		follow()
		verify.That(t, f.opened == 4 && f.closed == 1, "%d watches, closed %d times", f.opened, f.closed)
	})
}

// A server that restarts forgets its logins, and etcd 3.4 never answers a client with a dead one: a
// new client is made, once for all followers. While the cluster is away, and for a user without a
// permission, there is none.
func TestADeadLoginMakesANewClient(t *testing.T) {
	for name, c := range map[string]struct {
		dead error // nil: no answer
		want int   // logins
	}{
		"refused": {rpctypes.ErrInvalidAuthToken, 2}, "not answered": {nil, 2}, "no permission": {rpctypes.ErrPermissionDenied, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logins := 0
				var away atomic.Bool
				var all []*fake
				cluster := &Cluster{turn: make(chan struct{}, 1), options: Options{User: "sluice"}, heartbeatTimeout: heartbeatTimeout}
				cluster.connect = func(context.Context, string) (store, error) {
					if away.Load() {
						return nil, errors.New("away")
					}
					logins++
					f := newFake()
					f.put("/p/login", fmt.Sprint(logins))
					all = append(all, f)
					return f, nil
				}
				var mu sync.Mutex
				latest := make(map[int]string)
				for n := range 3 {
					parallel.Run(t, func(ctx context.Context) {
						_ = cluster.Follow(ctx, FollowOptions{Range: Range{Prefix: "/p/"}, Failed: func(error) {}, Read: func(v View) time.Duration {
							mu.Lock()
							defer mu.Unlock()
							latest[n] = string(v.Entries["/p/login"].Value)
							return 0
						}})
					})
				}
				synctest.Wait()
				away.Store(true)
				all[0].set(func() { all[0].down, all[0].frozen = c.dead, c.dead == nil })
				time.Sleep(2 * time.Minute)
				away.Store(false)
				time.Sleep(time.Minute)
				synctest.Wait()
				verify.Equal(t, logins, c.want, "logins")
				mu.Lock()
				defer mu.Unlock()
				for n := range 3 {
					verify.Equal(t, latest[n], fmt.Sprint(c.want), "follower %d sees the login", n)
				}
			})
		})
	}
}

// More keys than a range may have are an error, and the last view stays.
func TestTooManyKeys(t *testing.T) {
	f := newFake()
	for n := range maxKeys {
		f.entries[fmt.Sprintf("/p/%d", n)] = Entry{Modified: 1}
	}
	follow := &follower{cluster: &Cluster{}, id: f.id, options: FollowOptions{
		Range: Range{Prefix: "/p/"}, Read: func(View) time.Duration { t.Error("there is another view"); return 0 },
	}}
	list, err := follow.get(t.Context(), f, answerTimeout)
	verify.NoError(t, err)
	follow.view = View{Entries: list.entries, Revision: list.header.Revision}
	w := &watch{follower: follow}

	events := make(chan clientv3.WatchResponse, 2)
	f.watches = []*fakeWatch{{t.Context(), events}}
	f.put("/p/0", "1")
	f.put("/p/one too many", "1")
	verify.Equal(t, w.takeAll(<-events, true, events), errTooManyKeys, "the error of the watch")
	_, err = follow.get(t.Context(), f, answerTimeout)
	verify.Equal(t, err, errTooManyKeys, "the error of the list")
}

// Fake returns clusters of which the one with these options is a fake.
func Fake(o Options, s store) *Clusters {
	all := NewClusters(func(string, error) {})
	all.all[o] = &Cluster{options: o, heartbeatTimeout: heartbeatTimeout, turn: make(chan struct{}, 1), connect: func(context.Context, string) (store, error) { return s, nil }}
	return all
}
