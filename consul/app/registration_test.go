package app

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"sluice/consul"
	"sluice/test/consultest"
	"sluice/test/parallel"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

func TestMain(m *testing.M) {
	parallel.SetDefault(8) // the tests mostly wait for Consul
	goleak.VerifyTestMain(m)
}

// running is a registration whose Run runs.
type running struct {
	*Registration
	log   *subprocess.Output
	leave func()        // ends its context
	ended chan struct{} // closed when Run has returned
	err   error         // of Run
}

// start runs the registration of an application at an address until t ends.
func start(t *testing.T, consulURL, address string, o Options) *running {
	t.Helper()
	r := &running{log: new(subprocess.Output), ended: make(chan struct{})}
	o.Name, o.Consul.Addresses, o.Log = service(t), []string{consulURL}, zerolog.New(r.log)
	host, port, err := net.SplitHostPort(address)
	verify.NoError(t, err)
	if o.Address = host; host == "0.0.0.0" {
		o.Address = ""
	}
	fmt.Sscan(port, &o.Port)
	r.Registration = verify.Result(New(o)).Must(t)
	ctx, cancel := context.WithCancel(context.Background())
	r.leave = cancel
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
	return r
}

// isRegistered reports whether Registered is closed.
func (r *running) isRegistered() bool {
	select {
	case <-r.Registered():
		return true
	default:
		return false
	}
}

// origin is an HTTP server that can be sick, or another service.
type origin struct {
	*httptest.Server
	sick  atomic.Bool
	other atomic.Bool
	asked atomic.Int64
}

func startOrigin(t *testing.T) *origin {
	o := new(origin)
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.asked.Add(1)
		if o.other.Load() {
			w.Header().Set("X-Consul-Service", "moon/moon-1")
		}
		if o.sick.Load() {
			http.Error(w, "sick", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *origin) address() string { return o.Listener.Addr().String() }

// service is the name of the service of t.
func service(t *testing.T) string { return strings.ReplaceAll(t.Name(), "/", ".") }

// entries returns the instances of t's service with their checks, except serfHealth.
func entries(t *testing.T, agent *consultest.Agent) []*api.ServiceEntry {
	list, _, err := agent.Client().Health().Service(service(t), "", false, nil)
	if err != nil {
		return nil
	}
	return list
}

// awaitStatus waits until there is one instance, with this status.
func awaitStatus(t *testing.T, agent *consultest.Agent, status string) *api.ServiceEntry {
	t.Helper()
	var e *api.ServiceEntry
	consultest.Await(t, "one instance is "+status, func() bool {
		list := entries(t, agent)
		if len(list) != 1 || list[0].Checks.AggregatedStatus() != status {
			return false
		}
		e = list[0]
		return true
	})
	return e
}

func awaitNone(t *testing.T, agent *consultest.Agent) {
	t.Helper()
	consultest.Await(t, "Consul has no instance", func() bool {
		list, _, err := agent.Client().Health().Service(service(t), "", false, nil)
		return err == nil && len(list) == 0
	})
}

var healthCheck = Check{Type: HTTP, Path: "/health", Timeout: 30 * time.Second}

func TestRegistration(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	for name, test := range map[string]func(t *testing.T, agent *consultest.Agent){
		"it registers and leaves": registersAndLeaves, "Consul is away at the start": consulIsAwayAtTheStart,
		"TTL": ttlReportsTheCheck, "gRPC": grpcCheck,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, agent)
		})
	}
}

// registersAndLeaves: the application is registered when it passes its check, and deregistered
// before the drain.
func registersAndLeaves(t *testing.T, agent *consultest.Agent) {
	o := startOrigin(t)
	o.sick.Store(true)
	r := start(t, agent.URL(), o.address(), Options{
		Tags: []string{"v1", "b"}, Meta: map[string]string{"zone": "a"}, Weight: 7, Drain: time.Hour, Check: healthCheck,
	})
	consultest.Await(t, "the check is repeated", func() bool { return o.asked.Load() > 3 })
	list := entries(t, agent)
	verify.That(t, len(list) <= 0 && !r.isRegistered(), "it is registered before it works: %v", list)
	o.sick.Store(false)
	e := awaitStatus(t, agent, api.HealthPassing)
	<-r.Registered()
	s := e.Service
	verify.That(t, s.ID == r.ID() && s.Address == "127.0.0.1" && strings.Join(s.Tags, " ") == "v1 b" && s.Meta["zone"] == "a" && s.Weights.Passing == 7,
		"registered %+v", s)

	r.leave()
	awaitNone(t, agent)
	select {
	case <-r.ended:
		t.Error("Run has returned before the end of the drain")
	default:
	}
	r.Cut()
	<-r.ended
	verify.That(t, r.err == nil, "Run: %v", r.err)
}

// consulIsAwayAtTheStart: without Consul the application is not registered, and Run goes on.
func consulIsAwayAtTheStart(t *testing.T, agent *consultest.Agent) {
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	relay.Cut()
	r := start(t, relay.URL(), startOrigin(t).address(), Options{Check: healthCheck, Drain: time.Hour})
	consultest.Await(t, "the log says so", func() bool {
		return strings.Contains(r.log.String(), "cannot register in Consul, will retry; the service runs nevertheless")
	})
	relay.Heal()
	awaitStatus(t, agent, api.HealthPassing)

	// At the end, too: it tries for a while.
	relay.Cut()
	r.leave()
	consultest.Await(t, "the first try fails", func() bool { return strings.Contains(r.log.String(), `"deregistered":false`) })
	relay.Heal()
	awaitNone(t, agent)
}

// ttlReportsTheCheck: with TTL, the process checks the application, and reports.
func ttlReportsTheCheck(t *testing.T, agent *consultest.Agent) {
	o := startOrigin(t)
	check := Check{Type: HTTP, TTL: true, Interval: time.Second, Timeout: time.Second}
	start(t, agent.URL(), o.address(), Options{Check: check})
	awaitStatus(t, agent, api.HealthPassing)
	o.sick.Store(true)
	consultest.Await(t, "it is critical, with the answer", func() bool {
		checks, _ := agent.Client().Agent().Checks() // the catalog has the output later
		for _, c := range checks {
			if c.Status == api.HealthCritical && strings.Contains(c.Output, "http GET /: status 503") {
				return true
			}
		}
		return false
	})
	o.sick.Store(false)
	awaitStatus(t, agent, api.HealthPassing)
}

func grpcCheck(t *testing.T, agent *consultest.Agent) {
	listener := verify.Result(consultest.Listen()).Must(t)
	server, state := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, state)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	defer serving.Wait()
	defer server.Stop()
	state.SetServingStatus("a.B", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	r := start(t, agent.URL(), listener.Addr().String(), Options{Check: Check{Type: GRPC, Service: "a.B", Interval: time.Second, Timeout: 30 * time.Second}})
	consultest.Await(t, "the log says what the check answered", func() bool { return strings.Contains(r.log.String(), "NOT_SERVING") })
	state.SetServingStatus("a.B", grpc_health_v1.HealthCheckResponse_SERVING)
	awaitStatus(t, agent, api.HealthPassing)
	state.SetServingStatus("a.B", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	awaitStatus(t, agent, api.HealthCritical)
}

// The agent advertises 127.0.0.2, and checks at 127.0.0.1. An application that listens
// there only is registered, and warned.
func TestAppThatClientsDoNotReach(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("127.0.0.2 is an address of every Linux")
	}
	agent := consultest.Start(t, consultest.Options{Config: map[string]any{"bind_addr": "127.0.0.2"}})
	for address, reached := range map[string]bool{"127.0.0.1:0": false, "0.0.0.0:0": true} {
		listener := verify.Result(net.Listen("tcp4", address)).Must(t)
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Listener.Close()
		server.Listener = listener
		server.Start()
		defer server.Close()
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		r := start(t, agent.URL(), "0.0.0.0:"+port, Options{Check: Check{Timeout: 30 * time.Second}})
		<-r.Registered()
		if !reached {
			consultest.Await(t, "the log says so", func() bool {
				return strings.Contains(r.log.String(), `"address":"127.0.0.2:`+port+`","answer":"connect: connection refused"`)
			})
		}
		r.reach(t.Context()) // once more, to its end
		warned := strings.Contains(r.log.String(), "the app does not answer at")
		verify.That(t, warned != reached, "at %s it was warned: %v", address, warned)
	}
}

// docs/register.md says what a token must allow.
func TestACLs(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	rules := verify.Result(consultest.DocumentedPolicy("../../docs/register.md", "## Consul")).Must(t)
	_, token, err := agent.NewToken("app", strings.Replace(rules, `"star"`, strconv.Quote(service(t)), 1))
	verify.NoError(t, err)
	r := start(t, agent.URL(), startOrigin(t).address(), Options{Check: healthCheck, Consul: consul.Options{Token: token.SecretID}})
	awaitStatus(t, agent, api.HealthPassing)
	r.leave()
	<-r.ended
	awaitNone(t, agent)
}

// The error says what the check answered last.
func TestStartTimeout(t *testing.T) {
	t.Parallel()
	o := startOrigin(t)
	o.sick.Store(true)
	r := start(t, "http://127.0.0.1:1", o.address(), Options{Check: healthCheck, StartTimeout: time.Second})
	<-r.ended
	want := `the app has not passed its check "http GET /health" at ` + o.address() + " within 1s: "
	verify.That(t, r.err != nil && strings.Contains(r.err.Error(), want), "error %v", r.err)
}

// Another program that has the port does not pass for the application.
func TestAnotherServiceAnswers(t *testing.T) {
	t.Parallel()
	o := startOrigin(t)
	o.other.Store(true)
	options := Options{Name: "star", Address: "127.0.0.1", Port: o.Listener.Addr().(*net.TCPAddr).Port, Check: healthCheck}
	options.Check.Timeout = time.Minute
	r := verify.Result(New(options)).Must(t)
	defer r.client.Close()
	ready, missing := r.works(t.Context())
	verify.That(t, !ready && len(missing) == 1 && missing[0] == `http GET /health: another service answers: "moon/moon-1"`, "got %t, %q", ready, missing)
}

// The context may end before the application works.
func TestLeavesBeforeItWorks(t *testing.T) {
	t.Parallel()
	o := startOrigin(t)
	o.sick.Store(true)
	r := start(t, "http://127.0.0.1:1", o.address(), Options{Check: healthCheck, Drain: time.Hour})
	r.leave()
	<-r.ended
	verify.That(t, r.err == nil, "Run: %v", r.err)
}

// What Consul lists may lack what it should have.
func TestAdvertisedAddressIsNotKnown(t *testing.T) {
	for _, answer := range []string{`[]`, `[null]`, `[{}]`, `[{"Service":{}}]`} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Consul-Index", "1")
			fmt.Fprint(w, answer)
		}))
		r := verify.Result(New(Options{Name: "star", Port: 80, Consul: consul.Options{Addresses: []string{server.URL}}})).Must(t)
		verify.Equal(t, r.advertised(t.Context()), "", "with the answer %s", answer)
		r.client.Close()
		server.Close()
	}
}

// One error says everything that is wrong.
func TestOptionsAreChecked(t *testing.T) {
	_, err := New(Options{
		Name: "a b", Address: "http://x", ID: "a/b", Weight: 70000, Tags: []string{"a\nb"}, Meta: map[string]string{"consul-x": "", "y": strings.Repeat("x", 513)},
		Port: 70000, DeregisterAfter: time.Second, StartTimeout: -1, Drain: -1,
		Check: Check{Type: TCP, Path: "health", TLS: true, TTL: true, Interval: time.Millisecond, Timeout: time.Hour},
	})
	verify.Require(t, err != nil, "no error")
	for _, want := range []string{
		`name "a b": want up to 128 letters`, `id "a/b"`, "port 70000: want a number from 1 to 65535",
		`address "http://x": want a host name or an IP address, without a port`, "weight 70000", `tag "a\nb"`, `meta "consul-x"`, `meta "y": a value of 513 bytes`,
		"deregister after 1s: want at least 1m0s", "start timeout", "drain", `path "health"`, "TLS is for checks of type http and grpc",
		"check interval 1ms", "check timeout 1h0m0s: want 100ms to 1m", "with TTL, want at most the interval",
	} {
		verify.That(t, strings.Contains(err.Error(), want), "%q is not in:\n%v", want, err)
	}
}

func TestDefaults(t *testing.T) {
	for _, c := range []struct {
		given    Check
		kind     CheckType
		ttl      bool
		interval time.Duration
	}{
		{Check{}, TCP, false, DefaultInterval},
		{Check{Type: HTTP}, HTTP, false, DefaultInterval},
		{Check{TTL: true}, None, true, DefaultReportInterval},
		{Check{Type: None}, None, true, DefaultReportInterval},
		{Check{Type: GRPC, TTL: true}, GRPC, true, DefaultReportInterval},
	} {
		got := (Options{Check: c.given}).withDefaults().Check
		verify.That(t, got.Type == c.kind && got.TTL == c.ttl && got.Interval == c.interval, "%+v: got %+v", c.given, got)
	}
}

func TestIDs(t *testing.T) {
	for want, o := range map[string]Options{
		"star-web1-80":     {},
		"star-10.0.0.1-80": {Address: "10.0.0.1"},
		"star-fd00--1-80":  {Address: "fd00::1"},
		"mine":             {ID: "mine"},
	} {
		o.Name, o.Port = "star", 80
		verify.Equal(t, o.settings("web1").ID, want, "result")
	}
}

// An application that listens on one address only is not sick because a name cannot be resolved.
func TestCheckedAddressWhileTheAgentsNameIsUnknown(t *testing.T) {
	r := verify.Result(New(Options{Name: "star", Port: 80, Consul: consul.Options{Addresses: []string{"http://consul.example:8500"}}})).Must(t)
	for _, local := range []string{"10.0.0.7", "", "10.0.0.8", ""} {
		r.registrar.Outbound = func(string) string { return local }
		if local != "" {
			verify.Equal(t, r.CheckedAddress(), local+":80", "the address")
		}
		verify.That(t, r.CheckedAddress() != "127.0.0.1:80", "the address is another one after a failed look-up")
	}
}

// The agent has lost the registration. It gets one with the present status.
func TestAgentRestartedEmpty(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	o := startOrigin(t)
	check := healthCheck
	check.Interval = time.Hour
	start(t, agent.URL(), o.address(), Options{Check: check})
	awaitStatus(t, agent, api.HealthPassing)
	for _, status := range []string{api.HealthPassing, api.HealthCritical} {
		o.sick.Store(status == api.HealthCritical)
		verify.NoError(t, agent.Restart(t.Context()))
		awaitStatus(t, agent, status)
	}
}
