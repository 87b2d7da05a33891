package consul

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/certificates"
	"sluice/consul"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// TestRealTLS watches a service at an agent that requires client certificates.
func TestRealTLS(t *testing.T) {
	t.Parallel()
	ca, other := consultest.NewAuthority(t, "Consul CA"), consultest.NewAuthority(t, "Another CA")
	server, serverKey := ca.Issue("server", "server.dc1.consul")
	client, clientKey := ca.Issue("client")
	stranger, strangerKey := other.Issue("client")
	agent := consultest.Start(t, consultest.Options{
		Node: "node-1",
		TLS:  &consultest.TLS{CA: ca.File, Cert: server, Key: serverKey, VerifyIncoming: true},
	})
	registerTTL(t, agent, "star", "a", 8001, nil)
	address := "https://" + agent.HTTPSAddress()

	cas := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.Link(ca.File, cas))
	good := consul.TLSOptions{ClientTLS: certificates.ClientTLS{CA: ca.File, Cert: client, Key: clientKey, ServerName: "server.dc1.consul"}}
	for _, tt := range []struct {
		name   string
		change func(*consul.TLSOptions)
		err    string // part of it; "": no error
	}{
		{"everything", func(*consul.TLSOptions) {}, ""},
		{"a directory of CAs", func(o *consul.TLSOptions) { o.CA, o.CAPath = "", filepath.Dir(cas) }, ""},
		{"no verification", func(o *consul.TLSOptions) { o.CA, o.ServerName, o.SkipVerify = "", "", true }, ""},
		{"an unknown CA", func(o *consul.TLSOptions) { o.CA = other.File }, "unknown authority"},
		{"the address as the name", func(o *consul.TLSOptions) { o.ServerName = "" }, "127.0.0.1"},
		{"another name", func(o *consul.TLSOptions) { o.ServerName = "server.dc2.consul" }, "server.dc2.consul"},
		// The server rejects it after the handshake, with different texts.
		{"no client certificate", func(o *consul.TLSOptions) { o.Cert, o.Key = "", "" }, "consul"},
		{"another CA's client certificate", func(o *consul.TLSOptions) { o.Cert, o.Key = stranger, strangerKey }, "consul"},
	} {
		o := good
		tt.change(&o)
		answer, err := askOnce(t, consul.Options{Addresses: []string{address}, TLS: o})
		verify.That(t, tt.err != "" || err == nil && formatSet(answer.Instances) == "a", "%s: %+v, %v", tt.name, answer, err)
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), address)) {
			t.Errorf("%s: error %v, want one with %q and the address", tt.name, err, tt.err)
		}
	}

	r := watchRealClient(t, consul.Options{Addresses: []string{address}, TLS: good}, ServiceOptions{Service: "star"})
	r.await("a")
	registerTTL(t, agent, "star", "b", 8002, nil)
	r.await("a b")
	r.awaitStatus("served over TLS", freshFrom(address))
}

// TestRealUnixSocket watches a service over the agent's socket.
func TestRealUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "sluice") // t.TempDir may be too long for a socket
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := "unix://" + filepath.Join(dir, "consul.sock")
	agent := consultest.Start(t, consultest.Options{Node: "node-1", Config: map[string]any{
		"addresses": map[string]any{"http": "127.0.0.1 " + socket},
	}})
	r := watchRealClient(t, consul.Options{Addresses: []string{socket}}, ServiceOptions{Service: "star"})
	r.await("")
	registerTTL(t, agent, "star", "a", 8001, nil)
	r.await("a")
	r.awaitStatus("served over the socket", freshFrom(socket))
}

// askOnce queries with a client of options o.
func askOnce(t *testing.T, o consul.Options) (Answer, error) {
	t.Helper()
	client, err := newClient(o)
	if err != nil {
		return Answer{}, err
	}
	defer client.Close()
	return client.Health(t.Context(), ServiceOptions{Service: "star"})
}
