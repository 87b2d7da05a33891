package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"sluice/observe/wake"
	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/meshtest"
	"sluice/test/verify"
)

// meshLoad sends requests of all kinds to services of the mesh until stop. Each must be answered.
type meshLoad struct {
	*running
	ctx   context.Context
	end   context.CancelFunc
	pace  time.Duration // between two requests of a kind
	all   sync.WaitGroup
	done  map[string]*atomic.Int64 // by kind
	kills atomic.Int64             // of sidecars
	cuts  atomic.Int64             // answers whose end is missing: a sidecar that is killed takes it with it
}

// repeat does one of a kind again and again, and reports the first that fails.
func (l *meshLoad) repeat(kind string, one func(ctx context.Context) error) {
	n := new(atomic.Int64)
	l.done[kind] = n
	l.all.Go(func() {
		for pace := time.Tick(l.pace); l.ctx.Err() == nil; <-pace {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			err := one(ctx)
			cancel()
			if err != nil {
				l.t.Errorf("%s %d: %v", kind, n.Load(), err)
				return
			}
			n.Add(1)
		}
	})
}

// http repeats a request over persistent connections, or over new ones, for one of the answers.
func (l *meshLoad) http(kind, path, body string, fresh bool, want ...string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: fresh}}
	l.t.Cleanup(client.CloseIdleConnections)
	l.repeat(kind, func(ctx context.Context) error {
		response, err := client.Do(l.request(http.MethodPut, l.url("web")+path, strings.NewReader(body)).WithContext(ctx))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		cut := errors.Is(err, io.ErrUnexpectedEOF)
		if cut {
			l.cuts.Add(1)
		}
		if response.StatusCode != http.StatusOK || !cut && (err != nil || !slices.Contains(want, string(text))) {
			return fmt.Errorf("%s %q, %w", response.Status, text, err)
		}
		return nil
	})
}

// start begins all kinds.
func (l *meshLoad) start() {
	l.http("PUT of nothing", "/web", "", false, "web-1", "web-2")
	l.http("PUT on new connections", "/web", "a body", true, "a body")
	l.http("PUT of nothing by h2", "/multiplexed", "", false, "web-1", "web-2")
	l.http("PUT by h2", "/multiplexed", "a body", false, "a body")
	calls := verify.Result(grpc.NewClient("passthrough:///"+l.Address("web").String(), grpc.WithTransportCredentials(insecure.NewCredentials()))).Must(l.t)
	l.t.Cleanup(func() { calls.Close() })
	l.repeat("gRPC", func(ctx context.Context) error {
		_, err := grpc_health_v1.NewHealthClient(calls).Check(ctx, new(grpc_health_v1.HealthCheckRequest))
		return err
	})
	long := l.connect("bytes")
	name := long.line()
	l.repeat("a long stream", func(context.Context) error {
		long.say("hello")
		if got := long.line(); got != "hello" {
			return fmt.Errorf("%s: got %q", name, got)
		}
		return nil
	})
}

// stop ends the load, of which there was some of each kind.
func (l *meshLoad) stop() {
	l.end()
	l.all.Wait()
	for kind, n := range l.done {
		verify.That(l.t, n.Load() > 0, "%s: none was answered", kind)
	}
	cuts, kills := l.cuts.Load(), l.kills.Load()
	verify.That(l.t, cuts <= kills*int64(len(l.done)), "%d answers were cut, %d sidecars were killed", cuts, kills)
}

// Peers in the mesh are peers as others: through sidecars and by native services, with every
// protocol, requests do not fail while sidecars end and start, stand still, are in maintenance or
// drained, and the certificates rotate.
func TestPeersOfTheMesh(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(verify.Seed(t), 0))
	m := meshtest.Start(t, consultest.Options{ACLs: true, Node: "node-1"})
	var sidecars []*meshtest.Sidecar
	for _, id := range []string{"web-1", "web-2"} {
		sidecars = append(sidecars, m.Sidecar(t, meshtest.Service{Name: "web", ID: id, Port: meshtest.ServeHTTP(t, id).Port}))
		m.Native(t, meshtest.Service{Name: "api", ID: strings.Replace(id, "web", "api", 1)})
	}
	m.Sidecar(t, meshtest.Service{Name: "tcp", ID: "tcp-1", Port: meshtest.ServeTCP(t, "tcp-1").Port})
	for service, n := range map[string]int{"web": 2, "api": 2, "tcp": 1} {
		m.Intend(t, service, meshtest.Allow("sluice"))
		m.AwaitPassing(t, service, n)
	}
	// Only what stands still for long fails a check: while one of two has ended, the other one
	// must not.
	const checked = `interval: 100ms, failing_interval: 100ms, timeout: 10s, unhealthy_threshold: 1`
	text := fmt.Sprintf(`
listeners: [{ name: web, address: "127.0.0.1:0" }, { name: bytes, address: "127.0.0.1:0", protocol: tcp, service: tcp }]
shutdown: { grace: 1h }
consul: { addresses: [%q], token: %s }
services:
  web: { consul: { connect: true }, retry: { attempts: 3 }, timeouts: { connect: 5m }, health: { active: { %[3]s }, passive: { consecutive_failures: 2, ejection: 100ms } } }
  multiplexed: { consul: { service: web, connect: true }, upstream: { protocol: h2 }, retry: { attempts: 3 }, timeouts: { connect: 5m }, health: { active: { %[3]s }, passive: { ejection: 100ms } } }
  api: { consul: { connect: true }, upstream: { protocol: h2 }, health: { active: { type: grpc, %[3]s } } }
  tcp: { consul: { connect: true }, health: { active: { type: tcp, %[3]s } } }
routes:
  - { path: /web, service: web }
  - { path: /multiplexed, service: multiplexed }
  - { path: /, service: api }
`, m.URL(), m.Token(), checked)
	r := start(t, text)
	used := func(services []string, id string) (n int) {
		for _, service := range services {
			for _, p := range r.services.pool(service).Snapshot().Eligible {
				if p.Instance().ID == id {
					n++
				}
			}
		}
		return n
	}
	web := []string{"web", "multiplexed"}
	await := func(services []string, id string, all bool) {
		t.Helper()
		want := 0
		if all {
			want = len(services)
		}
		r.await(fmt.Sprintf("%s is used by %d of %q", id, want, services), func() bool { return used(services, id) == want })
	}
	for _, s := range sidecars {
		await(web, s.ID+"-sidecar-proxy", true)
	}
	ctx, end := context.WithCancel(context.Background())
	load := &meshLoad{running: r, ctx: ctx, end: end, pace: long.Count(t, 50*time.Millisecond, 10*time.Millisecond), done: make(map[string]*atomic.Int64)}
	load.start()
	defer load.stop()

	steps := map[string]func(s *meshtest.Sidecar, proxy string){
		"ends and starts": func(s *meshtest.Sidecar, proxy string) {
			load.kills.Add(1)
			verify.NoError(t, s.Process().Kill())
			s.Restart(t)
		},
		"stands still": func(s *meshtest.Sidecar, proxy string) {
			verify.NoError(t, s.Process().Pause())
			await(web, proxy, false)
			verify.NoError(t, s.Process().Resume())
		},
		"is in maintenance": func(s *meshtest.Sidecar, proxy string) {
			verify.NoError(t, m.Client().Agent().EnableServiceMaintenance(s.ID, "for a test"))
			await(web, proxy, false)
			verify.NoError(t, m.Client().Agent().DisableServiceMaintenance(s.ID))
		},
		"is drained": func(s *meshtest.Sidecar, proxy string) {
			r.drain("web", proxy) // an order is about the instance, of which both services have a peer
			await(web, proxy, false)
			verify.Equal(t, r.command("/api/peers/web/"+proxy+"/enable"), http.StatusOK, "enable")
		},
		"has other certificates": func(s *meshtest.Sidecar, proxy string) {
			before := r.mesh.identity.Certificates()[0]
			m.RotateCA(t)
			r.await("the next certificate", func() bool { return r.mesh.identity.Certificates()[0] != before })
		},
		"is reached outside of the mesh": func(s *meshtest.Sidecar, proxy string) {
			r.replace(strings.NewReplacer("web: { consul: { connect: true }", "web: { consul: {}", "service: web, connect: true }, upstream: { protocol: h2 }",
				"service: web }, upstream: { protocol: h2c }").Replace(text))
			await(web, s.ID, true)
			await(web, proxy, false)
			r.replace(text)
		},
		"api is in maintenance": func(*meshtest.Sidecar, string) {
			id := []string{"api-1", "api-2"}[random.IntN(2)]
			verify.NoError(t, m.Client().Agent().EnableServiceMaintenance(id, "for a test"))
			await([]string{"api"}, id, false)
			verify.NoError(t, m.Client().Agent().DisableServiceMaintenance(id))
			await([]string{"api"}, id, true)
		},
	}
	names := slices.Sorted(maps.Keys(steps))
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range append(names, "ends and starts", "is reached outside of the mesh", "is reached outside of the mesh") {
		s := sidecars[random.IntN(len(sidecars))]
		proxy := s.ID + "-sidecar-proxy"
		t.Logf("%s %s", s.ID, name)
		steps[name](s, proxy)
		await(web, proxy, true)
		if t.Failed() {
			return
		}
	}
}

// Services that are found in the catalog of one mesh, and connections in it.
func TestServicesOfTheCatalogInTheMesh(t *testing.T) {
	t.Parallel()
	m := meshtest.Start(t, consultest.Options{ACLs: true})
	t.Run("found", func(t *testing.T) {
		t.Parallel()
		testServicesOfTheCatalogInTheMesh(t, m)
	})
	t.Run("streams", func(t *testing.T) {
		t.Parallel()
		testStreamsOfAServiceWithHTTP2InTheMesh(t, m)
	})
}

// Services found in the catalog are reached through the mesh, at the routes that the tags of their
// sidecars ask for; those outside of the mesh have no peers.
func testServicesOfTheCatalogInTheMesh(t *testing.T, m *meshtest.Mesh) {
	const tag = "sluice.route=web.example.com/"
	m.Sidecar(t, meshtest.Service{Name: "web", ID: "web-1", Port: meshtest.ServeHTTP(t, "web-1").Port, Tags: []string{tag}})
	m.Native(t, meshtest.Service{Name: "api", Tags: []string{"sluice.route=api.example.com/"}})
	for _, service := range []string{"web", "api"} {
		m.Intend(t, service, meshtest.Allow("sluice"))
		m.AwaitPassing(t, service, 1)
	}
	plain := &api.AgentServiceRegistration{Name: "plain", Address: "127.0.0.1", Port: meshtest.ServeHTTP(t, "plain").Port, Tags: []string{"sluice.route=plain.example.com/"}}
	verify.NoError(t, m.Client().Agent().ServiceRegister(plain))
	r := start(t, fmt.Sprintf("consul: { addresses: [%q], token: %s }\ncatalog: { tags: [sluice], connect: true }\n", m.URL(), m.Token()))
	r.answers("web.example.com/", "web-1")
	r.answers("api.example.com/", "api")
	r.await("plain has no peers", func() bool {
		pool := r.services.pool("plain")
		return pool != nil && wake.Closed(r.services.get("plain").first) && len(pool.Snapshot().All) == 0
	})
	verify.Slices(t, r.serviceNames(), []string{"api", "plain", "web"}, "services")
	for _, p := range r.peers() {
		verify.Equal(t, p.Identity, "/ns/default/dc/dc1/svc/"+p.Service, "the identity of a peer")
	}
}

// A listener for TCP connects to a service whose chain says HTTP/2: it forwards bytes as they are.
func testStreamsOfAServiceWithHTTP2InTheMesh(t *testing.T, m *meshtest.Mesh) {
	m.Sidecar(t, meshtest.Service{Name: "db", ID: "db-1", Port: meshtest.ServeTCP(t, "db-1").Port})
	m.Intend(t, "db", meshtest.Allow("sluice"))
	m.AwaitPassing(t, "db", 1)
	text := fmt.Sprintf(`
listeners: [{ name: db, address: "127.0.0.1:0", protocol: tcp, service: db }]
consul: { addresses: [%q], token: %s }
services: { db: { consul: { connect: true }, timeouts: { connect: 10s } } }
`, m.URL(), m.Token())
	r := start(t, text)
	first := r.connect("db")
	verify.Equal(t, first.line(), "db-1", "a connection")
	m.SetProtocol(t, "db", "grpc")
	r.await("the protocol is known", func() bool { return r.chain().Protocol == "grpc" })
	verify.Equal(t, r.connect("db").line(), "db-1", "a connection after the change")
	first.say("hello")
	verify.Equal(t, first.line(), "hello", "the connection of before")
	r = r.upgrade(text, nil)
	verify.Equal(t, r.connect("db").line(), "db-1", "a connection to a new peer")
}
