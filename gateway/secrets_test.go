package gateway

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/doctor"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// plants are the secrets of a test, by the letters PLANT and a number.
type plants struct {
	t     *testing.T
	dir   string
	where []string
}

// of returns a new secret.
func (p *plants) of(where string) string {
	p.where = append(p.where, where)
	return fmt.Sprintf("PLANT%02dSECRET", len(p.where)-1)
}

// file returns a file with a secret.
func (p *plants) file(where string) string {
	p.t.Helper()
	return writeFile(p.t, p.dir, where, []byte(p.of(where)))
}

// in returns which of the secrets, but for some, a text has.
func (p *plants) in(text string, but ...string) (found []string) {
	for n, where := range p.where {
		if !slices.Contains(but, where) && strings.Contains(text, fmt.Sprintf("PLANT%02dSECRET", n)) {
			found = append(found, where)
		}
	}
	return found
}

// echo starts a server that answers with what it gets, which is no HTTP: an error of net/http has
// it.
func echo(t *testing.T) (address string) {
	t.Helper()
	return listen(t, verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t), func(conn net.Conn) {
		b := make([]byte, 4096)
		if n, err := conn.Read(b); err == nil {
			_, _ = conn.Write(b[:n])
		}
	})
}

// Whatever fails, no secret of the configuration is in the log or in an answer of the admin API.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	agent, own := shared.Agent(t)
	s := &plants{t: t, dir: t.TempDir()}
	operate := s.file("admin.token_file")
	token := s.of("admin.token_file")
	verify.NoError(t, os.WriteFile(operate, []byte(token), 0o600))
	const checkURL = "consul.register.check.url"
	users := filepath.Join(s.dir, "users")
	verify.NoError(t, os.WriteFile(users, []byte("ada:$2y$05$"+strings.Repeat("a", 53)+"\n"), 0o600))
	peer := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_ = r.Write(w) // back, as echo does
	})
	issuer := echo(t)
	pem, keyPEM := testcert.PEM("own.example") // else this is not ready
	certificate, key := writeFile(t, s.dir, "own.pem", pem), writeFile(t, s.dir, "own.key", keyPEM)
	text := func(more string) string {
		return fmt.Sprintf(`
admin: { address: "127.0.0.1:0", token_file: %q, read_token_file: %q }
discovery: { allow_local: true }
tracing: { otlp: "http://%s/v1?key=%s", sample: 100%%, headers: ["Authorization: Bearer %s"] }
consul:
  addresses: [%q, "http://127.0.0.1:1"]
  token: %s
  register: { service: %s, replica_token_file: %q, check: { type: http, url: "http://127.0.0.1:1/ready?key=%s" } }
listeners:
  - { name: web, address: "127.0.0.1:0" }
  - { name: secure, address: "127.0.0.1:0", tls: { certificates: [{ cert: %q, key: %q }], acme: { names: [secrets.example], storage: %q, directory: "https://%s/dir?key=%s" } } }
catalog: { tags: [sluice], select: { name: %s-none }, forward_auth: ["http://127.0.0.1:1/tags?key=%s"] }
services:
  star:
    peers: [%q]
    balance: { policy: sticky, sticky: { secret: %s } }
    health: { active: { path: "/h?key=%s", headers: ["Authorization: Basic %s"], interval: 10ms, failing_interval: 10ms } }
  tcp: { peers: [%q], health: { active: { type: tcp, send: 'AUTH %s\r\n', expect: { text: PONG }, interval: 10ms, failing_interval: 10ms } } }
%sroutes:
  - { path: /star, service: star, request_headers: { set: { Authorization: "Basic %s" }, add: { X-Key: %s } }, response_headers: { set: { X-A: %s }, add: { X-B: %s } } }
  - { path: /rewritten, service: star, rewrite: { regexp: ".*", to: "/x?key=%s" } }
  - { path: /tcp, service: tcp }
  - { path: /users, service: star, basic_auth: { users_file: %q } }
  - { path: /listed, service: star, basic_auth: { users: ["ada:{SHA}%sAAAAAAAAAAAAAA="] } }
  - { path: /asked, service: star, forward_auth: { url: "http://%s/verify?key=%s" } }
  - { path: /one, service: star, jwt: { jwks_url: "http://%s/keys?key=%s", issuer: i, audiences: [a] } }
  - { path: /two, service: star, jwt: { jwks_url: "http://%s/keys?key=%s", issuer: i, audiences: [a] } }
`,
			operate, s.file("admin.read_token_file"), echo(t), s.of("tracing.otlp"), s.of("tracing.headers"),
			agent.URL(), s.of("consul.token"), own, s.file("replica_token_file"), s.of(checkURL),
			certificate, key, filepath.Join(s.dir, "acme"), echo(t), s.of("acme.directory"), own, s.of("catalog.forward_auth"),
			peer, s.of("sticky.secret"), s.of("active.path"), s.of("active.headers"), peer, s.of("active.send"), more,
			s.of("set"), s.of("add"), s.of("response set"), s.of("response add"), s.of("rewrite.to"), users, s.of("users"),
			echo(t), s.of("forward_auth.url"), issuer, s.of("jwks_url"), issuer, s.of("second jwks_url"))
	}
	first := text("")
	r := start(t, first, func(g *Gateway) { g.waits.start, g.waits.warm, g.waits.certificates = 0, 0, 10*time.Millisecond })
	for _, path := range []string{"/star", "/rewritten", "/tcp", "/users", "/asked", "/one", "/two"} {
		r.send(http.MethodGet, r.url("web")+path, "Authorization", "Bearer e30.e30.e30")
	}
	verify.NoError(t, os.WriteFile(users, []byte("ada:$2y$05$"+s.of("users_file")+"\n"), 0o600))
	look := func(path string) string {
		return r.do(r.request(http.MethodGet, r.url("admin")+path, nil, "Authorization", "Bearer "+token)).body
	}
	r.awaitLog("the file of users cannot be used")
	r.awaitLog("the keys of an issuer of tokens cannot be read")
	r.awaitLog("the collector does not take them")
	r.awaitLog("no certificate was issued")
	r.awaitLog("registered")
	r.await("both issuers have failed", func() bool { return strings.Count(look("/api/keys"), "malformed HTTP") == 2 })

	number := r.history.Current().Number
	r.write(strings.Replace(first, "http://"+issuer, "ftp://"+issuer, 1))
	r.Reload()
	r.awaitLog("configuration refused")
	r.write(text(fmt.Sprintf("  etcd: { etcd: { endpoints: [\"http://127.0.0.1:1\"], key: /star, user: sluice, password_file: %q } }\n", s.file("password_file")))) // each secret has changed
	r.Reload()
	r.awaitRevision(number + 1)
	r.awaitLog("etcd http://127.0.0.1:1: no answer")

	read := 0
	var description struct{ Paths map[string]map[string]any }
	verify.NoError(t, json.Unmarshal([]byte(look("/api/openapi.json")), &description))
	for path, methods := range description.Paths {
		if methods["get"] == nil || strings.HasPrefix(path, "/debug") {
			continue
		}
		path = strings.NewReplacer("{service}", "star", "{number}", "1", "{from}", "1", "{to}", fmt.Sprint(number+1)).Replace(path)
		switch path {
		case "/api/route":
			path += "?all=true&url=http://h/star"
		case "/api/events":
			path += "?format=json&limit=1000"
		}
		read++
		var but []string
		if path == "/api/replicas" {
			but = []string{checkURL} // as Consul itself shows it, in the output of the check
		}
		found := s.in(look(path), but...)
		verify.That(t, len(found) == 0, "%s shows %q", path, found)
	}
	verify.That(t, read >= 20, "%d paths were read", read)
	verify.That(t, strings.Contains(look("/metrics"), `source="http://`+issuer+`/keys?*** #2"`), "/metrics has one issuer of two that look the same")
	found := s.in(r.log.String())
	verify.That(t, len(found) == 0, "the log shows %q", found)

	d := doctor.New(doctor.Options{Consul: ClientOptions(r.history.Current().Config.Consul, zerolog.Nop()), Config: r.history.Current().Config})
	defer d.Close()
	report := verify.Result(d.Examine(t.Context())).Must(t)
	var out strings.Builder
	verify.NoError(t, report.WriteText(&out))
	found = s.in(out.String(), checkURL) // as in /api/replicas
	verify.That(t, len(found) == 0, "the doctor shows %q", found)
}
