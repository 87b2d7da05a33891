package consul

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/parallel"
	"sluice/test/verify"
)

// inMemory returns a client of a handler, without a network, until t ends.
func inMemory(t *testing.T, handler http.Handler) *Client {
	t.Helper()
	pipe := discoverytest.ServePipe(handler)
	client := verify.Result(New(Options{Addresses: []string{"http://fake"}, Log: zerolog.Nop(), Dial: pipe.DialContext})).Must(t)
	t.Cleanup(func() {
		client.Close()
		pipe.Close()
	})
	return client
}

// clientOf returns a client of a server with a handler, until t ends.
func clientOf(t *testing.T, o Options, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	o.Addresses = []string{server.URL}
	client := verify.Result(New(o)).Must(t)
	t.Cleanup(client.Close)
	return client
}

// countInstances returns the number of instances of star that a client with options o gets.
func countInstances(t *testing.T, o Options) (instances int, err error) {
	t.Helper()
	client, err := New(o)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	var list []any
	_, err = client.Get(t.Context(), Query{Path: "health/service/star"}, func(body io.Reader) error {
		return json.NewDecoder(body).Decode(&list)
	})
	return len(list), err
}

func TestClientURL(t *testing.T) {
	for _, tt := range []struct {
		address, env, ssl, want string
	}{
		{"", "", "", "http://127.0.0.1:8500"},
		{"10.0.0.1:8500", "", "", "http://10.0.0.1:8500"},
		{"https://consul.example.com", "", "", "https://consul.example.com"},
		{"unix:///run/consul.sock", "", "", "unix:///run/consul.sock"},
		{"", "10.0.0.2:8500", "", "http://10.0.0.2:8500"},
		{"", "10.0.0.2:8501", "true", "https://10.0.0.2:8501"},
		{"", "http://10.0.0.2:8501", "true", "https://10.0.0.2:8501"},
		{"10.0.0.1:8500", "10.0.0.2:8500", "", "http://10.0.0.1:8500"},
	} {
		t.Setenv("CONSUL_HTTP_ADDR", tt.env)
		t.Setenv("CONSUL_HTTP_SSL", tt.ssl)
		var o Options
		if tt.address != "" {
			o.Addresses = []string{tt.address, "http://second"}
		}
		verify.Equal(t, verify.Result(New(o)).Must(t).URL(), tt.want, "%+v", tt)
	}
}

func TestNewRejectsInvalidOptions(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for name, o := range map[string]Options{
		"scheme":     {Addresses: []string{"ftp://10.0.0.1"}},
		"socket":     {Addresses: []string{"unix://"}},
		"token file": {TokenFile: missing},
		"CA":         {TLS: TLSOptions{ClientTLS: certificates.ClientTLS{CA: missing}}},
		"key":        {TLS: TLSOptions{ClientTLS: certificates.ClientTLS{Cert: missing, Key: missing}}},
		"watches":    {MaxWatches: -1},
	} {
		_, err := New(o)
		verify.That(t, err != nil, "%s: no error", name)
	}
}

func TestClientToken(t *testing.T) {
	fake := discoverytest.Start(t)
	file := filepath.Join(t.TempDir(), "token")
	verify.NoError(t, os.WriteFile(file, []byte("of-the-file\n"), 0o600))
	for _, tt := range []struct {
		options Options
		env     string
		want    string
	}{
		{Options{}, "", ""},
		{Options{}, "of-the-environment", "of-the-environment"},
		{Options{Token: "given"}, "of-the-environment", "given"},
		{Options{TokenFile: file}, "of-the-environment", "of-the-file"},
		{Options{TokenFile: file, Token: "given"}, "", "of-the-file"},
	} {
		t.Setenv("CONSUL_HTTP_TOKEN", tt.env)
		tt.options.Addresses = []string{fake.URL()}
		client := verify.Result(New(tt.options)).Must(t)
		q := Query{Path: "health/service/star"}
		answer := verify.Result(client.Get(t.Context(), q, func(io.Reader) error { return nil })).Must(t)
		requests := fake.Requests()
		verify.Equal(t, requests[len(requests)-1].Token, tt.want, "%+v: token", tt)
		verify.Equal(t, answer.Anonymous, (tt.want == ""), "%+v: anonymous", tt)
		client.Close()
	}
}

func TestClientOverUnixSocket(t *testing.T) {
	// The path of t.TempDir may be too long for a socket.
	dir := verify.Result(os.MkdirTemp("", "sluice")).Must(t)
	defer os.RemoveAll(dir)
	listener := verify.Result(net.Listen("unix", filepath.Join(dir, "consul.sock"))).Must(t)
	fake := discoverytest.New()
	fake.Set("star", discoverytest.Instance("star", "a", 80))
	server := httptest.NewUnstartedServer(fake)
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	defer server.Close()
	o := Options{Addresses: []string{"unix://" + listener.Addr().String()}}
	n := verify.Result(countInstances(t, o)).Must(t)
	verify.Equal(t, n, 1, "instances")
	client := verify.Result(New(o)).Must(t)
	defer client.Close()
	state, err := client.agents.inUse().probe(t.Context(), time.Minute)
	verify.That(t, err == nil && state == healthy, "a probe over the socket: %v, %v", state, err)
}

func TestClientOverTLS(t *testing.T) {
	fake := discoverytest.New()
	fake.Set("star", discoverytest.Instance("star", "a", 80))
	server := httptest.NewUnstartedServer(fake)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // failed handshakes
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	verify.NoError(t, os.WriteFile(ca, certificate, 0o600))
	for _, tt := range []struct {
		name string
		tls  TLSOptions
		ok   bool
	}{
		{"an unknown CA", TLSOptions{}, false},
		{"the CA", TLSOptions{ClientTLS: certificates.ClientTLS{CA: ca}}, true},
		{"a directory of CAs", TLSOptions{CAPath: filepath.Dir(ca)}, true},
		{"another name", TLSOptions{ClientTLS: certificates.ClientTLS{CA: ca, ServerName: "consul.example.org"}}, false},
		{"the name", TLSOptions{ClientTLS: certificates.ClientTLS{CA: ca, ServerName: "example.com"}}, true},
		{"no verification", TLSOptions{ClientTLS: certificates.ClientTLS{SkipVerify: true}}, true},
	} {
		n, err := countInstances(t, Options{Addresses: []string{server.URL}, TLS: tt.tls})
		verify.That(t, (err == nil) == tt.ok && (!tt.ok || n == 1), "%s: %d instances, %v", tt.name, n, err)
	}
	// Without a name it must be the host's. The certificate is of example.com and of addresses.
	byHost := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	_, err := countInstances(t, Options{Addresses: []string{byHost}, TLS: TLSOptions{ClientTLS: certificates.ClientTLS{CA: ca}}})
	verify.That(t, err != nil && strings.Contains(err.Error(), "not localhost"), "without a name: %v", err)
	t.Setenv("CONSUL_CACERT", ca)
	// CONSUL_CACERT names the CA.
	verify.Result(countInstances(t, Options{Addresses: []string{server.URL}})).Must(t)
}

func TestErrorContainsAgent(t *testing.T) {
	const url = "http://127.0.0.1:1"
	_, err := countInstances(t, Options{Addresses: []string{url}})
	verify.That(t, err != nil && strings.Contains(err.Error(), "consul "+url+": ") && strings.Contains(err.Error(), "refused"), "error %v", err)
}

// Names are escaped once, also those that are a way to another folder.
func TestNamesInAPath(t *testing.T) {
	var got string
	client := clientOf(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.Path
		w.Header().Set("X-Consul-Index", "1")
		_, _ = w.Write([]byte("[]"))
	})
	for _, name := range []string{"star-1", "a b", "..", "a/b", "100%", "%2E", "ä?#"} {
		q := Query{Path: "health/checks/" + discovery.PathSegment(name)}
		verify.Result(client.Get(t.Context(), q, func(io.Reader) error { return nil })).Must(t)
		verify.Equal(t, got, "/v1/health/checks/"+name, "path")
	}
}

// Consul may refuse a step of a transaction. Only the first step asks whether a key has changed.
func TestErrorsOfATransaction(t *testing.T) {
	for _, test := range []struct {
		answer string
		there  bool // of CreateBeside
		denied bool
	}{
		{`[null]`, false, false},
		{`[{"OpIndex": 0, "What": "index is stale"}]`, false, false},
		{`[{"OpIndex": 1, "What": "failed to set key, index is stale"}]`, true, false},
		{`[{"OpIndex": 1, "What": "Permission denied"}]`, false, true},
	} {
		client := clientOf(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusConflict)
			_, _ = w.Write([]byte(`{"Errors": ` + test.answer + `}`))
		})
		a, b := &api.KVPair{Key: "a"}, &api.KVPair{Key: "b"}
		there, err := client.KV().CreateBeside(t.Context(), a, b)
		verify.That(t, Refused(err) == test.denied && (err != nil || there == test.there), "%s: there %v, %v", test.answer, there, err)
		replaced, err := client.KV().ReplaceBeside(t.Context(), a, b)
		verify.That(t, Refused(err) == test.denied && !replaced, "%s: replaced %v, %v", test.answer, replaced, err)
	}
}

func TestAPIUsesTheSettingsOfOptions(t *testing.T) {
	var token string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token = r.Header.Get("X-Consul-Token")
		_, _ = w.Write([]byte(`"10.0.0.1:8300"`))
	}))
	defer server.Close()
	t.Setenv("CONSUL_HTTP_ADDR", server.Listener.Addr().String())
	t.Setenv("CONSUL_HTTP_TOKEN", "environment")

	for _, test := range []struct{ token, want string }{{"", "environment"}, {"mine", "mine"}} {
		o := Options{Token: test.token}
		addresses, err := o.Agents()
		verify.Require(t, err == nil && len(addresses) == 1, "Agents = %q, %v", addresses, err)
		a := verify.Result(o.API(addresses[0])).Must(t)
		defer a.Close()
		leader, err := a.Status().Leader()
		verify.That(t, err == nil && leader == "10.0.0.1:8300" && token == test.want, "leader %q, %v, with token %q; want %q", leader, err, token, test.want)
		verify.That(t, a.URL == server.URL && !a.Anonymous() && a.Stats().Queries == 1,
			"URL %q, anonymous %v, %+v", a.URL, a.Anonymous(), a.Stats())
	}
}

// CancelQueries cancels the queries in flight, as after an outage of the agent.
func (c *Client) CancelQueries() {
	c.agents.mu.Lock()
	defer c.agents.mu.Unlock()
	c.agents.current.cancelQueriesLocked(true, errRecovered)
}

// Tests with a real Consul mostly wait.
func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	consultest.ClearEnvironment()
	os.Exit(m.Run())
}
