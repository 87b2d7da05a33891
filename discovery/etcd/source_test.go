package etcd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"sluice/discovery"
	"sluice/discovery/etcd/client"
	"sluice/test/consultest"
	"sluice/test/etcdtest"
	"sluice/test/parallel"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	goleak.VerifyTestMain(m)
}

// watched is a source that a manager runs.
type watched struct {
	t       *testing.T
	manager *discovery.Manager
	log     subprocess.Output

	mu   sync.Mutex
	sets []string // what Sink got: "a:127.0.0.1:80 b:…", "?" after an instance on probation
}

// watchService runs a source of the keys below /star/ until the test ends. saved is the set of
// the snapshot.
func watchService(t *testing.T, o Options, saved ...discovery.Instance) *watched {
	t.Helper()
	w := &watched{t: t}
	log := zerolog.New(&w.log)
	sources := NewSources(client.NewClusters(func(string, error) {}), log)
	source, err := sources.Source("star", o)
	verify.NoError(t, err)
	w.manager = discovery.NewManager(discovery.ManagerOptions{
		Sink: func(_ string, set []discovery.Instance) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.sets = append(w.sets, format(set))
		},
		Fallback: func(_, source string) (discovery.WatchState, bool) {
			return discovery.WatchState{Source: source, Known: true, Set: saved, Restored: time.Now()}, saved != nil
		},
		Log: log,
	})
	w.manager.Watch("star", source)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.manager.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if t.Failed() {
			t.Logf("sets %q\n%s", w.sets, &w.log)
		}
	})
	return w
}

func format(set []discovery.Instance) string {
	var all []string
	for _, i := range set {
		text := i.ID + "=" + i.HostPort()
		if i.Weight != 1 {
			text += fmt.Sprintf("*%d", i.Weight)
		}
		if !i.Probation.IsZero() {
			text += "?"
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

// await waits until the last set is want.
func (w *watched) await(want string) {
	w.t.Helper()
	consultest.Await(w.t, fmt.Sprintf("the set %q", want), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.sets) > 0 && w.sets[len(w.sets)-1] == want
	})
}

// awaitStatus waits until the status of the watch meets a condition.
func (w *watched) awaitStatus(what string, ok func(discovery.WatchStatus) bool) discovery.WatchStatus {
	w.t.Helper()
	var s discovery.WatchStatus
	consultest.Await(w.t, what, func() bool {
		s = w.manager.Statuses()[0]
		return ok(s)
	})
	return s
}

func put(t *testing.T, c *clientv3.Client, key, value string) {
	t.Helper()
	_, err := c.Put(t.Context(), key, value)
	verify.NoError(t, err)
}

func del(t *testing.T, c *clientv3.Client, key string) {
	t.Helper()
	_, err := c.Delete(t.Context(), key)
	verify.NoError(t, err)
}

// at returns options for the keys below /star/ of a cluster.
func at(c *etcdtest.Cluster) Options {
	return Options{Cluster: client.Options{Endpoints: strings.Join(c.Endpoints(), ",")}, Prefix: "/star/", Probation: time.Minute}
}

func TestInstancesOfAPrefix(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	w := watchService(t, at(c))
	w.await("") // an absent prefix is an empty service
	put(t, client, "/star/a", `{"host":"127.0.0.1","port":81}`)
	w.await("a=127.0.0.1:81")
	put(t, client, "/star/b", "127.0.0.1:82")
	put(t, client, "/star/c/d", "127.0.0.1_83")
	put(t, client, "/star", "127.0.0.1:84")    // outside of the prefix
	put(t, client, "/stars/e", "127.0.0.1:85") // outside of the prefix
	w.await("a=127.0.0.1:81 b=127.0.0.1:82 c/d=127.0.0.1:83")
	put(t, client, "/star/b", `{"host":"127.0.0.1","port":82,"weight":3}`)
	w.await("a=127.0.0.1:81 b=127.0.0.1:82*3 c/d=127.0.0.1:83")
	put(t, client, "/star/b", "127.0.0.1:92") // another instance in its place
	w.await("a=127.0.0.1:81 b=127.0.0.1:92 c/d=127.0.0.1:83")
	del(t, client, "/star/a")
	w.await("b=127.0.0.1:92 c/d=127.0.0.1:83")
	s := w.awaitStatus("the watch is fresh", func(s discovery.WatchStatus) bool { return s.State == discovery.WatchFresh })
	verify.That(t, s.Source == `etcd prefix "/star/"` && s.Index != 0 && "http://"+s.Endpoint == c.Endpoints()[0], "status %+v", s)
}

func TestInstanceOfAKey(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	put(t, client, "/metis/via", "127.0.0.1_80")
	put(t, client, "/metis/via2", "127.0.0.1_81")
	o := at(c)
	o.Prefix, o.Key, o.Probation = "", "/metis/via", 0
	w := watchService(t, o)
	w.await("via=127.0.0.1:80")
	del(t, client, "/metis/via")
	w.await("")
}

// A value that cannot be used leaves the last usable one, and the others count.
func TestBadValueKeepsTheLastGoodOne(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	put(t, client, "/star/a", "127.0.0.1:81")
	put(t, client, "/star/b", "nonsense")
	w := watchService(t, at(c))
	w.await("a=127.0.0.1:81")
	put(t, client, "/star/a", "{host:127.0.0.1 port:81}") // as a shell without quotes makes it
	put(t, client, "/star/c", "127.0.0.1:83")
	w.await("a=127.0.0.1:81 c=127.0.0.1:83")
	s := w.awaitStatus("two invalid values", func(s discovery.WatchStatus) bool { return len(s.Invalid) == 2 })
	a := s.Invalid[0]
	verify.That(t, a.Key == "/star/a" && a.InUse && strings.Contains(a.Reason, "JSON"), "%+v", a)
	b := s.Invalid[1]
	verify.That(t, b.Key == "/star/b" && !b.InUse && strings.Contains(b.Reason, "HOST:PORT"), "%+v", b)
	verify.Equal(t, s.State, discovery.WatchFresh, "the watch")
	put(t, client, "/star/a", "127.0.0.1:91")
	del(t, client, "/star/b")
	w.await("a=127.0.0.1:91 c=127.0.0.1:83")
	w.awaitStatus("no invalid value", func(s discovery.WatchStatus) bool { return len(s.Invalid) == 0 })
	verify.Equal(t, strings.Count(w.log.String(), "a value cannot be used"), 2, "lines in the log about 2 values")
}

// The last instance is used until it fails, and leaves when another one comes.
func TestLastInstanceIsOnProbation(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	put(t, client, "/star/a", "127.0.0.1:81")
	w := watchService(t, at(c))
	w.await("a=127.0.0.1:81")
	del(t, client, "/star/a")
	w.await("a=127.0.0.1:81?")
	put(t, client, "/star/b", "127.0.0.1:82")
	w.await("b=127.0.0.1:82")
}

// Probation ends in time, although nothing changes in etcd.
func TestProbationEnds(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	put(t, client, "/star/a", "127.0.0.1:81")
	o := at(c)
	o.Probation = time.Second
	w := watchService(t, o)
	w.await("a=127.0.0.1:81")
	del(t, client, "/star/a")
	w.await("")
	w.mu.Lock()
	defer w.mu.Unlock()
	verify.That(t, slices.Contains(w.sets, "a=127.0.0.1:81?"), "sets %q: no probation", w.sets)
}

func TestExpiredLeaseRemovesTheInstance(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	put(t, client, "/star/a", "127.0.0.1:81")
	lease, err := client.Grant(t.Context(), 3600)
	verify.NoError(t, err)
	if _, err := client.Put(t.Context(), "/star/b", "127.0.0.1:82", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	w := watchService(t, at(c))
	w.await("a=127.0.0.1:81 b=127.0.0.1:82")
	if _, err := client.Revoke(t.Context(), lease.ID); err != nil { // as its end does
		t.Fatal(err)
	}
	w.await("a=127.0.0.1:81")
}

// Instances stay through every outage; those that a restored backup lacks are on probation.
func TestOutagesRemoveNothing(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	m, client := c.Members[0], c.Client(t)
	put(t, client, "/star/a", "127.0.0.1:81")
	verify.NoError(t, m.Stop())
	backup := m.Save(t)
	verify.NoError(t, m.Launch())
	c.Await(t)
	put(t, client, "/star/b", "127.0.0.1:82")
	w := watchService(t, at(c))
	w.await("a=127.0.0.1:81 b=127.0.0.1:82")
	verify.NoError(t, m.Kill())
	w.awaitStatus("the watch is stale", func(s discovery.WatchStatus) bool {
		return s.State == discovery.WatchStale && strings.Contains(s.LastError, "connection refused")
	})
	m.Restore(t, backup)
	verify.NoError(t, m.Launch())
	w.await("a=127.0.0.1:81 b=127.0.0.1:82?")
	m.Kill()
	m.Restore(t, "")
	verify.NoError(t, m.Launch())
	w.await("a=127.0.0.1:81? b=127.0.0.1:82?")
	c.Await(t)
	put(t, client, "/star/a", "127.0.0.1:81")
	put(t, client, "/star/c", "127.0.0.1:83")
	w.await("a=127.0.0.1:81 c=127.0.0.1:83") // as many as before: the loss is over
}

// A saved set is used while etcd is away, and when it has nothing.
func TestStartWithASavedSet(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	m, client := c.Members[0], c.Client(t)
	verify.NoError(t, m.Kill())
	w := watchService(t, at(c), discovery.Instance{Service: "star", ID: "a", Address: "127.0.0.1", Port: 81, Weight: 1})
	w.await("a=127.0.0.1:81")
	verify.NoError(t, m.Launch())
	w.await("a=127.0.0.1:81?")
	c.Await(t)
	put(t, client, "/star/b", "127.0.0.1:82")
	w.await("b=127.0.0.1:82")
}
