package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/config"
	"sluice/observe/panics"
	"sluice/test/consultest"
	"sluice/test/tracetest"
	"sluice/test/verify"
)

// listening returns a configuration with these listeners, as YAML, and one service.
func listening(peer string, listeners ...string) string {
	return fmt.Sprintf("listeners: [%s]\nshutdown: { idle: 100ms }\nservices: { a: { peers: [%q] } }\nroutes: [{ service: a }]\n",
		strings.Join(listeners, ", "), peer)
}

// load sends requests to a listener over two persistent connections and over new ones until stop,
// which returns how many were answered, and reports each that fails.
func (r *running) load(listener string) (stop func() (requests int)) {
	ctx, cancel := context.WithCancel(context.Background())
	url, answered := r.url(listener), new(atomic.Int64)
	var running sync.WaitGroup
	for _, fresh := range []bool{false, false, true} {
		client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: fresh}}
		running.Go(func() {
			defer client.CloseIdleConnections()
			for pace := time.Tick(4 * time.Millisecond); ctx.Err() == nil; <-pace {
				status, body := read(client.Get(url))
				if status == 0 {
					r.t.Errorf("%s: request %d: %s", url, answered.Load(), body)
					return
				}
				verify.That(r.t, status == http.StatusOK, "%s: request %d: %d %q", url, answered.Load(), status, body)
				answered.Add(1)
			}
		})
	}
	return func() int { cancel(); running.Wait(); return int(answered.Load()) }
}

// slowOrigin starts a server whose answer "slow" to the only request that arrives waits for finish.
func slowOrigin(t *testing.T) (address string, arrived <-chan struct{}, finish func()) {
	t.Helper()
	came, finished := make(chan struct{}), make(chan struct{})
	address = serveOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		close(came)
		<-finished
		io.WriteString(w, "slow")
	})
	finish = sync.OnceFunc(func() { close(finished) })
	t.Cleanup(finish) // before the server is closed, which waits for the request
	return address, came, finish
}

// Listeners are added, renamed and removed during requests to them and to others.
func TestListenersChangeUnderLoad(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	const web = "{ name: web, address: '127.0.0.1:0' }"
	port := consultest.ReservePort(t)
	second := fmt.Sprintf("{ name: second, address: '127.0.0.2:%d' }", port)
	r := start(t, listening(a, web))
	address := r.Address("web")
	stopWeb := r.load("web")
	r.replace(listening(a, web, second))
	stopSecond := r.load("second")
	socket := r.Address("second")
	r.replace(listening(a, web, strings.Replace(second, "second", "renamed", 1)))
	got := r.Address("renamed")
	verify.That(t, got == socket && r.Address("second") == nil, "a renamed listener is at %v, want %v", got, socket)
	for n := range 20 {
		r.replace(listening(a, web, fmt.Sprintf("{ name: renamed%d, address: '127.0.0.2:%d' }", n, port)))
	}
	verify.That(t, stopSecond() != 0, "no request at the second listener")

	// Its requests finish, and it accepts no others.
	idle := verify.Result(net.Dial("tcp", socket.String())).Must(t)
	defer idle.Close()
	fmt.Fprint(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	verify.Result(idle.Read(make([]byte, 4096))).Must(t)
	verify.NoError(t, idle.SetReadDeadline(time.Now().Add(patience)))
	r.replace(listening(a, web))
	rest, err := io.ReadAll(idle)
	verify.That(t, err == nil && len(rest) == 0, "an idle connection of a removed listener: %q, %v", rest, err)
	r.awaitRefused(socket)
	verify.Equal(t, r.Address("web"), address, "the other listener")
	verify.That(t, stopWeb() != 0, "no request at the first listener")
	r.replace(listening(a, strings.Replace(web, "web", "other", 1)))
	got = r.Address("other")
	verify.That(t, got != nil && got != address, "a listener with another name and no port has the address %v of the first", got)
}

// Routes for a listener get the requests of all connections to its address, also of those that were
// open when it got its name, and never those of connections to another address.
func TestRoutesForARenamedListener(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	listener := func(host int, name string) string {
		return fmt.Sprintf("{ name: %s, address: '127.0.0.%d:%d' }", name, host, consultest.ReservePort(t))
	}
	of := func(name string, listeners ...string) string {
		return strings.Replace(listening(a, listeners...), "[{ service: a }]", "[{ service: a, listeners: ["+name+"] }]", 1)
	}
	first := listener(1, "web")
	named := func(name string) string { return strings.Replace(first, "web", name, 1) }
	r := start(t, of("web", first))
	open := r.url("web")
	stop := r.load("web")
	for n := range 20 {
		name := fmt.Sprintf("web%d", n)
		r.replace(of(name, named(name)))
	}
	verify.That(t, stop() != 0, "no request at the renamed listener")

	r.replace(of("web", first))
	client := &http.Client{Timeout: patience, Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	get := func(url string) int {
		status, _ := read(client.Get(url))
		return status
	}
	verify.Equal(t, get(open), http.StatusOK, "an open connection")
	r.replace(of("web", named("public"), listener(2, "web")))
	verify.Equal(t, get(r.url("web")), http.StatusOK, "a connection to the listener that has the name now")
	verify.Equal(t, get(open), http.StatusNotFound, "an open connection to the listener that had it")
}

func TestRefusedRevisionChangesNothing(t *testing.T) {
	t.Parallel()
	a, b := origin(t, "a"), origin(t, "b")
	taken := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	defer taken.Close()
	const web, other = "{ name: web, address: '127.0.0.1:0' }", "{ name: new, address: '127.0.0.2:0' }"
	r := start(t, listening(a, web))
	_, port, _ := net.SplitHostPort(r.Address("web").String())
	missing := filepath.Join(t.TempDir(), "missing", "file")
	for n, bad := range []struct{ text, message string }{
		{listening(b, other, fmt.Sprintf("{ name: taken, address: %q }", taken.Addr())), `listener \"taken\": `},
		{listening(b, "{ name: every, address: ':"+port+"' }"), `in use by listener \"web\" of this sluice`},
		{listening(b, web, other) + "access_log: { path: " + missing + " }", "access log: open"},
		{listening(b, web, other) + "admin: { address: '127.0.0.1:0', token_file: " + missing + " }", "admin.token_file: open"},
		{strings.Replace(listening(b, web, other), "peers:", "health: { active: { type: tcp, tls: { ca: "+missing+" } } }, peers:", 1), `service \"a\": health.active.tls: trusted certificates: `},
	} {
		r.write(bad.text)
		r.await("the reload is refused", func() bool { return r.history.Reloads().Refused > uint64(n) })
		r.awaitLog(bad.message)
		verify.That(t, len(r.listeners.all()) == 1 && r.Address("web") != nil, "%s: other listeners", bad.message)
		r.gets("/", "a", bad.message)
		verify.Equal(t, r.api("/api/services", new([]any)), http.StatusOK, "%s: the token of the admin API has changed", bad.message)
	}
}

func TestAccessLogChanges(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	dir := t.TempDir()
	text := func(path, more string) string {
		return static("a", a) + fmt.Sprintf("access_log: { path: %q%s }\n", path, more)
	}
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	r := start(t, text(first, ""))
	stop := r.load("web")
	lines := func(path string) int {
		data := verify.Result(os.ReadFile(path)).Must(t)
		return strings.Count(string(data), "\n")
	}
	r.awaitStatus("/", http.StatusOK)
	r.await("its line", func() bool { return lines(first) > 0 }) // a request is logged after its answer
	r.replace(text(second, ""))
	r.get("/")
	requests := stop() + 2
	r.replace(text(second, ", format: combined"))
	r.get("/combined")
	r.await("a line for each request", func() bool { return lines(first)+lines(second) >= requests+1 })
	r.replace(text("off", ""))
	r.get("/")
	one, two := lines(first), lines(second)
	verify.That(t, one != 0 && two >= 2 && one+two == requests+1, "%d and %d lines for %d requests", one, two, requests+1)
	data, err := os.ReadFile(second)
	verify.That(t, err == nil && strings.Contains(string(data), `"GET /combined HTTP/1.1" 200`), "the second log lacks a line of the other format: %v", err)
}

// Whom sluice believes changes with the routes, which say whom they let in: not while a reload
// waits for what new routes need.
func TestTrustedProxiesChangeWithTheRoutes(t *testing.T) {
	t.Parallel()
	a, i := origin(t, "a"), startIssuer(t)
	text := func(proxies, allowed, more string) string {
		return fmt.Sprintf("client: { trusted_proxies: [%s] }\nservices: { star: { peers: [%q] } }\nroutes: [{ service: star, allow: [%s] }%s]\n", proxies, a, allowed, more)
	}
	r := start(t, text("", "127.0.0.0/8", ""))
	status := func(client string) int {
		status, _ := r.send(http.MethodGet, r.url("web")+"/", "X-Forwarded-For", client)
		return status
	}
	verify.Equal(t, status("192.0.2.1"), http.StatusOK, "before")
	h := &held{asked: make(chan struct{}), answer: make(chan struct{})}
	i.held.Store(h)
	number := r.history.Current().Number
	r.write(text("127.0.0.1", "192.0.2.1", ", "+i.route("/jwt")))
	r.Reload()
	<-h.asked
	verify.Equal(t, status("192.0.2.1"), http.StatusOK, "while the reload waits for keys")
	close(h.answer)
	r.awaitRevision(number + 1)
	verify.Equal(t, status("192.0.2.1"), http.StatusOK, "afterwards")
	verify.Equal(t, status("192.0.2.2"), http.StatusForbidden, "afterwards, another client")
}

// awaitRefused waits until nobody accepts connections at the address. A program that another test
// starts has a copy of each socket until it runs.
func (r *running) awaitRefused(address net.Addr) {
	r.t.Helper()
	r.await(fmt.Sprint(address, " refuses connections"), func() bool {
		conn, err := net.Dial(address.Network(), address.String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}

// The collector changes live, and what was recorded for the earlier one gets there.
func TestCollectorChanges(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	first, second := tracetest.Start(t), tracetest.Start(t)
	text := func(tracing string) string {
		return listening(a, "{ name: web, address: '127.0.0.1:0' }") + "tracing: { " + tracing + " }\n"
	}
	to := func(c *tracetest.Collector, service string) string {
		return text(fmt.Sprintf("otlp: %q, sample: 100%%, service_name: %s, headers: ['X-Token: t']", c.URL, service))
	}
	r := start(t, to(first, "one"))
	r.awaitStatus("/", http.StatusOK)
	r.await("spans of the first", func() bool { return len(first.Spans()) > 0 }) // a request is recorded after its answer
	r.replace(to(second, "two"))
	r.get("/")
	r.await("spans of the second", func() bool { return len(second.Spans()) > 0 })
	for want, c := range map[string]*tracetest.Collector{"one": first, "two": second} {
		if got := c.Resource(); got["service.name"] != want || got["service.version"] != "test" || c.Header("X-Token") != "t" {
			t.Errorf("got %v with the token %q, want the service %s", got, c.Header("X-Token"), want)
		}
	}
}

// A reload that panics leaves no socket open: the next one binds it.
func TestAReloadThatPanics(t *testing.T) {
	panics.Fatal.Store(false)
	defer panics.Fatal.Store(true)
	a := origin(t, "a")
	const web = "{ name: web, address: '127.0.0.1:0' }"
	r := newRunning(t, listening(a, web))
	var fault atomic.Bool
	var opened []net.Listener // so that none is closed because nobody knows it
	r.run(Options{Listen: func(_, network, address string) (net.Listener, error) {
		l, err := net.Listen(network, address)
		opened = append(opened, l)
		return l, err
	}}, func(g *Gateway) {
		inUse := g.registries.config
		g.registries.config = func() *config.Config {
			if fault.Load() {
				panic("a fault")
			}
			return inUse()
		}
	})
	r.answers("/", "a")
	fault.Store(true)
	r.write(listening(a, web, fmt.Sprintf("{ name: more, address: '127.0.0.1:%d' }", consultest.ReservePort(t))))
	r.awaitLog("a fault")
	fault.Store(false)
	r.await("the next reload has effect", func() bool {
		r.Reload()
		return r.Address("more") != nil
	})
}
