package client

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"sluice/test/consultest"
	"sluice/test/etcdtest"
	"sluice/test/long"
	"sluice/test/parallel"
	"sluice/test/verify"
)

// following is a follower of a real etcd.
type following struct {
	t *testing.T

	mu     sync.Mutex
	views  []string // "a=1 b=2", with a "!" in front if Forgot
	errs   []error
	failed bool // since the last view
}

// follow follows the keys below keysOf(t) until the test ends.
func follow(t *testing.T, o Options, change ...func(*Cluster)) *following {
	t.Helper()
	f := &following{t: t}
	cluster := verify.Result(NewClusters(func(string, error) {}).Cluster(o)).Must(t)
	for _, c := range change {
		c(cluster)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("views %q, errors %v", f.views, f.errs)
		}
	})
	parallel.Run(t, func(ctx context.Context) {
		err := cluster.Follow(ctx, FollowOptions{
			Range: Range{Prefix: keysOf(t)},
			Read: func(v View) time.Duration {
				line := entries(v, keysOf(t))
				if v.Forgot {
					line = "!" + line
				}
				f.mu.Lock()
				defer f.mu.Unlock()
				f.views = append(f.views, line)
				f.failed = false
				return 300 * time.Millisecond // a heartbeat this often, so that tests do not wait
			},
			Failed: func(err error) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.errs = append(f.errs, err)
				f.failed = true
			},
		})
		verify.Equal(t, err, context.Canceled, "Follow returned")
	})
	return f
}

// entries returns "a=1 b=2".
func entries(v View, prefix string) string {
	var words []string
	for _, key := range slices.Sorted(maps.Keys(v.Entries)) {
		words = append(words, strings.TrimPrefix(key, prefix)+"="+string(v.Entries[key].Value))
	}
	return strings.Join(words, " ")
}

// keysOf returns the prefix of the keys of a test, so that tests can share a cluster.
func keysOf(t *testing.T) string { return "/" + t.Name() + "/" }

// await waits until the last view is want.
func (f *following) await(want string) {
	f.t.Helper()
	consultest.Await(f.t, fmt.Sprintf("the view %q", want), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.views) > 0 && f.views[len(f.views)-1] == want
	})
}

// awaitFailing waits until the view is out of date for a reason that contains text.
func (f *following) awaitFailing(text string) {
	f.t.Helper()
	consultest.Await(f.t, "a failure: "+text, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.failed && strings.Contains(f.errs[len(f.errs)-1].Error(), text)
	})
}

// seen reports whether a view was text.
func (f *following) seen(text string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.views, text)
}

func put(t *testing.T, c *clientv3.Client, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		verify.Result(c.Put(t.Context(), keysOf(t)+pairs[i], pairs[i+1])).Must(t)
	}
}

func del(t *testing.T, c *clientv3.Client, key string, options ...clientv3.OpOption) {
	t.Helper()
	verify.Result(c.Delete(t.Context(), keysOf(t)+key, options...)).Must(t)
}

// TestCompaction has what happens when the changes of an outage are compacted.
func TestFollow(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	put(t, client, "a", "1")
	f := follow(t, Options{Endpoints: c.Endpoints()[0]})
	f.await("a=1")
	put(t, client, "b", "2")
	f.await("a=1 b=2")
	put(t, client, "a", "3")
	f.await("a=3 b=2")
	lease := verify.Result(client.Grant(t.Context(), 3600)).Must(t)
	key := keysOf(t)
	verify.Result(client.Put(t.Context(), key+"c", "4", clientv3.WithLease(lease.ID))).Must(t)
	f.await("a=3 b=2 c=4")
	verify.Result(client.Revoke(t.Context(), lease.ID)).Must(t) // as its end does
	f.await("a=3 b=2")
	// A transaction is one change.
	verify.Result(client.Txn(t.Context()).Then(clientv3.OpPut(key+"a", "5"), clientv3.OpPut(key+"b", "6"), clientv3.OpDelete(key+"c")).Commit()).Must(t)
	f.await("a=5 b=6")
	verify.That(t, !f.seen("a=5 b=2"), "a part of a transaction was seen")
	del(t, client, "", clientv3.WithPrefix())
	f.await("")
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.views {
		verify.That(t, !strings.HasPrefix(v, "!"), "the cluster has not forgotten anything: %q", v)
	}
	for _, err := range f.errs {
		if !strings.Contains(err.Error(), "no answer") { // the machine may have stood still for longer than a heartbeat
			t.Error(err)
		}
	}
}

// A member that does not answer is noticed. A restart is no loss; the loss of all data is one.
func TestFollowThroughOutages(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	m, client := c.Members[0], c.Client(t)
	put(t, client, "a", "1", "b", "1")
	f := follow(t, Options{Endpoints: m.Endpoint}, func(c *Cluster) { c.heartbeatTimeout = 300 * time.Millisecond })
	f.await("a=1 b=1")
	verify.NoError(t, m.Pause())
	f.awaitFailing("no answer")
	verify.NoError(t, m.Resume())
	put(t, client, "a", "2")
	f.await("a=2 b=1")

	verify.NoError(t, m.Kill())
	f.awaitFailing("connection refused")
	verify.NoError(t, m.Launch())
	c.Await(t)
	client = c.Client(t) // one without failures waits until it is connected
	put(t, client, "a", "3")
	del(t, client, "b")
	f.await("a=3")
	verify.That(t, !f.seen("") && !f.seen("!a=3"), "the restart was taken for a loss")

	put(t, client, "b", "3")
	f.await("a=3 b=3")
	verify.NoError(t, m.Kill())
	m.Restore(t, "")
	verify.NoError(t, m.Launch())
	c.Await(t)
	consultest.Await(t, "the loss is noticed", func() bool { return f.seen("!") })
	verify.That(t, !f.seen("b=3") && !f.seen("!b=3") && !f.seen("!a=3"), "the last keys were not removed together")
	put(t, c.Client(t), "a", "4")
	f.await("a=4")
}

func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	goleak.VerifyTestMain(m)
}

// The leader is lost with two of three members; the third answers, but only what it knows.
func TestFollowWithoutALeader(t *testing.T) {
	t.Parallel()
	long.Test(t)
	c := etcdtest.Start(t, etcdtest.Options{Members: 3})
	client := c.Client(t)
	put(t, client, "a", "1")
	f := follow(t, Options{Endpoints: strings.Join(c.Endpoints(), ",")})
	f.await("a=1")
	for _, m := range c.Members[:2] {
		verify.NoError(t, m.Kill())
	}
	f.awaitFailing("")
	for _, m := range c.Members[:2] {
		verify.NoError(t, m.Launch())
	}
	c.Await(t)
	put(t, client, "a", "2")
	f.await("a=2")
	// One of three may fail.
	verify.NoError(t, c.Members[2].Kill())
	consultest.Await(t, "a write with two members", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := client.Put(ctx, keysOf(t)+"a", "3")
		return err == nil
	})
	f.await("a=3")
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.views {
		verify.That(t, !strings.HasPrefix(v, "!") && v != "", "the loss of a leader was taken for a loss of state: %q", v)
	}
}
