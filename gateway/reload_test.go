package gateway

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

func TestReloadPreservesPeersAndTheirState(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	r := start(t, static("a", a, "b", b), func(g *Gateway) { g.waits.retire = time.Millisecond })
	r.get("/")
	pool := r.services.get("a").pool
	peer := pool.Snapshot().All[0]
	r.await("the request has ended", func() bool { return peer.Inflight() == 0 })

	// A new policy, a new timeout and one more peer do not replace the first peer.
	r.replace("services: { a: { peers: [" + a + ", 127.0.0.1:1 weight=0], balance: { policy: round_robin }, timeouts: { idle: 1s } } }\nroutes: [{ service: a }]")
	verify.Equal(t, r.services.get("a").pool, pool, "the pool was replaced")
	r.await("the second peer", func() bool { return len(pool.Snapshot().All) == 2 })
	var after *balancer.Peer
	for _, p := range pool.Snapshot().All {
		if p.Address() == a {
			after = p
		}
	}
	verify.That(t, after == peer && after.Requests() == 1, "peer %v became %v", peer, after)
	verify.Equal(t, pool.Snapshot().Policy, balancer.PolicyRoundRobin, "policy")
	verify.Equal(t, r.table().Routes()[0].Service.Timeouts.Idle, time.Second, "idle timeout")
	r.await("the other service is removed", func() bool { return len(r.services.pools()) == 1 })
}

// While a new process starts, this one watches nothing. A reload that began before waits with its
// routes for the peers of a new service until it watches again, and no request is lost.
func TestReloadDuringAPauseWaitsForPeers(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	r := start(t, static("a", a), func(g *Gateway) { g.waits.warm, g.waits.paused = time.Millisecond, time.Hour })
	serves := func(want string) func() bool {
		return func() bool {
			_, body := r.get("/")
			return body == want
		}
	}
	r.await("the first service", serves("a"))
	r.services.discovery.Pause()
	r.write("services: { b: { peers: [" + b + "] } }\nroutes: [{ service: b }]")
	r.Reload()
	r.await("the time for the first peers is over", func() bool { return strings.Contains(r.log.String(), `"service":"b","waited":`) })
	for range 50 {
		r.gets("/", "a", "in the pause")
	}
	r.waits.warm = patience // nobody reads it before Resume
	r.services.discovery.Resume()
	r.await("the other service", serves("b"))
}

// A request finishes although its service and its listener are removed.
func TestRemovedServiceFinishesItsRequests(t *testing.T) {
	t.Parallel()
	slow, arrived, finish := slowOrigin(t)
	a := origin(t, "a")
	r := start(t, static("a", a, "slow", slow), func(g *Gateway) { g.waits.retire = time.Millisecond })
	var body string
	var request sync.WaitGroup
	request.Go(func() { _, body = r.get("/slow") })
	<-arrived
	r.replace(static("a", a) + "listeners: [{ name: other, address: '127.0.0.2:0' }]\n")
	r.awaitLog(`"message":"listener removed`)
	_, now := r.send(http.MethodGet, r.url("other")+"/slow")
	verify.Equal(t, now, "a", "the next route")
	p := r.peers()[slow]
	verify.That(t, p.State == "draining" && p.Inflight == 1, "the draining peer is not listed: %+v", p)
	finish()
	request.Wait()
	verify.Equal(t, body, "slow", "the request in flight")
	r.await("the pool is removed", func() bool { return len(r.services.pools()) == 1 })
}

// The pools of a service that was removed twice: the latest is first, so that its counters are the
// service's.
func TestPoolsOfAServiceRemovedTwice(t *testing.T) {
	t.Parallel()
	a, b := static("a", origin(t, "a")), static("b", origin(t, "b"))
	r := start(t, a, func(g *Gateway) { g.waits.retire = patience })
	first := r.services.get("a").pool
	removed := func() { t.Helper(); r.await("a is removed", func() bool { return r.services.get("a") == nil }) }
	r.replace(b)
	removed()
	r.replace(a)
	again := r.services.get("a").pool
	r.replace(b)
	removed()
	pools := r.services.pools()
	verify.That(t, slices.Index(pools, again) < slices.Index(pools, first) && slices.Contains(pools, again), "the latest is not first")
}

// A request that a reload overtakes before it has a peer goes to the service that it was for.
func TestRemovedServiceServesLateRequests(t *testing.T) {
	t.Parallel()
	asked, allow := make(chan struct{}), make(chan struct{})
	server := serveOrigin(t, func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-allow
	})
	let := sync.OnceFunc(func() { close(allow) })
	t.Cleanup(let) // before the server waits for its requests
	text := static("a", origin(t, "a"))
	with := strings.Replace(text, "service: a }", "service: a, forward_auth: { url: 'http://"+server+"/' } }", 1)
	r := start(t, with, func(g *Gateway) { g.waits.retire = patience })
	var status int
	var body string
	var request sync.WaitGroup
	request.Go(func() { status, body = r.get("/") })
	<-asked
	r.replace(static("b", origin(t, "b")))
	r.gets("/", "b")
	verify.Equal(t, len(r.services.pools()), 2, "pools")
	for _, p := range r.peers() {
		verify.Equal(t, p.State, map[string]string{"a": "draining", "b": "up"}[p.Service], "state of the peer of %s", p.Service)
	}
	let()
	request.Wait()
	verify.That(t, status == http.StatusOK && body == "a", "%d %q", status, body)
}

// While the first set of what a reload changes to is not there yet, requests go where they went
// before, whether that is still configured or not: no request goes to a service without peers.
func TestNewServiceIsRoutedWhenItHasPeers(t *testing.T) {
	t.Parallel()
	for what, next := range map[string]string{
		"another service":           "  a: { peers: [A] }\n  b: { consul: {} }\nroutes: [{ service: b }]",
		"in place of a service":     "  b: { consul: {} }\nroutes: [{ service: b }]",
		"other peers of a service":  "  a: { consul: { service: b } }\nroutes: [{ service: a }]",
		"both, and the route stays": "  a: { consul: { service: b } }\n  b: { consul: {} }\nroutes: [{ service: a }]",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			consul := discoverytest.New()
			a, b := origin(t, "a"), origin(t, "b")
			consul.Set("b", discoverytest.Instance("b", "b-1", port(t, b)))
			address, asked, answer := gatedConsul(t, consul)
			head := preamble + "consul: { addresses: [" + address + "] }\nservices:\n"
			r := start(t, head+"  a: { peers: ["+a+"] }\nroutes: [{ service: a }]")
			r.write(head + strings.ReplaceAll(next, "A", a))
			<-asked
			for range 20 {
				r.gets("/", "a")
			}

			var stop atomic.Bool
			var asking sync.WaitGroup
			asking.Go(func() {
				for !stop.Load() {
					status, body := r.get("/")
					verify.That(t, status == 200, "got %d %q", status, body)
				}
			})
			answer()
			r.awaitRevision(2)
			r.await("requests go to b", func() bool { _, body := r.get("/"); return body == "b" })
			stop.Store(true)
			asking.Wait()
		})
	}
}

// A service that gets other peers, with another TLS to them, reaches the former ones as before
// until the first set of its new source.
func TestFormerPeersAreReachedAsBefore(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "secure") }))
	t.Cleanup(secure.Close)
	plain, withTLS := origin(t, "plain"), secure.Listener.Addr().String()
	const tls = ", upstream: { tls: { skip_verify: true } }"
	for _, c := range []struct{ former, formerTLS, next, nextTLS, formerBody, nextBody string }{
		{withTLS, tls, plain, "", "secure", "plain"},
		{plain, "", withTLS, tls, "plain", "secure"},
	} {
		t.Run(c.formerBody, func(t *testing.T) {
			t.Parallel()
			consul := discoverytest.New()
			consul.Set("b", discoverytest.Instance("b", "b-1", port(t, c.next)))
			address, asked, answer := gatedConsul(t, consul)
			text := func(service string) string {
				return preamble + "consul: { addresses: [" + address + "] }\nservices:\n  a: { " + service + " }\nroutes: [{ service: a }]"
			}
			r := start(t, text("peers: ["+c.former+"]"+c.formerTLS))
			r.gets("/", c.formerBody)
			next := text("consul: { service: b }" + c.nextTLS)
			r.write(next)
			<-asked
			r.awaitRevision(2)
			r.gets("/", c.formerBody, "before the first set")
			r.replace(strings.Replace(next, "routes: [", "routes: [{ path: /other, service: a }, ", 1))
			r.gets("/other", c.formerBody, "after another reload")
			r.replace(strings.Replace(next, "a: {", "a: { wait_for_peer: 1ms,", 1))
			r.gets("/", c.formerBody, "after a change of the service")
			answer()
			r.answers("/", c.nextBody)
		})
	}
}

// Another source of a service may report the same instances as the former one: they are reached in
// its way from then on.
func TestSameInstancesOfAnotherSource(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "secure") }))
	t.Cleanup(secure.Close)
	consul := discoverytest.Start(t)
	versions(t, consul, []string{secure.Listener.Addr().String()}, "v1")
	text := func(service string) string {
		return preamble + "consul: { addresses: ['" + consul.URL() + "'] }\nservices:\n  star: { " + service + " }\nroutes: [{ service: star }]"
	}
	r := start(t, text("consul: {}"))
	r.refuses("/", http.StatusBadRequest, "without TLS")
	r.replace(text("consul: { tags: [v1] }, upstream: { tls: { skip_verify: true } }"))
	r.answers("/", "secure")
	r.replace(text("consul: {}"))
	r.awaitStatus("/", http.StatusBadRequest)
}

// Until the new source of a service has a set, its former peers are what they were: named by the
// operator or not, whatever else a reload changes, and further ones.
func TestFormerPeersStayNamed(t *testing.T) {
	t.Parallel()
	consul := discoverytest.New()
	// Each request opens a connection.
	a := serveOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, "a")
	})
	elsewhere := discoverytest.Instance("elsewhere", "elsewhere-1", port(t, a))
	elsewhere.Node.Address, elsewhere.Service.Tags = "192.0.2.1", []string{"urlprefix-h/tag"} // its loopback address is another machine's
	consul.Set("elsewhere", elsewhere)
	consul.Set("b", discoverytest.Instance("b", "b-1", port(t, origin(t, "b"))))
	answer := make(chan struct{})
	address := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/b") {
			<-answer
		}
		consul.ServeHTTP(w, r)
	})
	t.Cleanup(func() { close(answer) })
	file := filepath.Join(t.TempDir(), "peers")
	text := func(catalog, named, unnamed, route string) string {
		return preamble + "consul: { addresses: [" + address + "] }\n" + catalog + "services:\n  named: { " + named + " }\n  unnamed: { " + unnamed + " }\n" +
			"routes: [{ service: named }, { path: /unnamed, service: unnamed }" + route + "]\n"
	}
	const catalog, toConsul = "catalog: { tags: [fabio], select: { name: none } }\n", "consul: { service: b }"
	r := start(t, text("", "peers: ["+a+"]", "consul: { service: elsewhere }", ""))
	check := func(when string) {
		t.Helper()
		for range 10 {
			r.gets("/", "a", when)
			r.refuses("/unnamed", http.StatusServiceUnavailable, when)
		}
	}
	check("before")
	r.replace(text(catalog, toConsul, "file: "+file, ""))
	check("with other sources")
	r.replace(text(catalog, toConsul, "file: "+file, ", { host: other, service: named }"))
	check("with other routes")
	r.replace(text("", toConsul, "file: "+file, ""))
	check("without tags")
	verify.NoError(t, os.WriteFile(file, []byte(a), 0o600))
	r.answers("/unnamed", "a")
}

// A configuration file that is a pipe is read once. What it names is followed, a reload changes
// nothing, and a stop waits for no writer.
func TestConfigurationInAPipe(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	r := newRunning(t, "")
	documents := filepath.Join(t.TempDir(), "routes.yaml")
	lead := func(to string) { replaceFile(t, documents, "routes: [{ service: "+to+" }]") }
	lead("a")
	verify.NoError(t, os.Remove(r.file))
	verify.NoError(t, syscall.Mkfifo(r.file, 0o600))
	text := fmt.Sprintf("%sdynamic: [{ file: %q }]\nservices: { a: { peers: [%q] }, b: { peers: [%q] } }\n", preamble, documents, a, b)
	go func() { verify.NoError(t, os.WriteFile(r.file, []byte(text), 0o600)) }()
	r.run(Options{})
	r.gets("/", "a")
	r.Reload()
	r.awaitLog("configuration unchanged")
	lead("b")
	r.answers("/", "b")
}

func TestKeysThatNeedARestartDoNotChange(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	r := start(t, static("a", a))
	address := r.Address("admin").String()
	r.write(strings.Replace(preamble, "127.0.0.1:0\" }\naccess", "127.0.0.1:1\" }\naccess", 1) + "health: { max_checks: 7 }\n" + static("b", b))
	want := []string{"admin.address", "health.max_checks"}
	verify.DeepEqual(t, r.awaitRevision(2).Pending, want, "pending")
	_, body := r.get("/")
	verify.That(t, body == "b", "the other keys were not applied: got %q", body)
	verify.Equal(t, r.Address("admin").String(), address, "listens on")
	r.write(static("b", b)) // the first values again
	got := r.awaitRevision(3).Pending
	verify.That(t, got == nil, "pending %q", got)
}
