package gateway

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/test/etcdtest"
	"sluice/test/verify"
)

// below is the configuration of a gateway that follows the keys below /test/.
func below(c *etcdtest.Cluster) string {
	return fmt.Sprintf("dynamic: [{ etcd: { endpoints: [%q], prefix: /test/ } }]\n", c.Endpoints()[0])
}

// node returns a value for a peer, as the documentation shows it.
func node(t *testing.T, address string) string {
	t.Helper()
	return fmt.Sprintf(`{"host":"127.0.0.1","port":%d}`, port(t, address))
}

func putKey(t *testing.T, c *clientv3.Client, key, value string, options ...clientv3.OpOption) {
	t.Helper()
	_, err := c.Put(t.Context(), key, value, options...)
	verify.NoError(t, err)
}

func deleteKey(t *testing.T, c *clientv3.Client, key string) {
	t.Helper()
	_, err := c.Delete(t.Context(), key)
	verify.NoError(t, err)
}

func (r *running) awaitStatus(path string, want int) {
	r.t.Helper()
	r.await(fmt.Sprintf("%s gets %d", path, want), func() bool { status, _ := r.get(path); return status == want })
}

// A key makes a request succeed that got 404 before, and its end makes it get 404 again.
func TestKeyInEtcdIsServed(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	a, b := origin(t, "a"), origin(t, "b")
	r := start(t, below(c))
	status, _ := r.get("/aa/d")
	verify.Require(t, status == 404, "status %d without a key", status)
	putKey(t, client, "/test/node", node(t, a))
	r.answers("/aa/d", "a")
	deleteKey(t, client, "/test/node")
	r.awaitStatus("/aa/d", 404)

	lease, err := client.Grant(t.Context(), 3600)
	verify.NoError(t, err)
	putKey(t, client, "/test/node", node(t, b), clientv3.WithLease(lease.ID))
	r.answers("/aa/d", "b")
	if _, err := client.Revoke(t.Context(), lease.ID); err != nil { // as its end does
		t.Fatal(err)
	}
	r.awaitStatus("/aa/d", 404)

	// Several keys are peers of one service, and a change of peers is no new configuration.
	putKey(t, client, "/test/node", node(t, a))
	r.answers("/aa/d", "a")
	number := r.awaitRevision(6).Number // a revision serves before it is recorded
	putKey(t, client, "/test/other", node(t, b))
	r.answers("/aa/d", "b")
	putKey(t, client, "/test/node", "{host:127.0.0.1 port:6699}") // the last good value stays
	r.answers("/aa/d", "a")
	r.await("the bad value is shown", func() bool { return len(r.services.watches()["test"].Invalid) == 1 })
	now := r.applied().Number
	verify.That(t, now == number, "revision %d, then %d", number, now)
	deleteKey(t, client, "/test/node")
	deleteKey(t, client, "/test/other")
	r.awaitStatus("/aa/d", 404)
}

// A first value that cannot be used makes no route, and /api/config says why.
func TestBadFirstKeyInEtcd(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	a := origin(t, "a")
	r := start(t, below(c))
	putKey(t, client, "/test/node", "nonsense")
	s := r.awaitState("etcd:/test/", "stale")
	verify.Contains(t, strings.Join(s.Errors, " "), `etcd:/test/node: "nonsense": want`, "%+v", s)
	status, _ := r.get("/aa/d")
	verify.That(t, status == 404, "status %d", status)
	putKey(t, client, "/test/node", node(t, a))
	r.answers("/aa/d", "a")
	r.awaitState("etcd:/test/", "in_use")
}

// Documents below the prefix are services and routes as in a file.
func TestDocumentsInEtcd(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	a, b := origin(t, "a"), origin(t, "b")
	putKey(t, client, "/test/a.yaml", serving("a", a))
	r := start(t, below(c))
	r.gets("/a", "a")
	putKey(t, client, "/test/b.yaml", serving("b", b))
	r.answers("/b", "b")
	putKey(t, client, "/test/b.yaml", strings.Replace(serving("b", b), "peers", "pears", 1))
	s := r.awaitState("etcd:/test/", "refused")
	verify.That(t, len(s.Errors) == 1 && strings.HasPrefix(s.Errors[0], "etcd:/test/b.yaml:1: services.b.pears: unknown key"), "errors %q", s.Errors)
	r.gets("/b", "b")
	putKey(t, client, "/test/node", node(t, a)) // another kind of key, while a document is refused
	deleteKey(t, client, "/test/b.yaml")
	r.awaitStatus("/b/x", 200) // by the route of node
	r.answers("/else", "a")
}

// Neither the death of etcd nor an emptied one changes what is served.
func TestEtcdFails(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	m, client := c.Members[0], c.Client(t)
	a, b := origin(t, "a"), origin(t, "b")
	putKey(t, client, "/test/node", node(t, a))
	putKey(t, client, "/test/b.yaml", serving("b", b))
	r := start(t, below(c))
	check := func(when string) {
		t.Helper()
		for path, want := range map[string]string{"/aa/d": "a", "/b": "b"} {
			r.gets(path, want, when)
		}
	}
	check("at the start")
	verify.NoError(t, m.Kill())
	r.awaitState("etcd:/test/", "stale")
	check("etcd is dead")
	m.Restore(t, "")
	verify.NoError(t, m.Launch())
	r.await("the loss is noticed", func() bool { return strings.Contains(r.log.String(), "has lost documents") })
	r.awaitState("etcd:/test/", "stale")
	check("etcd is empty")
	c.Await(t)
	next := r.succeed(below(c), nil, patience)
	verify.NoError(t, <-next.outcome)
	r = next.running
	r.await("the new process knows the loss", func() bool { return strings.Contains(r.log.String(), "has lost documents") })
	check("after an upgrade")
	putKey(t, client, "/test/c", node(t, b))
	r.answers("/aa/d", "b")
	r.gets("/b", "b")
}

// A start without etcd uses the snapshot; the new process of an upgrade gets the set.
func TestServiceInEtcdWithoutEtcd(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	m, client := c.Members[0], c.Client(t)
	putKey(t, client, "/star/a", node(t, origin(t, "a")))
	text := fmt.Sprintf("discovery: { snapshot: %q, allow_local: true }\nservices: { star: { etcd: { endpoints: [%q], prefix: /star/ } } }\nroutes: [{ service: star }]\n",
		filepath.Join(t.TempDir(), "snapshot"), c.Endpoints()[0])
	r := start(t, text)
	r.gets("/", "a")
	r.stop()
	<-r.ended
	verify.NoError(t, m.Kill())
	r = start(t, text)
	r.answers("/", "a")
	verify.NoError(t, m.Launch())
	r.await("the watch is fresh", func() bool { return r.services.watches()["star"].Restored.IsZero() })
	verify.NoError(t, m.Pause())
	defer m.Resume()
	s := r.succeed(text, nil, patience)
	verify.NoError(t, <-s.outcome)
	s.gets("/", "a")
}
