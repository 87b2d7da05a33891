package gateway

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/balancer"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/dnstest"
	"sluice/test/verify"
)

// Services from DNS, from a key of Consul and from a file follow their sources. A source that
// fails, and a start without it, change nothing.
func TestOtherSources(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	dns := dnstest.New()
	address := dns.Listen(t)
	consul := consultest.Start(t, consultest.Options{})
	file := filepath.Join(t.TempDir(), "peers")
	use := func(origin string) {
		t.Helper()
		dns.Set(
			dnstest.Record{Name: "_star._tcp.example", Target: "star.example", Port: uint16(port(t, origin)), Weight: 1},
			dnstest.Record{Name: "star.example", Address: "127.0.0.1"},
		)
		if _, err := consul.Client().KV().Put(&api.KVPair{Key: "via", Value: []byte(strings.ReplaceAll(origin, ":", "_"))}, nil); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file+"~", []byte("# peers\n"+origin+"\n"), 0o600); err != nil { // never read while it is written
			t.Fatal(err)
		}
		verify.NoError(t, os.Rename(file+"~", file))
	}
	use(a)
	text := preamble + `
shutdown: { idle: 0s }
consul: { addresses: [` + consul.URL() + `] }
discovery: { allow_local: true, snapshot: ` + filepath.Join(t.TempDir(), "snapshot.json") + ` }
services:
  star: { dns: { name: _star._tcp.example, server: "` + address + `" } }
  via: { consul_kv: { key: via } }
  list: { file: ` + file + ` }
routes: [{ service: star }, { path: /via, service: via }, { path: /list, service: list }]`
	paths := []string{"/", "/via", "/list"}
	first := start(t, text)
	for _, path := range paths {
		first.answers(path, "a")
	}
	use(b)
	for _, path := range paths {
		first.answers(path, "b")
	}
	for name, source := range map[string]string{"star": `dns SRV "_star._tcp.example"`, "via": `consul key "via"`, "list": fmt.Sprintf("file %q", file)} {
		if w := first.watchOf(name); w.Source != source || w.State != "fresh" || w.Instances != 1 {
			t.Errorf("%s: %+v", name, w)
		}
	}
	for path, want := range map[string]int{"/consul/star": http.StatusNotFound, "/consul/list": http.StatusNotFound, "/consul/via": http.StatusOK} {
		var c admin.Comparison
		if status := first.api(path, &c); status != want || status == http.StatusOK && (!c.Same || len(c.Instances) != 1 || c.Index == 0) {
			t.Errorf("%s: %d %+v", path, status, c)
		}
	}

	// The sources fail: nothing changes, also in a new process and after a start.
	dns.Freeze(true)
	verify.NoError(t, consul.Kill())
	verify.NoError(t, os.Remove(file))
	stale := func(r *running) {
		t.Helper()
		for _, name := range []string{"star", "via", "list"} {
			r.await(name+" is stale", func() bool { w := r.watchOf(name); return w.State == "stale" && w.LastError != "" })
		}
		for _, path := range paths {
			r.gets(path, "b")
		}
	}
	stale(first)
	second := first.succeed(text, nil, patience)
	if err := <-second.outcome; err != nil {
		t.Fatalf("the new process does not serve: %v", err)
	}
	first.end()
	stale(second.running)
	second.end()
	third := start(t, text)
	stale(third)

	// They come back, with other peers.
	dns.Freeze(false)
	verify.NoError(t, consul.Launch(t.Context()))
	use(a)
	for _, path := range paths {
		third.answers(path, "a")
	}
	third.write(strings.NewReplacer("list: { file: "+file+" }", "list: { peers: ["+b+"] }", "key: via }", "key: other, probation: 0s }").Replace(text))
	third.answers("/list", "b")
	if w := third.watchOf("list"); w.Source != "static" {
		t.Errorf("the new source: %+v", w)
	}
}

// With spill, requests go to the next data centre while the first one has no room, and come
// back at once. The first one is that of the list or the nearest one.
func TestSpill(t *testing.T) {
	t.Parallel()
	for _, settings := range []string{"datacenters: [dc1, dc2], spill: true", "datacenters: [dc2, dc1], spill: true, nearest: true"} {
		t.Run(settings, func(t *testing.T) {
			t.Parallel()
			testSpill(t, settings)
		})
	}
}

func testSpill(t *testing.T, settings string) {
	consul := discoverytest.Start(t)
	consul.SetDistances(discoverytest.Distance{Datacenter: "dc1", Seconds: []float64{0}}, discoverytest.Distance{Datacenter: "dc2", Seconds: []float64{0.01}})
	a, b := origin(t, "a"), origin(t, "b")
	far := discoverytest.Instance("star", "b", port(t, b))
	far.Node.Datacenter = "dc2"
	consul.SetIn("dc2", "star", far)
	set := func(status string) {
		consul.SetIn("dc1", "star", discoverytest.Health(discoverytest.Instance("star", "a", port(t, a)), status, "its output"))
	}
	set(api.HealthPassing)
	r := start(t, "consul: { addresses: ["+consul.URL()+"] }\nservices: { star: { consul: { "+settings+" } } }\nroutes: [{ service: star }]")
	tiers := func() []balancer.Tier {
		var services []admin.Service
		r.api("/api/services", &services)
		return services[0].Tiers
	}
	r.await("both data centres have answered", func() bool {
		return slices.Equal(tiers(), []balancer.Tier{{Peers: 1, Eligible: 1, Share: 1}, {Peers: 1, Eligible: 1}})
	})
	for range 20 {
		_, body := r.get("/")
		verify.Require(t, body == "a", "a request went to %q", body)
	}
	set(api.HealthCritical)
	r.answers("/", "b")
	verify.Slices(t, tiers(), []balancer.Tier{{Peers: 1}, {Peers: 1, Eligible: 1, Share: 1}}, "tiers")
	set(api.HealthPassing)
	r.answers("/", "a")
}
