package gateway

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/dnstest"
	"sluice/test/verify"
)

// at returns an instance with an address, and the host as its id.
func at(host string, port int) *api.ServiceEntry {
	e := discoverytest.Instance("star", host, port)
	e.Service.Address = host
	return e
}

// peer returns the peer with an id.
func (r *running) peer(id string) admin.Peer {
	for _, p := range r.peers() {
		if p.ID == id {
			return p
		}
	}
	return admin.Peer{}
}

const fromConsul = "consul: { addresses: [%q] }\nservices: { star: { consul: {}, balance: { policy: round_robin } } }\nroutes: [{ service: star }]"

// A registered instance must not publish the admin API.
func TestNoRequestReachesAListenerOfSluice(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	good := port(t, origin(t, "star"))
	consul.Set("star", discoverytest.Instance("star", "good", good))
	r := start(t, fmt.Sprintf(fromConsul, consul.URL()))
	adminPort, webPort := port(t, r.Address("admin").String()), port(t, r.Address("web").String())
	literal := []string{"127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::"}
	entries := []*api.ServiceEntry{discoverytest.Instance("star", "good", good), at("localhost", adminPort), at("LOCALHOST", webPort)}
	for _, host := range literal {
		entries = append(entries, at(host, adminPort))
	}
	consul.Set("star", entries...)
	r.await("all peers", func() bool { return len(r.peers()) == len(entries) })

	for range 10 * len(entries) {
		status, body := r.send(http.MethodPost, r.url("web")+"/api/peers/star/good/drain", "Host", r.Address("admin").String())
		verify.Require(t, status == http.StatusOK && body == "star", "got %d %q", status, body)
	}
	p := r.peer("good")
	verify.That(t, p.State == "up" && len(p.Reasons) <= 0, "the other peer: %+v", p)
	for _, host := range literal {
		if p := r.peer(host); p.State != "unhealthy" || p.Used || len(p.Reasons) != 1 || !strings.HasSuffix(p.Reasons[0], `is the listener "admin" of sluice itself`) {
			t.Errorf("%s: %+v", host, p)
		}
	}
	for host, listener := range map[string]string{"localhost": "admin", "LOCALHOST": "web"} {
		want := fmt.Sprintf(`is the listener %q of sluice itself`, listener)
		if p := r.peer(host); !slices.ContainsFunc(p.Reasons, func(why string) bool { return strings.HasPrefix(why, "address: ") && strings.HasSuffix(why, want) }) || p.Failures == 0 {
			t.Errorf("%s: %+v", host, p)
		}
	}
	r.await("the log has the events", func() bool {
		return strings.Count(r.log.String(), `"event":"refused"`) == len(entries)-1
	})
}

// 127.0.0.1 in a registry means the machine that registered it.
func TestLoopbackAddressOfAnotherMachine(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	private := port(t, origin(t, "for this machine only"))
	consul.Set("star", discoverytest.OnNode(at("127.0.0.1", private), "web-2", "198.51.100.7"), discoverytest.OnNode(at("localhost", private), "web-2", "198.51.100.7"))
	text := fmt.Sprintf(fromConsul, consul.URL())
	r := start(t, text)
	for range 10 {
		status, body := r.get("/")
		verify.Require(t, status >= 500, "got %d %q", status, body)
	}
	want := "address: 127.0.0.1 is a loopback address, and node web-2 (198.51.100.7) is not known to be this machine"
	for _, host := range []string{"127.0.0.1", "localhost"} {
		p := r.peer(host)
		verify.That(t, slices.Contains(p.Reasons, want), "%s: %+v", host, p)
	}

	r.replace(text + "\ndiscovery: { allow_local: true }\n")
	r.gets("/", "for this machine only")
	r.replace(text)
	p := r.peer("127.0.0.1")
	verify.That(t, !p.Used && slices.Contains(p.Reasons, want), "without allow_local again: %+v", p)
}

func TestActiveChecksDoNotReachAListener(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	good := port(t, origin(t, "star"))
	consul.Set("star", discoverytest.Instance("star", "good", good))
	r := start(t, strings.Replace(fmt.Sprintf(fromConsul, consul.URL()), "consul: {},", "consul: {}, health: { active: { path: /healthz, interval: 10ms } },", 1))
	consul.Set("star", discoverytest.Instance("star", "good", good), at("localhost", port(t, r.Address("admin").String())))
	r.await("the address is refused", func() bool {
		p := r.peer("localhost")
		return p.State == "unhealthy" && slices.ContainsFunc(p.Reasons, func(why string) bool {
			return strings.HasPrefix(why, "active: http GET /healthz: connect: ") && strings.HasSuffix(why, `is the listener "admin" of sluice itself`)
		})
	})
}

// The rules for addresses are those of every source that others write.
func TestAddressesOfAllSources(t *testing.T) {
	t.Parallel()
	consul, own := shared.Agent(t)
	dns := dnstest.New()
	private := origin(t, "for this machine only")
	dns.Set(dnstest.Record{Name: "star.example", Address: "127.0.0.1"})
	put(t, consul, own+"/list", private)
	put(t, consul, own+"/documents/a.yaml", fmt.Sprintf("services: { document: { peers: [%q] }, names: { peers: ['localhost:%d'] } }", private, port(t, private)))
	asks := func(path, url string) string {
		return fmt.Sprintf("routes: [{ path: %s, service: own, forward_auth: { url: %q } }]", path, url)
	}
	put(t, consul, own+"/documents/b.yaml", asks("/asks", "http://"+private+"/"))
	put(t, consul, own+"/documents/c.yaml", asks("/asks-name", fmt.Sprintf("http://localhost:%d/", port(t, private))))
	file := filepath.Join(t.TempDir(), "peers")
	verify.NoError(t, os.WriteFile(file, []byte(private), 0o600))
	text := func(allow bool) string {
		return fmt.Sprintf(`
discovery: { allow_local: %[1]t }
consul: { addresses: [%[2]q] }
dynamic: [{ consul_kv: { prefix: %[7]s/documents/ } }]
services:
  dns: { dns: { name: star.example, type: a, port: %[3]d, server: %[4]q } }
  list: { consul_kv: { key: %[7]s/list } }
  own: { peers: [%[5]q] }
  file: { file: %[6]q }
  never: { peers: ["[fe80::1%%no-interface]:80"] } # leads nowhere, also without the rule
routes:
  - { path: /dns, service: dns }
  - { path: /list, service: list }
  - { path: /document, service: document }
  - { path: /names, service: names }
  - { path: /own, service: own }
  - { path: /own-asks, service: own, forward_auth: { url: "http://%[5]s/" } }
  - { path: /file, service: file }
  - { path: /never, service: never }
`, allow, consul.URL(), port(t, private), dns.Listen(t), private, file, own)
	}
	// A reload waits for asked in vain.
	r := start(t, text(false), func(g *Gateway) { g.waits.warm = time.Second })
	for _, path := range []string{"/dns", "/list", "/document", "/names", "/never", "/asks", "/asks-name"} {
		status, body := r.get(path)
		verify.That(t, status >= 500, "%s: got %d %q", path, status, body)
	}
	for _, path := range []string{"/own", "/own-asks", "/file"} {
		r.refuses(path, 200)
	}
	// Who writes a document may not make sluice ask this machine's servers, whose answers are of no
	// use to it here.
	hidden := dnstest.New()
	hidden.Set(dnstest.Record{Name: "star.example", Address: "127.0.0.1"})
	put(t, consul, own+"/documents/d.yaml", fmt.Sprintf(`services: { asked: { dns: { name: star.example, type: a, port: %d, server: %q } } }
routes: [{ path: /asked, service: asked }]`, port(t, private), hidden.Listen(t)))
	r.await("the server of the document is refused", func() bool {
		return strings.Contains(r.services.watches()["asked"].LastError, "127.0.0.1 is a loopback address of an unknown machine")
	})
	for _, network := range []string{"udp", "tcp"} {
		queries, connections := hidden.Queries(network)
		verify.That(t, queries == 0 && connections == 0, "%s: %d queries, %d connections", network, queries, connections)
	}
	r.write(text(true))
	for _, path := range []string{"/dns", "/list", "/document", "/names", "/asks", "/asks-name", "/asked"} {
		r.answers(path, "for this machine only")
	}
	put(t, consul, own+"/documents/e.yaml", asks("/asks-sluice", fmt.Sprintf("http://%s/own", r.Address("web"))))
	r.await("the document is used", func() bool { status, _ := r.get("/asks-sluice"); return status != 404 })
	for _, path := range []string{"/never", "/asks-sluice"} {
		status, body := r.get(path)
		verify.That(t, status >= 500, "%s with allow_local: got %d %q", path, status, body)
	}
	if p := r.peer("[fe80::1%no-interface]:80"); p.State != "unhealthy" || !slices.Contains(p.Reasons, "address: fe80::1 is a link-local address, to which sluice sends nothing") {
		t.Errorf("the link-local peer is %s: %q", p.State, p.Reasons)
	}
}

// namedSource is a source that reports what it is told to.
type namedSource struct {
	name    string
	reports chan discovery.Report
}

func (n namedSource) String() string { return n.name }

func (n namedSource) Run(ctx context.Context, _ discovery.WatchState, report func(discovery.Report)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-n.reports:
			report(r)
		}
	}
}

// A reload may give a service another source, reached in another way, just before the former one
// first reports: its instances are reached as before, until the other one reports.
func TestFirstReportOfAFormerSource(t *testing.T) {
	t.Parallel()
	star := newService("star", nil, nil)
	said := make(chan string, 2)
	manager := discovery.NewManager(discovery.ManagerOptions{
		Sink: func(set discovery.Set) {
			star.sourceChanged(set.Source, true)
			said <- set.Source
		},
		Log: zerolog.Nop(),
	})
	go func() { _ = manager.Run(t.Context()) }()
	first, next := namedSource{"first", make(chan discovery.Report)}, namedSource{"next", make(chan discovery.Report)}
	star.setTLS(peerTLS{source: first.name}, true)
	manager.Watch("star", first)
	star.setTLS(peerTLS{source: next.name, named: true}, true) // as watch does
	first.reports <- discovery.Report{Known: true}
	verify.Equal(t, <-said, first.name, "source that has reported")
	verify.That(t, !star.currentTLS.Load().named, "the instances of the former source are reached as those of the next")
	manager.Watch("star", next)
	next.reports <- discovery.Report{Known: true}
	verify.Equal(t, <-said, next.name, "source that has reported")
	verify.That(t, star.currentTLS.Load().named, "the instances of the next source are reached as those of the former one")
}
