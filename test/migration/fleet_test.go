package migration

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/bench/machine"
	"sluice/test/consultest"
	"sluice/test/subprocess"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// fleet is the services of a team as they are registered for another load balancer, and what a team
// that moves asks of both: what the other one serves, sluice serves, and what it refuses, sluice
// names.
type fleet struct {
	file     string                                  // in testdata: a registration a line
	ports    map[string]string                       // of tags, each in place of another one
	listens  map[string]string                       // addresses of the other one, by listener
	peer     func(consul *consultest.Agent) []string // its arguments
	program  func(t *testing.T) string
	sluice   string // the configuration but for the agent of Consul
	requests []fleetRequest
	// whys are parts of the reasons that sluice has for services without a route, or with less.
	whys map[string]string
}

// fleetRequest is a request at a listener.
type fleetRequest struct {
	at string
	request
}

func (f fleet) run(t *testing.T) {
	consul := consultest.Start(t, consultest.Options{})
	f.register(t, consul)
	startPeer(t, subprocess.Options{Program: f.program(t), Args: f.peer(consul)})
	sluice := startSluice(t, filepath.Join(t.TempDir(), "sluice.yaml"), fmt.Sprintf("consul: { addresses: [%q] }\n", "http://"+consul.HTTPAddress())+f.sluice)
	var problems []struct{ Service, Tag, Reason string }
	verify.NoError(t, sluice.Get(t.Context(), "/api/tags", &problems))
	for _, p := range problems {
		t.Logf("%s: %s: %s", p.Service, p.Tag, p.Reason)
	}
	for _, r := range f.requests {
		if r.sluice == "" && strings.HasPrefix(r.want, "200 ") {
			await(t, f.listens[r.at], r.request)
			await(t, sluice.Address(r.at), r.request)
		}
	}
	for _, r := range f.requests {
		if r.want != "" {
			check(t, "the other one", f.listens[r.at], r.request, r.want)
		}
		check(t, "sluice", sluice.Address(r.at), r.request, cmp.Or(r.sluice, r.want))
	}
	for service, why := range f.whys {
		told := false
		for _, p := range problems {
			told = told || p.Service == service && strings.Contains(p.Reason, why)
		}
		verify.That(t, told, "%s: no reason has %q", service, why)
	}
}

// register starts an app for each registration, and registers it with a check that has passed, if
// it has one.
func (f fleet) register(t *testing.T, consul *consultest.Agent) {
	t.Helper()
	var ports []string
	for from, to := range f.ports {
		ports = append(ports, from, to)
	}
	text := strings.NewReplacer(ports...).Replace(string(verify.Result(os.ReadFile(filepath.Join("testdata", f.file))).Must(t)))
	var registrations []*api.AgentServiceRegistration
	verify.NoError(t, json.Unmarshal([]byte(text), &registrations))
	for _, r := range registrations {
		status := unchecked
		if r.Check != nil {
			status = api.HealthPassing
		}
		has := func(option string) bool {
			return slices.ContainsFunc(r.Tags, func(tag string) bool { return strings.Contains(tag, option) })
		}
		start := serve
		switch {
		case has("proto=https"):
			start = serveTLS
		case has("pxyproto=true"):
			start = serveProxied
		}
		register(t, consul, r.ID, r.Name, start(t, r.Name), r.Tags, status)
	}
}

// serveTLS is serve with TLS, by a certificate that nobody can verify.
func serveTLS(t *testing.T, name string) netip.AddrPort {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r, name) }))
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

// serveProxied is serve for connections that begin with a PROXY header, and only for these.
func serveProxied(t *testing.T, name string) netip.AddrPort {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r, name) }))
	server.Listener = proxied{server.Listener}
	server.Start()
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

type proxied struct{ net.Listener }

func (p proxied) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	return &afterHeader{Conn: conn}, err
}

// afterHeader is a connection without its PROXY header.
type afterHeader struct {
	net.Conn
	rest *bufio.Reader // nil: nothing was read
}

func (c *afterHeader) Read(b []byte) (int, error) {
	if c.rest == nil {
		c.rest = bufio.NewReader(c.Conn)
		if line, err := c.rest.ReadString('\n'); err != nil || !strings.HasPrefix(line, "PROXY TCP4 127.0.0.1 ") {
			return 0, fmt.Errorf("no PROXY header: %q, %v", line, err)
		}
	}
	return c.rest.Read(b)
}

// startAuthentication starts an authentication server, which lets in who has the cookie of ann.
func startAuthentication(t *testing.T) (address string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "session=ann" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-Forwarded-User", "ann")
		_, _ = io.WriteString(w, "ok")
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestFleetOfTraefik(t *testing.T) {
	listens := listenAt(t, "web", "websecure", "postgres")
	authentication, dir := startAuthentication(t), t.TempDir()
	certificate := testcert.Write(t, dir, "www.example.org")
	chain := filepath.Join(dir, "chain.yml")
	writeFile(t, chain, "http: { middlewares: { chain: { headers: { customResponseHeaders: { X-Added: file } } } } }\n")
	ops := []string{"Authorization: Basic b3BzOnRlc3Q="}
	fleet{
		file:    "traefik.json",
		ports:   map[string]string{"127.0.0.1:4181": authentication},
		listens: listens,
		program: func(t *testing.T) string { return program(t, traefik) },
		peer: func(consul *consultest.Agent) []string {
			return append(traefikArgs(listens["web"], consul), "--entrypoints.websecure.address="+listens["websecure"],
				"--entrypoints.postgres.address="+listens["postgres"], "--providers.file.filename="+chain)
		},
		sluice: fmt.Sprintf(`
listeners:
  - { name: web, address: "127.0.0.1:0" }
  - { name: websecure, address: "127.0.0.1:0", tls: { certificates: [{ cert: %q, key: %q }] } }
  - { name: postgres, address: "127.0.0.1:0", protocol: tcp }
shutdown: { delay: 0s }
actions:
  chain: { offered_to: [tags], response_headers: { set: { X-Added: file } } }
catalog:
  tags: [traefik]
  traefik: { exposed: true }
  default_rule: "{service}"
  basic_auth: true
  forward_auth: ["http://%s"]
  claims: [{ service: "*", hosts: ["*"] }]
`, certificate.Cert, certificate.Key, authentication),
		requests: []fleetRequest{
			{"web", request{line: "GET www.example.org/a?b", want: "301 https://www.example.org/a?b"}},
			{"websecure", request{line: "GET www.example.org/", secure: true, want: "200 t-web / X-Frame-Options=DENY X-Added=file X-Robots-Tag=none"}},
			{"web", request{line: "GET api.example.org/v1/x", want: "200 t-api /x X-Forwarded-Prefix=/v1"}},
			{"web", request{line: "GET www.example.org/admin", want: "401"}},
			{"web", request{line: "GET www.example.org/admin", fields: ops, want: "200 t-admin /admin"}},
			{"web", request{line: "GET app.example.org/", want: "401"}},
			{"web", request{line: "GET app.example.org/", fields: []string{"Cookie: session=ann"}, want: "200 t-sso / X-Forwarded-User=ann"}},
			{"web", request{line: "GET err.example.org/", want: "200 t-err /"}},
			{"web", request{line: "GET a.old.example.org/", want: "301 https://a.old.example.org/"}},
			{"web", request{line: "GET t-none/", want: "200 t-none /"}},
		},
		whys: map[string]string{"t-sticky": "port", "t-old": "version 2", "t-db": "port"},
	}.run(t)
}

func TestFleetOfFabio(t *testing.T) {
	listens := listenAt(t, "web", "websecure", "postgres")
	// sluice listens at another address with the same port, which tags name.
	_, port, err := net.SplitHostPort(listens["postgres"])
	verify.NoError(t, err)
	dir := t.TempDir()
	certificate := testcert.Write(t, dir, "grafana.example.com")
	passwords := filepath.Join(dir, "users")
	writeFile(t, passwords, users)
	fleet{
		file:    "fabio.json",
		ports:   map[string]string{":5432": ":" + port},
		listens: listens,
		program: func(t *testing.T) string { return program(t, fabio) },
		peer: func(consul *consultest.Agent) []string {
			return append(fabioArgs(listens["web"]+","+listens["websecure"]+";cs=site,"+listens["postgres"]+";proto=tcp", consul),
				"-proxy.cs", "cs=site;type=file;cert="+certificate.Cert+";key="+certificate.Key, "-proxy.auth", "name=staff;type=basic;file="+passwords)
		},
		sluice: fmt.Sprintf(`
listeners:
  - { name: web, address: "127.0.0.1:0" }
  - { name: websecure, address: "127.0.0.1:0", tls: { certificates: [{ cert: %q, key: %q }] } }
  - { name: postgres, address: "127.0.0.2:%s", protocol: tcp }
shutdown: { delay: 0s }
actions:
  staff: { offered_to: [tags], basic_auth: { users_file: %q } }
catalog:
  tags: [fabio]
  insecure: true
  claims: [{ service: "*", hosts: ["*"] }]
`, certificate.Cert, certificate.Key, port, passwords),
		requests: []fleetRequest{
			{"web", request{line: "GET www.example.com/a?b", want: "200 web /a?b"}},
			{"web", request{line: "GET example.com/a", want: "301 https://www.example.com/a"}},
			{"web", request{line: "GET api.example.com/v1/x", want: "200 api /x X-Forwarded-Prefix=/v1"}},
			{"web", request{line: "GET api.example.com/v2", want: "200 api /v2"}},
			{"web", request{line: "GET other.com/api", want: "200 api /api"}},
			{"web", request{line: "GET www.example.com/admin", want: "401"}},
			{"web", request{line: "GET www.example.com/admin", fields: withPassword, want: "200 admin /admin"}},
			{"web", request{line: "GET grafana.eu.example.com/", want: "200 grafana /"}},
			// fabio's grafana.*.example.com matches it too.
			{"web", request{line: "GET grafana.example.com/", want: "200 grafana /", sluice: "404"}},
			{"websecure", request{line: "GET grafana.example.com/", secure: true, want: "200 grafana /"}},
			{"postgres", request{line: "GET db/", want: "200 postgres /"}},
			{"web", request{line: "GET any.com/legacy", want: "200 legacy /legacy"}},
			{"web", request{line: "GET bad.example.com/", want: "200 bad /"}},
			{"web", request{line: "GET bad.example.com/secret", want: "200 bad /secret", sluice: "403"}},
			{"web", request{line: "GET mail.example.com/", want: "404", sluice: "200 mail / host=INSTANCE"}},
		},
		whys: map[string]string{"bad": "did you mean", "legacy": "a port alone", "mail": "sluice registers nothing"},
	}.run(t)
}

// listenAt returns addresses for listeners with these names.
func listenAt(t *testing.T, names ...string) map[string]string {
	t.Helper()
	addresses := verify.Result(machine.FreeAddresses(len(names))).Must(t)
	listens := make(map[string]string, len(names))
	for i, name := range names {
		listens[name] = addresses[i]
	}
	return listens
}
