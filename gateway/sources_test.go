package gateway

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/dns/dnsmessage"

	"sluice/admin"
	"sluice/balancer"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
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
	for name, source := range map[string]string{"star": `dns SRV "_star._tcp.example"`, "via": `consul key "via"`, "list": fmt.Sprintf("file %q", file)} {
		w := first.watchOf(name)
		verify.That(t, w.Source == source && w.State == "fresh" && w.Instances == 1, "%s: %+v", name, w)
	}
	for path, want := range map[string]int{"/consul/star": http.StatusNotFound, "/consul/list": http.StatusNotFound, "/consul/via": http.StatusOK} {
		var c admin.Comparison
		status := first.api(path, &c)
		verify.That(t, status == want && (status != http.StatusOK || c.Same && len(c.Instances) == 1 && c.Index != 0), "%s: %d %+v", path, status, c)
	}

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

// With spill, requests go to the next data centre while the first one has no room, and come
// back at once. The first one is that of the list or the nearest one.
func TestSpill(t *testing.T) {
	t.Parallel()
	for _, settings := range []string{"datacenters: [dc1, dc2], spill: true", "datacenters: [dc2, dc1], spill: true, nearest: true"} {
		t.Run(settings, func(t *testing.T) {
			t.Parallel()
			consul := discoverytest.Start(t)
			consul.SetDistances(discoverytest.Distance{Datacenter: "dc1", Seconds: []float64{0}}, discoverytest.Distance{Datacenter: "dc2", Seconds: []float64{0.01}})
			a := origin(t, "a")
			far := star(t, 2, origin(t, "b"))
			far.Node.Datacenter = "dc2"
			consul.SetIn("dc2", "star", far)
			set := func(status string) {
				consul.SetIn("dc1", "star", discoverytest.Health(star(t, 1, a), status, "its output"))
			}
			set(api.HealthPassing)
			r := start(t, "consul: { addresses: ["+consul.URL()+"] }\nservices: { star: { consul: { "+settings+" } } }\nroutes: [{ service: star }]")
			tiers := func() []balancer.Tier { return fetch[[]admin.Service](r, "/api/services")[0].Tiers }
			r.await("both data centres have answered", func() bool {
				return slices.Equal(tiers(), []balancer.Tier{{Peers: 1, Eligible: 1, Share: 1}, {Peers: 1, Eligible: 1}})
			})
			for range 20 {
				r.gets("/", "a")
			}
			set(api.HealthCritical)
			r.answers("/", "b")
			verify.Slices(t, tiers(), []balancer.Tier{{Peers: 1}, {Peers: 1, Eligible: 1, Share: 1}}, "tiers")
			set(api.HealthPassing)
			r.answers("/", "a")
		})
	}
}

// With spill, a data centre whose peers have all that they may have passes requests on to the next
// one, though it is healthy.
func TestSpillByLoad(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	arrived, proceed := make(chan struct{}), make(chan struct{})
	held := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			arrived <- struct{}{}
			<-proceed
		}
		io.WriteString(w, "a")
	})
	far := star(t, 2, origin(t, "b"))
	far.Node.Datacenter = "dc2"
	consul.SetIn("dc1", "star", star(t, 1, held))
	consul.SetIn("dc2", "star", far)
	r := start(t, "consul: { addresses: ["+consul.URL()+"] }\nservices: { star: { consul: { datacenters: [dc1, dc2], spill: true }, limits: { requests_per_peer: 1 } } }\nroutes: [{ service: star }]")
	r.await("both data centres have answered", func() bool { return len(fetch[[]admin.Service](r, "/api/services")[0].Tiers) == 2 })
	r.gets("/", "a", "with room")
	var holding sync.WaitGroup
	holding.Go(func() { r.gets("/held", "a") })
	<-arrived
	for range 3 {
		r.gets("/", "b", "without room")
	}
	close(proceed)
	holding.Wait()
	r.answers("/", "a")
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
}

// Who may write instances in etcd takes no route: a document below their prefix has no effect.
func TestInstancesInEtcdAreNoDocuments(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	shop, other := origin(t, "shop"), origin(t, "other")
	r := start(t, below(c)+fmt.Sprintf("services: { shop: { peers: [%q] } }\nroutes: [{ path: /shop, service: shop }]\n", shop))
	putKey(t, client, "/test/one", node(t, other))
	r.answers("/aa", "other")
	for _, key := range []string{"/test/one.yaml", "/test/services/shop"} {
		putKey(t, client, key, "routes: [{ path: /shop, priority: 1000, service: test }, { path: /shop/login, service: test }]")
	}
	putKey(t, client, "/test/two", node(t, other)) // after it
	r.await("the second instance", func() bool { return len(r.services.get("test").pool.Snapshot().All) == 2 })
	for _, path := range []string{"/shop", "/shop/login"} {
		r.gets(path, "shop", "a document beside instances")
	}
	r.awaitLog("dynamic[].etcd.documents")
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
