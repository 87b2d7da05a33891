package consul

import (
	"strings"
	"testing"

	"sluice/certificates"
	"sluice/consul"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// An agent that requires client certificates. TestClientOverTLS of package consul has what the
// client itself verifies.
func TestRealTLS(t *testing.T) {
	t.Parallel()
	ca, other := consultest.NewAuthority(t, "Consul CA"), consultest.NewAuthority(t, "Another CA")
	server, serverKey := ca.Issue("server", "server.dc1.consul")
	agent := consultest.Start(t, consultest.Options{
		TLS: &consultest.TLS{CA: ca.File, Cert: server, Key: serverKey, VerifyIncoming: true},
	})
	registerTTL(t, agent, "star", "a", 8001, nil)
	address := "https://" + agent.HTTPSAddress()
	start := func(certificate, key string) *testClient {
		o := consul.Options{Addresses: []string{address}, TLS: consul.TLSOptions{ClientTLS: certificates.ClientTLS{
			CA: ca.File, Cert: certificate, Key: key, ServerName: "server.dc1.consul",
		}}}
		client := verify.Result(newClient(o)).Must(t)
		t.Cleanup(client.Close)
		return client
	}
	// The server rejects them after the handshake, with different texts.
	for name, client := range map[string]*testClient{"no": start("", ""), "another CA's": start(other.Issue("client"))} {
		_, err := client.Health(t.Context(), ServiceOptions{Service: "star"})
		verify.That(t, err != nil && strings.Contains(err.Error(), "consul "+address), "%s certificate: %v", name, err)
	}

	client := start(ca.Issue("client"))
	alone, _ := client.Capacity()
	r := recordClient(t, client, ServiceOptions{Service: "star"})
	r.await("a")
	registerTTL(t, agent, "star", "b", 8002, nil)
	r.await("a b")
	r.awaitStatus("served over TLS", freshFrom(address))
	consultest.Await(t, "queries share connections", func() bool {
		limit, _ := client.Capacity()
		return limit > alone
	})
}
