package gateway

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// An operator restores a snapshot of Consul, and somebody writes to it afterwards, so no index is
// lower than before. What the snapshot lacks stays: a document that restricts who may use a route,
// instances, which are on probation, orders, and certificates.
func TestARestoredSnapshotOpensNoRoute(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{Mode: consultest.Server})
	app := origin(t, "app")
	register := func(id string, port int) {
		t.Helper()
		verify.Result(agent.Client().Catalog().Register(&api.CatalogRegistration{
			Node: "external", Address: "10.0.0.9", Service: &api.AgentService{ID: id, Service: "star", Port: port},
		}, nil)).Must(t)
	}
	register("s1", 9001)
	put(t, agent, "own/open.yaml", serving("web", app))
	saved, _, err := agent.Client().Snapshot().Save(nil)
	verify.NoError(t, err)
	backup, err := io.ReadAll(saved)
	verify.NoError(t, err)
	register("s2", 9002)
	register("s3", 9003)
	put(t, agent, "own/closed.yaml", "routes: [{ path: /web/admin, service: web, allow: [192.0.2.0/24] }]")
	certificate := kvCertificate(t, agent, "own-certificates/a.example.pem", "a.example")
	secure := `, { name: secure, address: "127.0.0.1:0", tls: { certificates: [{ consul_kv: own-certificates }] } }]`
	r := start(t, strings.Replace(preamble, " }]", " }"+secure, 1)+fmt.Sprintf(`
consul: { addresses: [%q], orders: own-orders }
dynamic: [{ consul_kv: { prefix: own/ } }]
services: { star: { consul: {} } }
`, agent.URL()))
	r.answers("/web", "app")
	r.refuses("/web/admin", 403)
	peers := func() string {
		text := ""
		for n := 1; n <= 4; n++ {
			if p, ok := r.peers()[fmt.Sprint("10.0.0.9:900", n)]; ok {
				text += fmt.Sprintf("%s %v ", p.ID, p.Probation != nil)
			}
		}
		return text
	}
	r.await("the peers", func() bool { return peers() == "s1 false s2 false s3 false " })
	r.drain("star", "s1")
	ordered := func() bool {
		keys, _, err := agent.Client().KV().Keys("own-orders/peers/star/s1/", "", nil)
		return err == nil && len(keys) == 1 && r.peers()["10.0.0.9:9001"].State == "draining"
	}
	r.await("the order is in Consul", ordered)
	verify.Equal(t, r.served("secure", "a.example"), certificate, "the certificate before")

	agent.RestoreSnapshot(t, backup)
	put(t, agent, "own/other.yaml", "routes: [{ path: /other, service: web }]")
	register("s4", 9004)
	r.answers("/other", "app")
	r.refuses("/web/admin", 403)
	r.awaitState("consul_kv:own/", "stale")
	r.await("the new peer, and the lost ones on probation", func() bool { return peers() == "s1 false s2 true s3 true s4 false " })
	r.refuses("/web/admin", 403)
	r.await("the order is in Consul again", ordered)
	verify.Equal(t, r.served("secure", "a.example"), certificate, "the certificate")
}
