package etcd

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"sluice/discovery"
	"sluice/discovery/etcd/client"
	"sluice/test/discoverytest"
	"sluice/test/etcdtest"
	"sluice/test/parallel"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	goleak.VerifyTestMain(m)
}

// watchService runs a source until the test ends. saved is the set of the snapshot.
func watchService(t *testing.T, o Options, log io.Writer, saved ...discovery.Instance) *discoverytest.Watched {
	t.Helper()
	logger := zerolog.New(log)
	source := verify.Result(NewSource("star", o, client.NewClusters(func(string, error) {}), logger)).Must(t)
	return discoverytest.Watch(t, source, logger, saved...)
}

func put(t *testing.T, c *clientv3.Client, key, value string) {
	t.Helper()
	verify.Result(c.Put(t.Context(), key, value)).Must(t)
}

func del(t *testing.T, c *clientv3.Client, key string) {
	t.Helper()
	verify.Result(c.Delete(t.Context(), key)).Must(t)
}

// at returns options for the keys below a prefix of a cluster.
func at(c *etcdtest.Cluster, prefix string) Options {
	return Options{Cluster: client.Options{Endpoints: strings.Join(c.Endpoints(), ",")}, Prefix: prefix, Probation: time.Minute}
}

// TestEtcd has tests with keys of their own in one cluster.
func TestEtcd(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	for name, test := range map[string]func(*testing.T, *etcdtest.Cluster, *clientv3.Client){
		"instances of a prefix": testPrefix, "the instance of a key": testKey, "values that cannot be used": testBadValues,
		"a lost instance and a value that cannot be used": testBadValueOfALostInstance,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, c, client)
		})
	}
}

func testPrefix(t *testing.T, c *etcdtest.Cluster, client *clientv3.Client) {
	w := watchService(t, at(c, "/star/"), io.Discard)
	w.Await("", "") // an absent prefix is an empty service
	put(t, client, "/star/a", `{"host":"127.0.0.1","port":81}`)
	w.Await("a=127.0.0.1:81", "")
	put(t, client, "/star/b", "127.0.0.1:82")
	put(t, client, "/star/c/d", "127.0.0.1_83")
	put(t, client, "/star", "127.0.0.1:84")    // outside of the prefix
	put(t, client, "/stars/e", "127.0.0.1:85") // outside of the prefix
	w.Await("a=127.0.0.1:81 b=127.0.0.1:82 c/d=127.0.0.1:83", "")
	put(t, client, "/star/b", `{"host":"127.0.0.1","port":82,"weight":3}`)
	w.Await("a=127.0.0.1:81 b=127.0.0.1:82*3 c/d=127.0.0.1:83", "")
	put(t, client, "/star/b", "127.0.0.1:92") // another instance in its place
	w.Await("a=127.0.0.1:81 b=127.0.0.1:92 c/d=127.0.0.1:83", "")
	del(t, client, "/star/a")
	w.Await("b=127.0.0.1:92 c/d=127.0.0.1:83", "")
	w.AwaitStatus("the watch is fresh", func(s discovery.WatchStatus) bool { return s.State == discovery.WatchFresh })
	s := w.Status()
	verify.That(t, s.Source == `etcd prefix "/star/"` && s.Index != 0 && "http://"+s.Endpoint == c.Endpoints()[0], "status %+v", s)
}

func testKey(t *testing.T, c *etcdtest.Cluster, client *clientv3.Client) {
	put(t, client, "/metis/via", "127.0.0.1_80")
	put(t, client, "/metis/via2", "127.0.0.1_81")
	o := at(c, "")
	o.Key, o.Probation = "/metis/via", 0
	w := watchService(t, o, io.Discard)
	w.Await("via=127.0.0.1:80", "")
	del(t, client, "/metis/via")
	w.Await("", "")
}

// A value that cannot be used leaves the last usable one, and the others count.
func testBadValues(t *testing.T, c *etcdtest.Cluster, client *clientv3.Client) {
	put(t, client, "/bad/a", "127.0.0.1:81")
	put(t, client, "/bad/b", "nonsense")
	var log subprocess.Output
	w := watchService(t, at(c, "/bad/"), &log)
	w.Await("a=127.0.0.1:81", "")
	put(t, client, "/bad/a", "{host:127.0.0.1 port:81}") // as a shell without quotes makes it
	put(t, client, "/bad/\xff", "127.0.0.1:82")          // a state for a new process has ids as texts
	put(t, client, "/bad/c", "127.0.0.1:83")
	w.Await("a=127.0.0.1:81 c=127.0.0.1:83", "")
	w.AwaitStatus("three invalid entries", func(s discovery.WatchStatus) bool { return len(s.Invalid) == 3 })
	s := w.Status()
	a := s.Invalid[0]
	verify.That(t, a.Key == "/bad/a" && a.InUse && strings.Contains(a.Reason, "JSON"), "%+v", a)
	b := s.Invalid[1]
	verify.That(t, b.Key == "/bad/b" && !b.InUse && strings.Contains(b.Reason, "HOST:PORT"), "%+v", b)
	verify.That(t, strings.Contains(s.Invalid[2].Reason, "UTF-8"), "%+v", s.Invalid[2])
	verify.Equal(t, s.State, discovery.WatchFresh, "the watch")
	put(t, client, "/bad/a", "127.0.0.1:91")
	del(t, client, "/bad/b")
	del(t, client, "/bad/\xff")
	w.Await("a=127.0.0.1:91 c=127.0.0.1:83", "")
	w.AwaitStatus("no invalid value", func(s discovery.WatchStatus) bool { return len(s.Invalid) == 0 })
	verify.Equal(t, strings.Count(log.String(), "a value cannot be used"), 3, "lines in the log about 3 values")
}

// A key that comes back with a value that cannot be used does not end the probation of its
// instance, also in a new process: that one may have failed.
func testBadValueOfALostInstance(t *testing.T, c *etcdtest.Cluster, client *clientv3.Client) {
	put(t, client, "/back/a", "nonsense")
	lost := discovery.Instance{Service: "star", ID: "a", Address: "127.0.0.1", Port: 81, Weight: 1, Probation: time.Now()}
	w := watchService(t, at(c, "/back/"), io.Discard, lost)
	w.AwaitStatus("an invalid entry", func(s discovery.WatchStatus) bool { return len(s.Invalid) == 1 })
	w.Await("a=127.0.0.1:81?", "")
	verify.That(t, !w.Had("a=127.0.0.1:81") && !w.Status().Invalid[0].InUse, "the instance is in use as if it had not been lost")
	put(t, client, "/back/a", "127.0.0.1:82")
	w.Await("a=127.0.0.1:82", "")
}

// Instances stay through every outage; those that a restored backup lacks are on probation.
func TestOutagesRemoveNothing(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	m := c.Members[0]
	put(t, c.Client(t), "/star/a", "127.0.0.1:81")
	verify.NoError(t, m.Stop())
	backup := m.Save(t)
	verify.NoError(t, m.Launch())
	put(t, c.Client(t), "/star/b", "127.0.0.1:82")
	w := watchService(t, at(c, "/star/"), io.Discard)
	w.Await("a=127.0.0.1:81 b=127.0.0.1:82", "")
	verify.NoError(t, m.Kill())
	w.AwaitStatus("the watch is stale", func(s discovery.WatchStatus) bool {
		return s.State == discovery.WatchStale && strings.Contains(s.LastError, "connection refused")
	})
	m.Restore(t, backup)
	verify.NoError(t, m.Launch())
	w.Await("a=127.0.0.1:81 b=127.0.0.1:82?", "")
	put(t, c.Client(t), "/star/c", "127.0.0.1:83")
	w.Await("a=127.0.0.1:81 c=127.0.0.1:83", "") // as many as before: the loss is over
}

// At a start, each key has the instance in use that has its name, as its last usable value. Many
// keys must not take minutes: the client takes 100,000.
func TestInstancesInUseAtAStart(t *testing.T) {
	const keys = 30_000
	w := &watch{source: &source{options: Options{Prefix: "/nodes/"}}}
	view := client.View{Entries: map[string]client.Entry{"/nodes/new": {}}}
	for n := range keys {
		id := fmt.Sprintf("instance-%06d", n)
		w.before = append(w.before, discovery.Instance{ID: id})
		view.Entries["/nodes/"+id] = client.Entry{}
	}
	w.before = append(w.before, discovery.Instance{ID: "gone"})
	w.begin(view)
	verify.Equal(t, len(w.values), keys, "keys with an instance")
	last := w.values["/nodes/instance-029999"]
	verify.That(t, last.usable && last.instance.ID == "instance-029999", "the last one: %+v", last)
}
