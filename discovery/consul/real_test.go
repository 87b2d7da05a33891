package consul

import (
	"cmp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/consul"
	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// patience is the timeout for changes by a real Consul on a busy machine. It is longer than
// a probation.
const patience = consultest.Patience

// recorder records the last set of a service.
type recorder struct {
	t       *testing.T
	manager *discovery.Manager
	sets    chan []discovery.Instance
}

// watchReal watches o at agent until t ends.
func watchReal(t *testing.T, agent *consultest.Agent, o ServiceOptions) *recorder {
	t.Helper()
	return watchRealWith(t, agent, "", o)
}

func watchRealWith(t *testing.T, agent *consultest.Agent, token string, o ServiceOptions) *recorder {
	t.Helper()
	return recordClient(t, clientOf(t, agent, token), o)
}

// clientOf returns a client of an agent, until t ends.
func clientOf(t *testing.T, agent *consultest.Agent, token string) *testClient {
	t.Helper()
	return realClient(t, consul.Options{Addresses: []string{agent.URL()}, Token: token})
}

func realClient(t *testing.T, o consul.Options) *testClient {
	t.Helper()
	o.Log = zerolog.New(zerolog.NewTestWriter(t))
	client := verify.Result(newClient(o)).Must(t)
	t.Cleanup(client.Close)
	return client
}

// recordClient watches o with client until t ends. By default, a query blocks for longer
// than the test waits, so that no change is seen because a wait has ended.
func recordClient(t *testing.T, client *testClient, o ServiceOptions) *recorder {
	t.Helper()
	o.Wait = cmp.Or(o.Wait, maxWait)
	r := &recorder{t: t, sets: make(chan []discovery.Instance, 1000)}
	r.manager = discovery.NewManager(discovery.ManagerOptions{
		Sink: func(set discovery.Set) { r.sets <- set.Instances },
	})
	r.manager.Watch(o.Service, client.Source(o))
	run(t, r.manager)
	return r
}

// await waits for the set in the notation of formatSet, and returns it.
func (r *recorder) await(want string) []discovery.Instance {
	r.t.Helper()
	return r.awaitAs(formatSet, want)
}

// awaitAs is await for a set that is written in another way.
func (r *recorder) awaitAs(format func([]discovery.Instance) string, want string) []discovery.Instance {
	r.t.Helper()
	deadline := time.After(patience)
	last := "nothing"
	for {
		select {
		case set := <-r.sets:
			if last = format(set); last == want {
				return set
			}
		case <-deadline:
			r.t.Fatalf("last set of Sink %q, want %q; status %+v", last, want, r.manager.Statuses())
		}
	}
}

// awaitStatus waits until the watch's status is ok.
func (r *recorder) awaitStatus(what string, ok func(discovery.WatchStatus) bool) {
	r.t.Helper()
	consultest.Await(r.t, what, func() bool { return ok(r.manager.Statuses()[0]) })
}

// awaitError waits until the watch fails with an error that contains text.
func (r *recorder) awaitError(text string) {
	r.t.Helper()
	r.awaitStatus("failing: "+text, func(s discovery.WatchStatus) bool {
		return s.State != discovery.WatchFresh && s.Errors > 0 && strings.Contains(s.LastError, text)
	})
}

// awaitFresh waits until the watch is fresh, after more queries than before.
func (r *recorder) awaitFresh(before uint64) {
	r.t.Helper()
	r.awaitStatus("fresh", func(s discovery.WatchStatus) bool { return s.State == discovery.WatchFresh && s.Queries > before })
}

// quiet fails if Sink got a set that await has not taken.
func (r *recorder) quiet() {
	r.t.Helper()
	select {
	case set := <-r.sets:
		r.t.Errorf("Sink got %q", formatSet(set))
	default:
	}
}

// registerTTL registers a passing instance with a TTL check. Ids are unique per
// agent, not per service.
func registerTTL(t *testing.T, agent *consultest.Agent, service, id string, port int, change func(*api.AgentServiceRegistration)) {
	t.Helper()
	r := &api.AgentServiceRegistration{
		Name: service, ID: id, Address: "127.0.0.1", Port: port,
		Check: &api.AgentServiceCheck{CheckID: "check-" + service + "-" + id, TTL: "1h", Status: api.HealthPassing},
	}
	if change != nil {
		change(r)
	}
	err := agent.Client().Agent().ServiceRegister(r)
	verify.Require(t, err == nil, "register %s: %v", id, err)
}

// TestRealConsul tests the life of an instance on a dev agent.
func TestRealConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{Node: "node-1"})
	local := agent.Client().Agent()

	t.Run("registration, failure, deregistration", func(t *testing.T) {
		r := watchReal(t, agent, ServiceOptions{Service: "star"})
		r.await("")
		registerTTL(t, agent, "star", "a", 8001, func(r *api.AgentServiceRegistration) {
			r.Tags, r.Meta, r.Weights = []string{"v1"}, map[string]string{"zone": "eu"}, &api.AgentWeights{Passing: 10, Warning: 3}
		})
		set := r.await("a")
		want := discovery.Instance{Service: "star", ID: "a", Node: "node-1", Address: "127.0.0.1", Port: 8001, NodeAddress: "127.0.0.1",
			Tags: []string{"v1"}, Meta: map[string]string{"zone": "eu"}, Weight: 10, Datacenter: "dc1"}
		verify.That(t, set[0].Equal(want), "got %+v, want %+v", set[0], want)
		registerTTL(t, agent, "star", "b", 0, func(r *api.AgentServiceRegistration) {
			r.Ports = api.ServicePorts{{Name: "http", Port: 8002, Default: true}, {Name: "admin", Port: 9001}}
		})
		verify.Equal(t, r.await("a b")[1].Port, 8002, "the default port")

		verify.NoError(t, local.UpdateTTL("check-star-a", "slow", api.HealthWarning))
		verify.Equal(t, r.await("a:warning b")[0].Weight, 3, "weight with a warning")
		verify.NoError(t, local.EnableServiceMaintenance("b", "disk swap"))
		verify.Equal(t, r.await("a:warning b:maintenance")[1].Detail, "service maintenance: disk swap", "detail")
		verify.NoError(t, local.DisableServiceMaintenance("b"))
		r.await("a:warning b")
		verify.NoError(t, local.UpdateTTL("check-star-a", "refused", api.HealthCritical))
		a := r.await("a:critical b")[0]
		verify.That(t, a.Detail == "Service 'star' check: refused" && a.Weight == 0, "a critical instance: %+v", a)
		verify.NoError(t, local.UpdateTTL("check-star-a", "", api.HealthPassing))
		r.await("a b")
		verify.NoError(t, local.ServiceDeregister("a"))
		r.await("b")
		r.quiet()
	})

	t.Run("ids in a filter", func(t *testing.T) { idsInAFilter(t, agent) })
	t.Run("registered again without the tag", func(t *testing.T) { registeredAgainWithoutTheTag(t, agent) })
	t.Run("registered again with a check that fails", func(t *testing.T) { registeredAgainWithAFailingCheck(t, agent) })
	t.Run("the catalog", func(t *testing.T) { catalogIsFollowed(t, agent) })
}

func TestRealACLs(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	t.Run("permissions are removed", func(t *testing.T) { permissionsAreRemoved(t, agent) })
	t.Run("ACLs hide one instance", func(t *testing.T) { aclsHideOneInstance(t, agent) })
	t.Run("distances need no permission", func(t *testing.T) { distancesNeedNoPermission(t, agent) })
}

// permissionsAreRemoved removes permissions from a token, and then the token. A streaming answer is
// empty then, with the index of the last change.
func permissionsAreRemoved(t *testing.T, agent *consultest.Agent) {
	acl := agent.Client().ACL()
	policy, token, err := agent.NewToken("sluice", leastPrivilege(t))
	verify.NoError(t, err)
	registerTTL(t, agent, "star", "a", 8001, nil)

	r := watchRealWith(t, agent, token.SecretID, ServiceOptions{Service: "star", Wait: time.Second})
	r.await("a")
	r.awaitFresh(1)

	for _, rules := range []string{`service "star" { policy = "read" }`, `node_prefix "" { policy = "read" }`} {
		policy.Rules = rules
		_, _, err = acl.PolicyUpdate(policy, nil)
		verify.NoError(t, err)
		r.awaitError(`filtered by ACLs: the token lacks service:read for "star"`)
		policy.Rules = leastPrivilege(t)
		_, _, err = acl.PolicyUpdate(policy, nil)
		verify.NoError(t, err)
		r.awaitFresh(0)
	}

	verify.Result(acl.TokenDelete(token.AccessorID, nil)).Must(t)
	r.awaitError("403 Forbidden: the token is not valid")
	r.quiet()
}

// leastPrivilege is the policy for the service star, as in the documentation.
func leastPrivilege(t *testing.T) string {
	t.Helper()
	return verify.Result(consultest.DocumentedPolicy("../../docs/consul.md", "## ACLs")).Must(t)
}

// An agent defers the output of a check that has never passed by minutes. What Consul lost in
// service gets no requests once that check must have run.
func registeredAgainWithAFailingCheck(t *testing.T, agent *consultest.Agent) {
	registerTTL(t, agent, "again", "a", 8000, nil)
	r := watchReal(t, agent, ServiceOptions{Service: "again"})
	r.await("a")
	verify.NoError(t, agent.Client().Agent().ServiceDeregister("a"))
	r.await("a?")
	registerTTL(t, agent, "again", "a", 8000, func(s *api.AgentServiceRegistration) {
		s.Check = &api.AgentServiceCheck{TCP: "127.0.0.1:1", Interval: "1s", Timeout: "1s"}
	})
	set := r.await("a:critical")
	verify.Equal(t, set[0].Detail, "Service 'again' check: it has not passed since it was registered, and Consul has no output of it yet", "detail")
}

// An agent that requires client certificates, as those of
// TestNewConnectionsUseTheCertificatesOnDisk of package consul do, shares connections by HTTP/2.
func TestRealTLS(t *testing.T) {
	t.Parallel()
	ca := consultest.NewAuthority(t, "Consul CA")
	server, serverKey := ca.Issue("server", "server.dc1.consul")
	agent := consultest.Start(t, consultest.Options{
		TLS: &consultest.TLS{CA: ca.File, Cert: server, Key: serverKey, VerifyIncoming: true},
	})
	registerTTL(t, agent, "star", "a", 8001, nil)
	certificate, key := ca.Issue("client")
	client := realClient(t, consul.Options{Addresses: []string{"https://" + agent.HTTPSAddress()}, TLS: consul.TLSOptions{ClientTLS: certificates.ClientTLS{
		CA: ca.File, Cert: certificate, Key: key, ServerName: "server.dc1.consul",
	}}})
	alone, _ := client.Capacity()
	r := recordClient(t, client, ServiceOptions{Service: "star"})
	r.await("a")
	registerTTL(t, agent, "star", "b", 8002, nil)
	r.await("a b")
	consultest.Await(t, "queries share connections", func() bool {
		limit, _ := client.Capacity()
		return limit > alone
	})
	for n := range 20 {
		recordClient(t, client, ServiceOptions{Service: serviceName(n)}).await("")
	}
	s := client.Stats()
	verify.That(t, s.Peak <= 6, "%+v: want 21 watches on few connections", s)
}

// TestRealAgentThatIsStopped pauses the agent in use, and kills it: the other agent, a server,
// serves. Then the server starts again with its data: nothing changes, and later changes arrive.
func TestRealAgentThatIsStopped(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, consultest.Options{Mode: consultest.Server, Node: "server"})
	agent := consultest.Start(t, consultest.Options{Mode: consultest.Client, Node: "client", Join: []string{server.SerfAddress()}})
	registerTTL(t, server, "star", "a", 8001, nil)
	client := realClient(t, consul.Options{Addresses: []string{agent.URL(), server.URL()}, ReturnAfter: time.Second})
	r := recordClient(t, client, ServiceOptions{Service: "star"})
	r.await("a")
	r.awaitStatus("served by the first agent", freshFrom(agent.URL()))

	verify.NoError(t, agent.Pause())
	begin := time.Now()
	registerTTL(t, server, "star", "b", 8002, nil)
	r.await("a b")
	t.Logf("a change arrived %v after the agent was paused", time.Since(begin).Round(time.Millisecond))
	r.awaitStatus("served by the second agent", freshFrom(server.URL()))

	verify.NoError(t, agent.Resume())
	r.awaitStatus("back at the first agent", freshFrom(agent.URL()))

	verify.NoError(t, agent.Kill())
	begin = time.Now()
	registerTTL(t, server, "star", "c", 8003, nil)
	r.await("a b c")
	t.Logf("a change arrived %v after the agent was killed", time.Since(begin).Round(time.Millisecond))

	// Consul saves what a TTL check is told, not its first status.
	for _, id := range []string{"a", "b", "c"} {
		verify.NoError(t, server.Client().Agent().UpdateTTL("check-star-"+id, "", api.HealthPassing))
	}
	queries := r.manager.Statuses()[0].Queries
	verify.NoError(t, server.Restart(t.Context()))
	r.awaitFresh(queries)
	r.quiet()
	registerTTL(t, server, "star", "d", 8004, nil)
	r.await("a b c d")
}

// TestRealAgentThatLosesItsCatalog restarts a dev agent, which empties its catalog. The
// instances are on probation until they are registered again.
func TestRealAgentThatLosesItsCatalog(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{Node: "node-1"})
	for n, id := range []string{"a", "b", "c"} {
		registerTTL(t, agent, "star", id, 8001+n, nil)
	}
	r := watchReal(t, agent, ServiceOptions{Service: "star", Probation: 10 * patience})
	r.await("a b c")
	verify.NoError(t, agent.Kill())
	r.awaitError("")
	verify.NoError(t, agent.Launch(t.Context()))
	r.await("a? b? c?")
	for n, id := range []string{"a", "b", "c"} { // as applications do: critical until the first check
		registerTTL(t, agent, "star", id, 8001+n, func(r *api.AgentServiceRegistration) { r.Check.Status = api.HealthCritical })
	}
	for _, id := range []string{"a", "b", "c"} {
		verify.NoError(t, agent.Client().Agent().UpdateTTL("check-star-"+id, "", api.HealthPassing))
	}
	r.await("a b c")
}

// freshFrom reports whether the agent at url serves the watch.
func freshFrom(url string) func(discovery.WatchStatus) bool {
	return func(s discovery.WatchStatus) bool { return s.Endpoint == url && s.State == discovery.WatchFresh }
}
