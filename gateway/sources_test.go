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
// that fails changes nothing.
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
discovery: { allow_local: true }
services:
  star: { dns: { name: _star._tcp.example, server: %q } }
  via: { consul_kv: { key: via } }
  list: { file: %s }
  found: { etcd: { endpoints: [%q], prefix: /found/ } }
routes: [{ service: star }, { path: /via, service: via }, { path: /list, service: list }, { path: /found, service: found }]
`, consul.URL(), address, file, etcd.Endpoints()[0])
	paths := []string{"/", "/via", "/list", "/found"}
	r := start(t, text)
	for _, path := range paths {
		r.answers(path, "a")
	}
	use(b)
	for _, path := range paths {
		r.answers(path, "b")
	}
	var c admin.Comparison
	verify.Equal(t, r.api("/consul/list", &struct{ Error string }{}), http.StatusNotFound, "the comparison of a file")
	verify.That(t, r.api("/consul/via", &c) == http.StatusOK && c.Same && len(c.Instances) == 1 && c.Index != 0, "the comparison of a key: %+v", c)

	// The sources fail: nothing changes, also in a new process.
	dns.Fail(dnsmessage.RCodeServerFailure)
	verify.NoError(t, consul.Kill())
	verify.NoError(t, etcd.Members[0].Kill())
	verify.NoError(t, os.Remove(file))
	for _, name := range []string{"star", "via", "list", "found"} {
		r.await(name+" is stale", func() bool { w := r.watchOf(name); return w.State == "stale" && w.LastError != "" })
	}
	r = r.upgrade(text, nil)
	for _, path := range paths {
		r.gets(path, "b")
	}

	// They come back, with other peers.
	dns.Change(nil)
	verify.NoError(t, consul.Launch(t.Context()))
	verify.NoError(t, etcd.Members[0].Launch())
	etcd.Await(t)
	use(a)
	for _, path := range paths {
		r.answers(path, "a")
	}
	r.write(strings.NewReplacer("list: { file: "+file+" }", "list: { peers: ["+b+"] }", "key: via }", "key: other, probation: 0s }").Replace(text))
	r.answers("/list", "b")
	verify.Equal(t, r.watchOf("list").Source, "static", "the new source")
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

// The death of etcd changes nothing of what is served, also in a new process.
func TestEtcdFails(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	putKey(t, client, "/test/node", node(t, origin(t, "a")))
	putKey(t, client, "/config/b.yaml", serving("b", origin(t, "b")))
	r := start(t, below(c))
	r.gets("/aa/d", "a")
	putKey(t, client, "/test/node", node(t, origin(t, "c")))
	r.answers("/aa/d", "c")
	verify.NoError(t, c.Members[0].Kill())
	for range 2 {
		r.awaitState("etcd:/test/", "stale")
		r.awaitState("etcd:/config/", "stale")
		r.gets("/aa/d", "c")
		r.gets("/b", "b")
		r = r.upgrade(below(c), nil)
	}
}
