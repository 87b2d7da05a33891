package gateway

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/dns/dnsmessage"

	"sluice/admin"
	"sluice/test/consultest"
	"sluice/test/dnstest"
	"sluice/test/etcdtest"
	"sluice/test/verify"
)

// Services from DNS, from a key of Consul, from a file and from etcd follow their sources. A source
// that fails, and a start without it, change nothing.
func TestOtherSources(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	dns := dnstest.New()
	address := dns.Listen(t)
	consul := consultest.Start(t, consultest.Options{})
	etcd := etcdtest.Start(t, etcdtest.Options{})
	client := etcd.Client(t)
	file := filepath.Join(t.TempDir(), "peers")
	use := func(origin string) {
		t.Helper()
		dns.Set(
			dnstest.Record{Name: "_star._tcp.example", Target: "star.example", Port: uint16(port(t, origin)), Weight: 1},
			dnstest.Record{Name: "star.example", Address: "127.0.0.1"},
		)
		put(t, consul, "via", strings.ReplaceAll(origin, ":", "_"))
		putKey(t, client, "/found/a", node(t, origin))
		replaceFile(t, file, "# peers\n"+origin+"\n")
	}
	use(a)
	text := fmt.Sprintf(`
shutdown: { idle: 0s }
consul: { addresses: [%s] }
discovery: { allow_local: true, snapshot: %s }
services:
  star: { dns: { name: _star._tcp.example, server: %q } }
  via: { consul_kv: { key: via } }
  list: { file: %s }
  found: { etcd: { endpoints: [%q], prefix: /found/ } }
routes: [{ service: star }, { path: /via, service: via }, { path: /list, service: list }, { path: /found, service: found }]
`, consul.URL(), filepath.Join(t.TempDir(), "snapshot.json"), address, file, etcd.Endpoints()[0])
	paths := []string{"/", "/via", "/list", "/found"}
	first := start(t, text)
	for _, path := range paths {
		first.answers(path, "a")
	}
	use(b)
	for _, path := range paths {
		first.answers(path, "b")
	}
	var c admin.Comparison
	verify.Equal(t, first.api("/consul/list", &struct{ Error string }{}), http.StatusNotFound, "the comparison of a file")
	verify.That(t, first.api("/consul/via", &c) == http.StatusOK && c.Same && len(c.Instances) == 1 && c.Index != 0, "the comparison of a key: %+v", c)

	// The sources fail: nothing changes, also in a new process and after a start.
	dns.Fail(dnsmessage.RCodeServerFailure)
	verify.NoError(t, consul.Kill())
	verify.NoError(t, etcd.Members[0].Kill())
	verify.NoError(t, os.Remove(file))
	stale := func(r *running, names ...string) {
		t.Helper()
		for _, name := range append(names, "star", "via", "list") {
			r.await(name+" is stale", func() bool { w := r.watchOf(name); return w.State == "stale" && w.LastError != "" })
		}
		for _, path := range paths {
			r.gets(path, "b")
		}
	}
	stale(first, "found") // a client of etcd that never had a connection waits for one, seconds
	second := first.upgrade(text, nil)
	first.end()
	stale(second)
	second.end()
	third := start(t, text)
	stale(third)

	// They come back, with other peers.
	dns.Change(nil)
	verify.NoError(t, consul.Launch(t.Context()))
	verify.NoError(t, etcd.Members[0].Launch())
	etcd.Await(t)
	use(a)
	for _, path := range paths {
		third.answers(path, "a")
	}
	third.write(strings.NewReplacer("list: { file: "+file+" }", "list: { peers: ["+b+"] }", "key: via }", "key: other, probation: 0s }").Replace(text))
	third.answers("/list", "b")
	verify.Equal(t, third.watchOf("list").Source, "static", "the new source")
}

// below is the configuration of a gateway that follows the instances below /test/, and the
// documents below /config/.
func below(c *etcdtest.Cluster) string {
	return fmt.Sprintf("dynamic: [{ etcd: { endpoints: [%q], prefix: /test/ } }, { etcd: { endpoints: [%[1]q], documents: /config/ } }]\n", c.Endpoints()[0])
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

// Neither the death of etcd nor an emptied one changes what is served.
func TestEtcdFails(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	m, client := c.Members[0], c.Client(t)
	a, b := origin(t, "a"), origin(t, "b")
	putKey(t, client, "/test/node", node(t, a))
	putKey(t, client, "/config/b.yaml", serving("b", b))
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
	r.awaitState("etcd:/config/", "stale")
	check("etcd is dead")
	m.Restore(t, "")
	verify.NoError(t, m.Launch())
	r.awaitLog("has lost documents")
	r.awaitState("etcd:/test/", "stale")
	r.awaitState("etcd:/config/", "stale")
	check("etcd is empty")
	c.Await(t)
	r = r.upgrade(below(c), nil)
	r.awaitLog("has lost documents")
	check("after an upgrade")
	putKey(t, client, "/test/c", node(t, b))
	r.answers("/aa/d", "b")
	r.gets("/b", "b")
}
