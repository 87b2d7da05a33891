package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"sluice/admin"
	"sluice/config"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/parallel"
	"sluice/test/proof"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// Tests that neither stop Consul nor need an empty one share one, or one with ACLs.
var shared, sharedWithACLs = consultest.Shared{}, consultest.Shared{ACLs: true}

// suite ends what tests share before goleak looks for goroutines.
type suite struct{ *testing.M }

func (s suite) Run() (status int) {
	status = s.M.Run()
	if err := errors.Join(shared.Close(), sharedWithACLs.Close()); err != nil {
		fmt.Fprintln(os.Stderr, "close consul:", err)
		status = 1
	}
	return status
}

func TestMain(m *testing.M) {
	parallel.SetDefault(24) // the tests mostly wait
	// fasthttp, a dependency of accesslog and proxy, never ends this goroutine.
	goleak.VerifyTestMain(suite{m},
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		// certmagic keeps a rate limiter for each account, and a lock file fresh until
		// it finds it removed.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"),
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
	)
}

// patience limits each wait of these tests, far above the time that a step takes.
const patience = 30 * time.Second

// running is a gateway that serves, and its configuration file.
type running struct {
	*Gateway
	t      *testing.T
	file   string
	log    *subprocess.Output
	client *http.Client
	stop   context.CancelFunc
	listen func(name, network, address string) (net.Listener, error) // see Options.Listen; that of newer processes too
	// See there; nil: it has none.
	port  *passedPort
	ended chan struct{} // closed when Run has returned
	err   error         // what it returned
}

// brokenRule begins a line in the log of a gateway whose pools have not kept a rule.
const brokenRule = "a rule of the balancer was not kept:"

// checkLog: the log has no panic and no rule of the balancer that was not kept.
func (r *running) checkLog() {
	for line := range strings.Lines(r.log.String()) {
		if strings.Contains(line, "sluice has panicked") || strings.Contains(line, brokenRule) {
			r.t.Errorf("the log has: %s", line)
		}
	}
}

// preamble configures listeners with free ports on loopback. Services wait long for a connection:
// the machine may be busy.
const preamble = `
listeners: [{ name: web, address: "127.0.0.1:0" }]
admin: { address: "127.0.0.1:0" }
access_log: { path: "off" }
defaults: { service: { timeouts: { connect: 5m } } }
`

// start runs a gateway with the configuration until the test ends, after a call of each of set. The
// first clients wait until all services have their first set.
func start(t *testing.T, text string, set ...func(*Gateway)) *running {
	t.Helper()
	r := newRunning(t, text)
	r.run(Options{}, set...)
	return r
}

// startWithin is start, but the first clients wait at most for timeout.
func startWithin(t *testing.T, text string, timeout time.Duration) *running {
	t.Helper()
	return start(t, text, func(g *Gateway) { g.waits.start = timeout })
}

// newRunning writes the file of a gateway, which run starts.
func newRunning(t *testing.T, text string) *running {
	t.Helper()
	r := &running{
		t:     t,
		file:  filepath.Join(t.TempDir(), "sluice.yaml"),
		log:   new(subprocess.Output),
		ended: make(chan struct{}),
		client: &http.Client{
			Timeout:   patience,
			Transport: &http.Transport{DisableKeepAlives: true},
		},
	}
	r.write(text)
	return r
}

// run runs the gateway with the functions in o for other processes, after a call of each of set.
func (r *running) run(o Options, set ...func(*Gateway)) {
	t := r.t
	t.Helper()
	o.Input, o.Version, o.Log = config.Input{File: r.file}, "test", r.log
	if o.Listen == nil {
		o.Listen = r.listen
	}
	if r.port != nil {
		o.Listen, o.ListenPacket, o.ReleasePacket = r.port.listen, r.port.listenPacket, r.port.releasePacket
	}
	o.Witness = proof.New(func(text string) { fmt.Fprintln(r.log, brokenRule, text) }).Witness
	var err error
	if r.Gateway, err = New(o); err != nil {
		t.Fatal(err)
	}
	r.waits.start, r.waits.warm = 10*patience, 10*patience // a test may be slow in between
	for _, f := range set {
		f(r.Gateway)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() {
		defer close(r.ended)
		r.err = r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		r.Cut()
		<-r.ended
		if t.Failed() {
			t.Logf("log:\n%s", r.log)
		}
	})
}

// write replaces the configuration file atomically. It adds what the text lacks of preamble, and
// allow_local if others name peers.
func (r *running) write(text string) {
	r.t.Helper()
	text = strings.TrimRight(text, "\n") + "\n"
	for line := range strings.Lines(preamble[1:]) {
		if key, _, _ := strings.Cut(line, ":"); !strings.Contains("\n"+text, "\n"+key+":") {
			text += line
		}
	}
	others := regexp.MustCompile(`\b(dynamic|etcd|dns|consul_kv):`)
	if !strings.Contains(text, "discovery:") && others.MatchString(text) {
		text += "discovery: { allow_local: true } # origins have loopback addresses\n"
	}
	replaceFile(r.t, r.file, text)
}

// replaceFile writes a file that nobody reads a part of.
func replaceFile(t *testing.T, file, text string) {
	t.Helper()
	verify.NoError(t, os.WriteFile(file+"~", []byte(text), 0o600))
	verify.NoError(t, os.Rename(file+"~", file))
}

// gets checks that a request is answered with status 200 and this body; when is for the message.
func (r *running) gets(url, want string, when ...string) {
	r.t.Helper()
	status, body := r.get(url)
	verify.That(r.t, status == http.StatusOK && body == want, "%s %s: got %d %q, want %q", when, url, status, body, want)
}

// refuses checks that a request is answered with this status.
func (r *running) refuses(url string, want int, when ...string) {
	r.t.Helper()
	status, body := r.get(url)
	verify.That(r.t, status == want, "%s %s: got %d %q, want %d", when, url, status, body, want)
}

// awaitStatus waits until a request is answered with this status.
func (r *running) awaitStatus(url string, want int) {
	r.t.Helper()
	r.await(fmt.Sprintf("%s gets %d", url, want), func() bool { status, _ := r.get(url); return status == want })
}

// answers waits until a request is answered with status 200 and this body.
func (r *running) answers(path, want string) {
	r.t.Helper()
	r.await(fmt.Sprintf("%s answers %q", path, want), func() bool {
		status, body := r.get(path)
		return status == http.StatusOK && body == want
	})
}

// get asks the proxy for a path, or for "host/path".
func (r *running) get(url string) (status int, body string) {
	r.t.Helper()
	host, path, _ := strings.Cut(url, "/")
	return r.send(http.MethodGet, r.url("web")+"/"+path, "Host", host)
}

// url returns the URL of a listener without TLS.
func (r *running) url(listener string) string { return "http://" + r.Address(listener).String() }

// Address returns the address of a listener, or nil.
func (r *running) Address(name string) net.Addr {
	if name == adminName {
		return r.listeners.admin.Addr()
	}
	for _, l := range r.listeners.all() {
		if l.config.Name == name {
			return l.Addr()
		}
	}
	return nil
}

// send sends a request without a body: see request.
func (r *running) send(method, url string, header ...string) (status int, body string) {
	r.t.Helper()
	got := r.do(r.request(method, url, nil, header...))
	return got.StatusCode, got.body
}

// request returns a request, whose header fields are alternating names and values.
func (r *running) request(method, url string, body io.Reader, header ...string) *http.Request {
	r.t.Helper()
	request := verify.Result(http.NewRequest(method, url, body)).Must(r.t)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	request.Host = cmp.Or(request.Header.Get("Host"), request.Host)
	return request
}

// A reply is an answer with its body.
type reply struct {
	*http.Response
	body string
}

// do sends a request, which must be answered.
func (r *running) do(request *http.Request) reply {
	r.t.Helper()
	response := verify.Result(r.client.Do(request)).Must(r.t)
	defer response.Body.Close()
	return reply{response, string(verify.Result(io.ReadAll(response.Body)).Must(r.t))}
}

// api queries the admin API, checks the response against its OpenAPI document, and decodes it
// into v.
func (r *running) api(path string, v any) (status int) {
	r.t.Helper()
	answer := r.askAdmin(http.MethodGet, path)
	err := json.Unmarshal(answer.Body, v)
	verify.Require(r.t, err == nil, "%s: %v\n%s", path, err, answer.Body)
	return answer.Status
}

// fetch returns an answer of the admin API, whatever its status.
func fetch[T any](r *running, path string) (v T) {
	r.t.Helper()
	r.api(path, &v)
	return v
}

// peers returns the peers of the admin API by address.
func (r *running) peers() map[string]admin.Peer {
	r.t.Helper()
	peers := make(map[string]admin.Peer)
	for _, p := range fetch[[]admin.Peer](r, "/api/peers") {
		peers[p.Address] = p
	}
	return peers
}

// await waits until condition returns true.
func (r *running) await(what string, condition func() bool) {
	r.t.Helper()
	consultest.Await(r.t, what, condition)
}

// awaitLog waits until the log has a text.
func (r *running) awaitLog(text string) {
	r.t.Helper()
	r.await("the log has "+text, func() bool { return strings.Contains(r.log.String(), text) })
}

// readyz returns what /readyz answers.
func (r *running) readyz() (status int, v admin.Readiness) {
	r.t.Helper()
	status = r.api("/readyz", &v)
	return status, v
}

// awaitReady waits until sluice is ready, and returns what it says then.
func (r *running) awaitReady() (v admin.Readiness) {
	r.t.Helper()
	r.await("readiness", func() (ready bool) { var status int; status, v = r.readyz(); return status == http.StatusOK })
	return v
}

// awaitRevision waits until a revision with this number or a later one is in use.
func (r *running) awaitRevision(number uint64) config.Revision {
	r.t.Helper()
	r.await(fmt.Sprintf("configuration %d is in use", number), func() bool { return r.history.Current().Number >= number })
	return r.history.Current()
}

// replace replaces the configuration file, asks for a reload, and waits until the new
// configuration is in use.
func (r *running) replace(text string) config.Revision {
	r.t.Helper()
	number := r.history.Current().Number
	r.write(text)
	r.Reload()
	return r.awaitRevision(number + 1)
}

// origin starts a server that answers all requests with name.
func origin(t *testing.T, name string) (address string) {
	t.Helper()
	return serveOrigin(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })
}

func serveOrigin(t *testing.T, handler http.HandlerFunc) (address string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// port returns the port of an address.
func port(t *testing.T, address string) int {
	t.Helper()
	return int(verify.Result(netip.ParseAddrPort(address)).Must(t).Port())
}

// startStar starts a Consul with an instance star-1 of the service star for each of these origins,
// and returns their addresses.
func startStar(t *testing.T, origins ...string) (consul *discoverytest.Consul, addresses []string) {
	t.Helper()
	consul = discoverytest.Start(t)
	var set []*api.ServiceEntry
	for n, name := range origins {
		addresses = append(addresses, origin(t, name))
		set = append(set, star(t, n+1, addresses[n]))
	}
	consul.Set("star", set...)
	return consul, addresses
}

// star returns the instance of star with this number at address.
func star(t *testing.T, n int, address string) *api.ServiceEntry {
	t.Helper()
	return discoverytest.Instance("star", fmt.Sprint("star-", n), port(t, address))
}

// static returns a configuration with a service for each pair of a name and an address. The
// first one has the route /, the others have routes with their names.
func static(pairs ...string) string {
	var services, routes strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&services, "  %s: { peers: [%q] }\n", pairs[i], pairs[i+1])
		path := "/" + pairs[i]
		if i == 0 {
			path = "/"
		}
		fmt.Fprintf(&routes, "  - { path: %s, service: %s }\n", path, pairs[i])
	}
	return "services:\n" + services.String() + "routes:\n" + routes.String()
}

// gatedConsul starts a Consul that answers after a call of answer.
func gatedConsul(t *testing.T, consul *discoverytest.Consul) (address string, asked <-chan struct{}, answer func()) {
	t.Helper()
	queries, gate := make(chan struct{}, 100), make(chan struct{})
	answer = sync.OnceFunc(func() { close(gate) })
	address = serveOrigin(t, func(w http.ResponseWriter, request *http.Request) {
		queries <- struct{}{}
		<-gate
		consul.ServeHTTP(w, request)
	})
	t.Cleanup(answer)
	return address, queries, answer
}

func TestFirstRequestFindsPeers(t *testing.T) {
	t.Parallel()
	consul := discoverytest.New()
	a := origin(t, "a")
	consul.Set("a", discoverytest.Instance("a", "a-1", port(t, a)))
	address, asked, answer := gatedConsul(t, consul)
	r := start(t, preamble+"consul: { addresses: ["+address+"] }\nservices: { a: { consul: {} } }\nroutes: [{ service: a }]")
	<-asked
	var status int
	var request sync.WaitGroup
	request.Go(func() { status, _ = r.get("/") })
	time.AfterFunc(50*time.Millisecond, answer) // the time in which the request could fail
	request.Wait()
	verify.Equal(t, status, 200, "status")
}

func TestFailedStartClosesEverything(t *testing.T) {
	t.Parallel()
	taken := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	text := fmt.Sprintf("listeners: [{ name: web, address: %q }]\nadmin: { address: '127.0.0.1:0' }\n", taken.Addr()) + static("a", "127.0.0.1:1")
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	_, err := New(Options{Input: config.Input{File: file}, Log: new(subprocess.Output)})
	want := fmt.Sprintf(`listener "web": %s is in use by another process`, taken.Addr())
	verify.That(t, err != nil && err.Error() == want, "got  %v\nwant %s", err, want)
	// goleak in TestMain reports goroutines that still run.
}
