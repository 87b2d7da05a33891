package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/test/consultest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// kvCertificate writes a certificate for host to Consul, in one key, and returns its serial
// number.
func kvCertificate(t *testing.T, agent *consultest.Agent, key, host string, change ...func(*x509.Certificate)) (serial string) {
	t.Helper()
	number := time.Now().UnixNano()
	change = append(change, func(c *x509.Certificate) { c.SerialNumber.SetInt64(number) })
	cert, private := testcert.PEM(host, change...)
	put(t, agent, key, string(cert)+string(private))
	return fmt.Sprint(number)
}

func put(t *testing.T, agent *consultest.Agent, key, value string) {
	t.Helper()
	verify.Result(agent.Client().KV().Put(&api.KVPair{Key: key, Value: []byte(value)}, nil)).Must(t)
}

// served returns the serial number of the certificate that a client gets; "": none.
func (r *running) served(listener, host string) (serial string) {
	r.t.Helper()
	return servedAt(r.Address(listener).String(), host)
}

func servedAt(address, host string) (serial string) {
	conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: host, InsecureSkipVerify: true})
	if err != nil {
		return ""
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// withoutPolls is for a gateway that is told about every change, or misses it.
func withoutPolls(g *Gateway) { g.waits.certificates = time.Hour }

func (r *running) certificates() map[string]admin.Certificate {
	r.t.Helper()
	all := fetch[[]admin.Certificate](r, "/api/certificates")
	byFile := make(map[string]admin.Certificate)
	for _, c := range all {
		byFile[c.File] = c
	}
	return byFile
}

// One query follows a prefix for several listeners. A change is in use at once. What cannot be used
// is told everywhere, and does not replace what can, also in a new process, which Consul tells that
// there is none. A reload follows other prefixes, and serves clients with them at once.
func TestCertificatesFromConsul(t *testing.T) {
	t.Parallel()
	agent, own := shared.Agent(t)
	web := own + "/web/"
	first := kvCertificate(t, agent, web+"a.example.pem", "a.example")
	elsewhere := kvCertificate(t, agent, own+"/web2/a.example.pem", "a.example")
	put(t, agent, web+"notes.txt", "not a certificate")
	text := fmt.Sprintf(`
consul: { addresses: [%[1]q], wait: 10m }
listeners:
  - { name: web, address: "127.0.0.1:0", tls: { certificates: [{ consul_kv: %[2]s/web }] } }
  - { name: other, address: "127.0.0.1:0", tls: { certificates: [{ consul_kv: %[2]s/web }] } }
`, agent.URL(), own) + static("star", origin(t, "star"))
	r := start(t, text, withoutPolls)
	for _, listener := range []string{"web", "other"} { // from the first connection on
		verify.Equal(t, r.served(listener, "a.example"), first, "%s serves", listener)
	}
	oneLoop := func() bool { _, loops := r.registries.consul.Capacity(); return loops == 1 }
	verify.That(t, oneLoop(), "several loops follow the prefix")
	second := kvCertificate(t, agent, web+"a.example.pem", "a.example")
	r.awaitServed("web", "a.example", second)
	r.awaitServed("other", "a.example", second)

	fault := func(file, want string) {
		t.Helper()
		r.await(file+": "+want, func() bool { return strings.Contains(r.certificates()[file].Error, want) })
	}
	a := "consul_kv:" + web + "a.example.pem"
	kvCertificate(t, agent, web+"a.example.pem", "a.example", testcert.Lasting(-2*time.Hour, -time.Hour))
	fault(a, "has expired")
	verify.Result(agent.Client().KV().DeleteTree(web, nil)).Must(t)
	fault(a, "its key is gone")
	verify.Equal(t, r.served("web", "a.example"), second, "without keys")
	verify.Contains(t, r.text("/readyz"), a, "/readyz")
	verify.Contains(t, r.text("/metrics"), `sluice_certificate_file_error{file="`+a+`",used_by="listener \"web\""} 1`, "no metric of the fault")
	r.awaitLog("its key is gone")
	r = r.upgrade(text, nil)
	fault(a, "its key is gone")
	verify.Equal(t, r.served("web", "a.example"), second, "after an upgrade")
	// Another certificate for the same name takes the place of one that is gone.
	third := kvCertificate(t, agent, web+"new.pem", "a.example")
	r.awaitServed("web", "a.example", third)
	_, there := r.certificates()[a]
	verify.That(t, !there, "the replaced certificate is still listed")
	for _, test := range []struct{ prefix, serial string }{{"web2", elsewhere}, {"web", third}} {
		r.replace(strings.ReplaceAll(text, own+"/web ", own+"/"+test.prefix+" "))
		verify.Equal(t, r.served("web", "a.example"), test.serial, "%s: is served", test.prefix)
		r.await("one loop follows "+test.prefix, oneLoop)
	}
}

// text returns an answer of the admin API.
func (r *running) text(path string) (body string) {
	r.t.Helper()
	return r.do(r.request(http.MethodGet, r.url("admin")+path, nil)).body
}

// What is known stays in use while Consul is away or hides keys. A new process has it from the old
// one, a restarted one from the copy.
func TestCertificatesWhileConsulIsAway(t *testing.T) {
	t.Parallel()
	agent, own := sharedWithACLs.Agent(t)
	_, token, err := agent.NewToken(own, fmt.Sprintf(`key_prefix "%[1]s/" { policy = "read" } key "%[1]s/hidden.pem" { policy = "deny" }`, own))
	verify.NoError(t, err)
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	first := kvCertificate(t, agent, own+"/a.pem", "a.example")
	dir := t.TempDir()
	text := fmt.Sprintf(`
consul: { addresses: [%q], wait: 10m, token: %q, certificates_dir: %q }
listeners: [{ name: web, address: "127.0.0.1:0", tls: { certificates: [{ consul_kv: %s }] } }]
`, relay.URL(), token.SecretID, dir, own) + static("star", origin(t, "star"))
	r := start(t, text, withoutPolls)
	r.awaitServed("web", "a.example", first)
	// ACLs hide a key: the others must not be taken for all.
	put(t, agent, own+"/hidden.pem", "hidden")
	r.await("the fault", func() bool {
		return strings.Contains(r.certificates()["consul_kv:"+own+"/a.pem"].Error, "filtered by ACLs")
	})
	verify.Equal(t, r.served("web", "a.example"), first, "hidden: is served")
	var copies []string
	r.await("the copy", func() bool { copies, _ = filepath.Glob(filepath.Join(dir, "*.json")); return len(copies) == 1 })
	info, err := os.Stat(copies[0])
	verify.That(t, err == nil && info.Mode().Perm() == 0o600, "the copy has the mode %v, %v", info.Mode(), err)
	relay.Cut()
	restarted := start(t, text)
	verify.Equal(t, restarted.served("web", "a.example"), first, "after a restart is served")
	next := r.upgrade(strings.Replace(text, fmt.Sprintf("certificates_dir: %q", dir), "", 1), nil)
	verify.Equal(t, next.served("web", "a.example"), first, "in a new process is served")
	relay.Heal()
	verify.Result(agent.Client().KV().Delete(own+"/hidden.pem", nil)).Must(t)
	second := kvCertificate(t, agent, own+"/a.pem", "a.example")
	restarted.awaitServed("web", "a.example", second)
	next.awaitServed("web", "a.example", second)
}

// A process that replaces another one has the certificates below a prefix that only its
// configuration has, before it serves.
func TestCertificatesBelowANewPrefixInANewProcess(t *testing.T) {
	t.Parallel()
	agent, own := shared.Agent(t)
	first := kvCertificate(t, agent, own+"/a/a.pem", "a.example")
	second := kvCertificate(t, agent, own+"/b/a.pem", "a.example")
	forward := httputil.NewSingleHostReverseProxy(verify.URL(t, agent.URL()))
	slow := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, own+"/b") {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Second / 2): // after a process that does not wait has taken over
			}
		}
		forward.ServeHTTP(w, r)
	})
	text := func(prefix string) string {
		return fmt.Sprintf(`
consul: { addresses: [%q] }
listeners: [{ name: web, address: "127.0.0.1:0", tls: { certificates: [{ consul_kv: %s/%s }] } }]
`, slow, own, prefix) + static("star", origin(t, "star"))
	}
	old := start(t, text("a"))
	verify.Equal(t, old.served("web", "a.example"), first, "the old process serves")
	next := old.succeedAfter(text("b"), nil, func(g *Gateway) { g.waits.start, g.waits.takeover = 0, patience })
	verify.NoError(t, <-next.outcome)
	verify.Equal(t, next.served("web", "a.example"), second, "the new process serves")
}

// awaitServed waits until clients get the certificate.
func (r *running) awaitServed(listener, host, serial string) {
	r.t.Helper()
	r.await(host+" has the certificate "+serial, func() bool { return r.served(listener, host) == serial })
}
