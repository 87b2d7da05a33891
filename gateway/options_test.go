package gateway

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/config"
	"sluice/config/units"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/discovery/locality"
	"sluice/healthcheck"
	"sluice/healthcheck/statuses"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

func TestReplicaNumber(t *testing.T) {
	t.Parallel()
	f := func(host string, replicas, want int) {
		t.Helper()
		verify.Equal(t, replicaNumber(host, replicas), want, "%q of %d", host, replicas)
	}
	f("sluice-3", 10, 3)
	f("sluice-0", 1, 0)
	f("sluice03.dc1.example.com", 10, 3)
	for _, host := range []string{"sluice-10", "sluice", "", "sluice-99999999999999999999"} {
		n := replicaNumber(host, 10)
		verify.That(t, n >= 0 && n < 10 && n == replicaNumber(host, 10), "%q: %d", host, n)
	}
}

func TestTiersAndSubsets(t *testing.T) {
	t.Parallel()
	host := verify.Result(os.Hostname()).Must(t)
	got := tiersOf([]config.Tier{{Nodes: []string{"local", "n2"}}, {Tags: []string{"a"}, Meta: []config.Meta{{Value: [2]string{"zone", "b"}}, {Value: [2]string{"x", "y=z"}}}}})
	want := []balancer.Selector{
		{Nodes: []string{host, "n2"}},
		{Tags: []string{"a"}, Meta: map[string]string{"zone": "b", "x": "y=z"}},
	}
	verify.DeepEqual(t, got, want, "got")
	verify.Equal(t, subsetOf(balancer.Subset{Size: 5, Replica: 2, Replicas: 3}), (balancer.Subset{Size: 5, Replica: 2, Replicas: 3}), "result")
	verify.Equal(t, subsetOf(balancer.Subset{Replica: -1}), (balancer.Subset{}), "result")
	verify.Equal(t, subsetOf(balancer.Subset{Size: 5, Replica: -1, Replicas: 1}).Replica, 0, "the replica")
}

// Checks use HTTP/2 where requests do, except on another port.
func TestProtocolOfChecks(t *testing.T) {
	t.Parallel()
	var got string
	peer := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Proto }))
	peer.Config.Protocols = new(http.Protocols)
	peer.Config.Protocols.SetHTTP1(true)
	peer.Config.Protocols.SetUnencryptedHTTP2(true)
	peer.Start()
	defer peer.Close()
	for _, test := range []struct {
		protocol string
		port     int
		want     string
	}{
		{"http1", 0, "HTTP/1.1"},
		{config.ProtocolH2C, 0, "HTTP/2.0"},
		{config.ProtocolH2, 0, "HTTP/2.0"},
		{config.ProtocolH2C, 8080, "HTTP/1.1"},
	} {
		c := &config.Service{ServiceSettings: config.ServiceSettings{Upstream: config.Upstream{Protocol: test.protocol}}}
		c.Health.Active = &config.ActiveCheck{Type: "http", Method: "GET", Path: units.NewLocation("/"), Schedule: healthcheck.Schedule{Port: test.port}}
		c.Health.Active.Expect.Status.Value, _ = statuses.Parse("200")
		s := healthSettings(c, nil)
		verify.Succeeds(t, s.Active.Probe.Check(t.Context(), healthcheck.Target{Address: peer.Listener.Addr().String(), Control: locality.ByOperator}))
		verify.Equal(t, got, test.want, "protocol %s, port %d", test.protocol, test.port)
	}
}

// trusting is TLS to whoever answers.
type trusting struct{}

func (trusting) TermsFor(*discovery.Instance) (certificates.Terms, error) {
	return certificates.Terms{Config: &tls.Config{InsecureSkipVerify: true}}, nil
}

// Checks of each kind use the TLS of the service.
func TestTLSOfChecks(t *testing.T) {
	t.Parallel()
	var asked atomic.Value
	peer := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked.Store(r.URL.Path) }))
	peer.EnableHTTP2 = true
	peer.StartTLS()
	defer peer.Close()
	for kind, path := range map[string]string{"http": "/http", "tcp": "/tcp", "grpc": "/grpc.health.v1.Health/Check"} {
		c := new(config.Service)
		c.Health.Active = &config.ActiveCheck{Type: kind, Method: "GET", Path: units.NewLocation(path)}
		c.Health.Active.Send.Value = []byte("GET " + path + " HTTP/1.0\r\n\r\n")
		c.Health.Active.Expect.Text, c.Health.Active.Expect.Within = "HTTP/1.0 200", 1<<10 // of TCP
		target := healthcheck.Target{Address: peer.Listener.Addr().String(), Control: locality.ByOperator}
		err := healthSettings(c, trusting{}).Active.Probe.Check(t.Context(), target)
		verify.Equal(t, asked.Load(), any(path), "what a check of type %s asks for: %v", kind, err)
	}
}

// The checks that a tag or a document asks for share half of the workers.
func TestForeignChecks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ byDocument, byTag, foreign bool }{{}, {true, false, true}, {false, true, true}} {
		c := &config.Service{ByDocument: test.byDocument}
		c.Health.Active = &config.ActiveCheck{Type: "tcp", ByTag: test.byTag}
		verify.Equal(t, healthSettings(c, nil).Active.Foreign, test.foreign, "%+v", test)
	}
}

// The expression of a document's check has the budget that its expressions for requests have; the
// file's has none.
func TestExpressionsOfForeignChecksAreBounded(t *testing.T) {
	t.Parallel()
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("ab", 2000)) }))
	defer peer.Close()
	for byDocument, want := range map[bool]string{false: "answer does not match", true: "answer is too long for expect.regexp"} {
		for _, kind := range []string{"http", "tcp"} {
			c := &config.Service{ByDocument: byDocument}
			c.Health.Active = &config.ActiveCheck{Type: kind, Method: "GET", Path: units.NewLocation("/")}
			c.Health.Active.Send.Value = []byte("GET / HTTP/1.0\r\n\r\n")
			e := &c.Health.Active.Expect
			e.Status.Value, _ = statuses.Parse("200")
			e.Regexp.Value, e.Within = regexp.MustCompile("[ab]*[ab]{1,900}z"), 64<<10
			err := healthSettings(c, nil).Active.Probe.Check(t.Context(), healthcheck.Target{Address: peer.Listener.Addr().String(), Control: locality.ByOperator})
			verify.That(t, err != nil && strings.HasPrefix(err.Error(), want), "%s, by a document %v: %v", kind, byDocument, err)
		}
	}
}

// The namespace and the partition of the client are those of services without others, and a part of
// the identities in the mesh.
func TestNamespacesInTheMesh(t *testing.T) {
	t.Parallel()
	client := config.Consul{Namespace: "team", Partition: "east"}
	s := config.ConsulService{ServiceOptions: consulsource.ServiceOptions{Connect: true}, Probation: new(time.Duration)}
	o := ServiceOptions(s, client)
	verify.That(t, o.Namespace == "team" && o.Partition == "east", "%q, %q", o.Namespace, o.Partition)
	s.Namespace, s.Partition = "other", "west"
	o = ServiceOptions(s, client)
	verify.That(t, o.Namespace == "other" && o.Partition == "west", "%q, %q", o.Namespace, o.Partition)
}

// A reload changes the namespace and the partition of services in the mesh no more than those of
// the client, which need a restart.
func TestNamespacesInTheMeshNeedARestart(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf("consul: { addresses: [%q], namespace: team, partition: east }\nservices: { web: { consul: { connect: true } } }\nroutes: [{ service: web }]\n",
		discoverytest.Start(t).URL())
	r := start(t, text, func(g *Gateway) { g.waits.start, g.waits.warm = time.Millisecond, time.Millisecond })
	revision := r.replace(strings.NewReplacer("team", "other", "east", "west").Replace(text))
	verify.Equal(t, len(revision.Pending), 2, "keys that need a restart")
	o := r.services.get("web").spec.of.(consulsource.ServiceOptions)
	verify.That(t, o.Namespace == "team" && o.Partition == "east", "%q, %q", o.Namespace, o.Partition)
}
