package gateway

import (
	"fmt"
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
	verify.Result(c.Put(t.Context(), key, value, options...)).Must(t)
}

func deleteKey(t *testing.T, c *clientv3.Client, key string) {
	t.Helper()
	verify.Result(c.Delete(t.Context(), key)).Must(t)
}

// A key makes a request succeed that got 404 before, and its end makes it get 404 again.
func TestKeyInEtcdIsServed(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	a, b := origin(t, "a"), origin(t, "b")
	r := start(t, below(c))
	r.refuses("/aa/d", 404)
	putKey(t, client, "/test/node", node(t, a))
	r.answers("/aa/d", "a")
	deleteKey(t, client, "/test/node")
	r.awaitStatus("/aa/d", 404)

	lease := verify.Result(client.Grant(t.Context(), 3600)).Must(t)
	putKey(t, client, "/test/node", node(t, b), clientv3.WithLease(lease.ID))
	r.answers("/aa/d", "b")
	verify.Result(client.Revoke(t.Context(), lease.ID)).Must(t)
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
	r.awaitLog("has lost documents")
	r.awaitState("etcd:/test/", "stale")
	check("etcd is empty")
	c.Await(t)
	r = r.upgrade(below(c), nil)
	r.awaitLog("has lost documents")
	check("after an upgrade")
	putKey(t, client, "/test/c", node(t, b))
	r.answers("/aa/d", "b")
	r.gets("/b", "b")
}
