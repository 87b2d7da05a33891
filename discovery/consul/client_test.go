package consul

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/discovery/discoverytest"
)

// clearEnvironment hides the variables of whoever runs the test.
func clearEnvironment(t *testing.T) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "CONSUL_") {
			t.Setenv(name, "")
		}
	}
}

// askOnce asks through a client with options o.
func askOnce(t *testing.T, o ClientOptions) (Answer, error) {
	t.Helper()
	client, err := NewClient(o)
	if err != nil {
		return Answer{}, err
	}
	defer client.Close()
	return client.Health(t.Context(), ServiceOptions{Service: "star"})
}

func TestClientURL(t *testing.T) {
	clearEnvironment(t)
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
		var o ClientOptions
		if tt.address != "" {
			o.Addresses = []string{tt.address, "http://the-second-one"}
		}
		client, err := NewClient(o)
		if err != nil {
			t.Errorf("%+v: %v", tt, err)
			continue
		}
		if got := client.URL(); got != tt.want {
			t.Errorf("%+v: got %s", tt, got)
		}
	}
}

func TestClientRefusesWhatCannotWork(t *testing.T) {
	clearEnvironment(t)
	missing := filepath.Join(t.TempDir(), "missing")
	for name, o := range map[string]ClientOptions{
		"scheme":     {Addresses: []string{"ftp://10.0.0.1"}},
		"socket":     {Addresses: []string{"unix://"}},
		"token file": {TokenFile: missing},
		"CA":         {TLS: TLSOptions{CAFile: missing}},
		"key":        {TLS: TLSOptions{CertFile: missing, KeyFile: missing}},
		"watches":    {MaxWatches: -1},
	} {
		if _, err := NewClient(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestClientToken(t *testing.T) {
	clearEnvironment(t)
	fake := discoverytest.Start(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("of-the-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		options ClientOptions
		env     string
		want    string
	}{
		{ClientOptions{}, "", ""},
		{ClientOptions{}, "of-the-environment", "of-the-environment"},
		{ClientOptions{Token: "given"}, "of-the-environment", "given"},
		{ClientOptions{TokenFile: file}, "of-the-environment", "of-the-file"},
		{ClientOptions{TokenFile: file, Token: "given"}, "", "of-the-file"},
	} {
		t.Setenv("CONSUL_HTTP_TOKEN", tt.env)
		tt.options.Addresses = []string{fake.URL()}
		client, err := NewClient(tt.options)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Health(t.Context(), ServiceOptions{Service: "star"})
		if err != nil {
			t.Fatal(err)
		}
		requests := fake.Requests()
		if got := requests[len(requests)-1].Token; got != tt.want {
			t.Errorf("%+v: token %q, want %q", tt, got, tt.want)
		}
		if answer.anonymous != (tt.want == "") {
			t.Errorf("%+v: anonymous %v", tt, answer.anonymous)
		}
		client.Close()
	}
}

func TestClientOverAUnixSocket(t *testing.T) {
	clearEnvironment(t)
	dir, err := os.MkdirTemp("", "sluice") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	listener, err := net.Listen("unix", filepath.Join(dir, "consul.sock"))
	if err != nil {
		t.Fatal(err)
	}
	fake := discoverytest.New()
	fake.Set("star", discoverytest.Instance("star", "a", 80))
	server := httptest.NewUnstartedServer(fake)
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	defer server.Close()
	answer, err := askOnce(t, ClientOptions{Addresses: []string{"unix://" + listener.Addr().String()}})
	if err != nil || len(answer.Instances) != 1 {
		t.Errorf("got %+v, %v", answer, err)
	}
}

func TestClientOverTLS(t *testing.T) {
	clearEnvironment(t)
	fake := discoverytest.New()
	fake.Set("star", discoverytest.Instance("star", "a", 80))
	server := httptest.NewUnstartedServer(fake)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused handshakes
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		tls  TLSOptions
		ok   bool
	}{
		{"an unknown CA", TLSOptions{}, false},
		{"the CA", TLSOptions{CAFile: ca}, true},
		{"another name", TLSOptions{CAFile: ca, ServerName: "consul.example.org"}, false},
		{"the name", TLSOptions{CAFile: ca, ServerName: "example.com"}, true},
		{"no verification", TLSOptions{InsecureSkipVerify: true}, true},
	} {
		answer, err := askOnce(t, ClientOptions{Addresses: []string{server.URL}, TLS: tt.tls})
		if (err == nil) != tt.ok || tt.ok && len(answer.Instances) != 1 {
			t.Errorf("%s: %+v, %v", tt.name, answer, err)
		}
	}
	t.Setenv("CONSUL_CACERT", ca)
	if _, err := askOnce(t, ClientOptions{Addresses: []string{server.URL}}); err != nil {
		t.Errorf("CONSUL_CACERT: %v", err)
	}
}

func TestErrorNamesTheAgent(t *testing.T) {
	clearEnvironment(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + listener.Addr().String()
	listener.Close()
	_, err = askOnce(t, ClientOptions{Addresses: []string{url}})
	if err == nil || !strings.Contains(err.Error(), "consul "+url+": ") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v", err)
	}
}

// What a client counts is what Consul, the fake, has seen.
func TestStatsCountWhatConsulSees(t *testing.T) {
	clearEnvironment(t)
	watchInBubble(t, ServiceOptions{}, having("a"), func(t *testing.T, b *bubble) {
		b.expect(10*sec, "0s: a")
		b.Break(discoverytest.Fault{Status: 429, Only: func(r discoverytest.Request) bool { return r.Service != "" }})
		b.at(15 * sec)
		b.Heal()
		b.at(30 * sec)
		s := b.client.Stats()
		seen, probes := b.Requests(), b.Probes()
		if want := uint64(len(seen) + probes); s.Queries != want {
			t.Errorf("%d queries, Consul has got %d", s.Queries, want)
		}
		if s.Probes != uint64(probes) {
			t.Errorf("%d probes, Consul has got %d", s.Probes, probes)
		}
		if s.Refused == 0 || s.Errors != s.Refused || s.Errors != b.status().Errors {
			t.Errorf("%+v: want as many errors as answers 429, which are %d", s, b.status().Errors)
		}
		if s.Opened != uint64(s.Connections) || s.Opened != 2 || s.Watches != 1 || s.Riding != 0 {
			t.Errorf("%+v: want a connection for the watch and one for probes", s)
		}
	})
}
