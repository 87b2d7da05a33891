package meshtest

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/verify"
)

// get sends a request on a connection of its own.
func get(config *tls.Config, address, path string) (status int, body string, err error) {
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	response, err := client.Get("https://" + address + path)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, strings.TrimSpace(string(text)), err
}

// Without ACLs the default is allow. The CA rotates, sidecars restart, the agent too.
func TestSidecarsAndNativeServicesAnswerClientsOfTheMesh(t *testing.T) {
	t.Parallel()
	m := Start(t, consultest.Options{})
	sidecar := m.Sidecar(t, Service{Name: "web", ID: "web-1", Port: ServeHTTP(t, "web-1").Port, Tags: []string{"v1"}})
	native := m.Native(t, Service{Name: "api"})
	m.AwaitPassing(t, "web", 1)
	m.AwaitPassing(t, "api", 1)
	me := m.Identity(t, "sluice")
	answers := func(when string) {
		t.Helper()
		consultest.Await(t, when, func() bool {
			_, one, err := get(me.Client("web"), sidecar.Address, "/")
			_, two, err2 := get(me.Client("api"), native.Address, "/")
			return one == "web-1" && two == "api" && err == nil && err2 == nil
		})
	}
	answers("at the start")
	_, _, err := get(me.Client("other"), sidecar.Address, "/")
	verify.That(t, err != nil, "web answers as another service")

	before := me.Leaf().Leaf.SerialNumber
	m.RotateCA(t)
	answers("with the new root")
	if long.All() { // Consul takes up to half a minute
		consultest.Await(t, "a leaf of the new root", func() bool { return me.Leaf().Leaf.SerialNumber.Cmp(before) != 0 })
		answers("with the new leaf")
	}
	sidecar.Restart(t)
	answers("with another process")

	connection := verify.Result(grpc.NewClient(native.Address, grpc.WithTransportCredentials(credentials.NewTLS(me.Client("api"))))).Must(t)
	defer connection.Close()
	var header metadata.MD
	_, err = grpc_health_v1.NewHealthClient(connection).Check(t.Context(), new(grpc_health_v1.HealthCheckRequest), grpc.Header(&header))
	verify.That(t, err == nil && header.Get(InstanceHeader)[0] == "api", "gRPC: %v, %v", header, err)
}

func TestIntentionsWithACLs(t *testing.T) {
	t.Parallel()
	m := Start(t, consultest.Options{ACLs: true})
	sidecar := m.Sidecar(t, Service{Name: "web", Port: ServeHTTP(t, "web").Port})
	native := m.Native(t, Service{Name: "api"})
	stream := m.Envoy(t, Service{Name: "tcp", Port: 1}, "tcp")
	pages := m.Envoy(t, Service{Name: "pages", Port: 1}, "http")
	me := m.Identity(t, "sluice")
	for service, address := range map[string]string{"web": sidecar.Address, "api": native.Address} {
		_, _, err := get(me.Client(service), address, "/")
		verify.That(t, err != nil, "%s answers without an intention", service)
	}
	line := func() (string, error) {
		c := verify.Result(tls.Dial("tcp", stream.Address, me.Client("tcp"))).Must(t)
		defer c.Close()
		return bufio.NewReader(c).ReadString('\n')
	}
	text, err := line()
	verify.That(t, err != nil && text == "", "tcp: %q, %v", text, err)
	status, text, err := get(me.Client("pages"), pages.Address, "/")
	verify.That(t, err == nil && status == http.StatusForbidden && text == "RBAC: access denied", "pages: %d %q %v", status, text, err)

	for _, service := range []string{"web", "api", "tcp"} {
		m.Intend(t, service, Allow("sluice"))
	}
	m.SetProtocol(t, "pages", "http")
	m.Intend(t, "pages", ByRequest("sluice", &api.IntentionPermission{
		Action: api.IntentionActionAllow, HTTP: &api.IntentionHTTPPermission{PathPrefix: "/open", Methods: []string{"GET"}}}))
	consultest.Await(t, "all answer", func() bool {
		_, one, _ := get(me.Client("web"), sidecar.Address, "/")
		_, two, _ := get(me.Client("api"), native.Address, "/")
		three, _ := line()
		_, four, _ := get(me.Client("pages"), pages.Address, "/open/x")
		return one == "web" && two == "api" && three == "tcp\n" && four == "pages"
	})
	status, _, err = get(me.Client("pages"), pages.Address, "/closed")
	verify.That(t, err == nil && status == http.StatusForbidden, "/closed: %d, %v", status, err)
	verify.Equal(t, pages.Requests() > 1 && pages.Connections() > 1 && stream.Connections() > 1, true, "it counts")
}

// A gateway passes TLS through by server name.
func TestGateway(t *testing.T) {
	t.Parallel()
	m := Start(t, consultest.Options{})
	m.Native(t, Service{Name: "api"})
	m.AwaitPassing(t, "api", 1)
	g := m.Gateway(t, "gateway")
	me := m.Identity(t, "sluice")
	ask := func(serverName string) (string, error) {
		config := me.Client("api")
		config.ServerName = serverName
		_, body, err := get(config, g.Address, "/")
		return body, err
	}
	body, err := ask("v1.api.default.dc1.internal.trust.consul")
	verify.That(t, err == nil && body == "api" && g.Connections() == 1, "by its name: %q, %v", body, err)
	_, err = ask("none.default.dc1.internal.trust.consul")
	verify.That(t, err != nil, "a service that does not exist answers")
	g.Route("other", m.Native(t, Service{Name: "api", ID: "api-2"}).Address)
	body, err = ask("other")
	verify.That(t, err == nil && body == "api-2", "by a route: %q, %v", body, err)
}
