package gateway

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/sluicetest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// replicaOf returns the configuration of a sluice with a certificate for name by ACME in
// Consul. Tests that run at the same time need different names: in a process, certmagic does
// one job for a name at a time. settings are those of consul. plain and secure are the ports
// of its listeners; without plain it uses TLS-ALPN-01 only.
func (p *pebble) replicaOf(name, settings string, plain, secure int, peer string) string {
	listeners := ""
	if plain > 0 {
		listeners = fmt.Sprintf("  - { name: web, address: \"127.0.0.1:%d\", redirect_https: {} }\n", plain)
	}
	return fmt.Sprintf(`
admin: { address: "127.0.0.1:0" }
access_log: { path: "off" }
consul: { %s }
listeners:
%s  - name: websecure
    address: "127.0.0.1:%d"
    tls: { acme: { names: [%s], directory: "https://127.0.0.1:%d/dir", consul_kv: sluice-acme, ca: %q } }
`, settings, listeners, secure, name, p.directory, p.ca) + static("star", peer)
}

// awaitObtained waits until the certificate is served on a port, and returns its serial
// number.
func awaitObtained(t *testing.T, what, name string, port int) (serial string) {
	t.Helper()
	consultest.Await(t, what, func() bool {
		serial = servedAt("127.0.0.1:"+strconv.Itoa(port), name)
		return serial != ""
	})
	return serial
}

// startProcess runs the program with a configuration until the test ends: certmagic keeps
// the challenges and the orders of all replicas of a process together.
func startProcess(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	verify.NoError(t, sluicetest.Build(t.Context(), dir, "sluice"))
	file := filepath.Join(dir, "sluice.yaml")
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	log := new(subprocess.Output)
	command := exec.Command(filepath.Join(dir, "sluice"), "run", "--config", file)
	command.Stdout, command.Stderr = log, log
	verify.NoError(t, command.Start())
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
		if t.Failed() {
			t.Logf("log of the process:\n%s", log)
		}
	})
}

// issued returns how many certificates the server has issued.
func (p *pebble) issued() int { return strings.Count(p.log.String(), "Issued certificate serial") }

// Two replicas that start at the same time have one certificate, which one of them has
// ordered. A third one that comes later orders nothing. All values are encrypted.
func TestReplicasOrderOnce(t *testing.T) {
	t.Parallel()
	long.Test(t)
	const name = "once.example"
	agent := consultest.Start(t, consultest.Options{})
	port := func() int { return consultest.ReservePort(t) }
	peer := serveOrigin(t, func(http.ResponseWriter, *http.Request) {})
	p := &pebble{plain: port(), secure: port()}
	p.start(t)
	settings := fmt.Sprintf("addresses: [%q]", agent.URL())
	two, three := port(), port()
	key := filepath.Join(t.TempDir(), "acme.key")
	verify.NoError(t, os.WriteFile(key, []byte("YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="), 0o600))
	replica := func(port int) string {
		text := p.replicaOf(name, settings, 0, port, peer)
		return strings.Replace(text, "consul_kv: sluice-acme", fmt.Sprintf("consul_kv: sluice-acme, encryption_keys: [%q]", key), 1)
	}
	startProcess(t, replica(p.secure)) // gets all challenges
	start(t, replica(two))
	first := awaitObtained(t, "a certificate", name, p.secure)
	second := awaitObtained(t, "the same certificate", name, two)
	verify.That(t, second == first, "the replicas have the certificates %s and %s", first, second)
	start(t, replica(three))
	verify.Equal(t, awaitObtained(t, "the certificate of the others", name, three), first, "a later replica has the certificate")
	verify.Equal(t, p.issued(), 1, "certificates were issued")
	pairs, _, err := agent.Client().KV().List("sluice-acme/", nil)
	verify.NoError(t, err)
	for _, pair := range pairs {
		text := string(pair.Value)
		verify.That(t, !strings.Contains(text, "BEGIN") && (!strings.Contains(text, "{") || !strings.Contains(text, name)),
			"%s is in plain text: %q", pair.Key, text)
	}
	consultest.Await(t, "no lock is left", func() bool {
		keys, _, err := agent.Client().KV().Keys("sluice-acme/locks/", "", nil)
		sessions, _, sessionsErr := agent.Client().Session().List(nil)
		return err == nil && sessionsErr == nil && len(keys)+len(sessions) == 0
	})
}

// A replica that cannot order, since its token may only read, answers the HTTP-01
// challenges of another one. When it may write, it uses the other's certificate.
func TestHTTPChallengeAtAnotherReplica(t *testing.T) {
	t.Parallel()
	long.Test(t)
	const name = "challenge.example"
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	rules := verify.Result(consultest.DocumentedPolicy("../docs/tls.md", "### Storage in Consul")).Must(t)
	_, may, err := agent.NewToken("orders", rules)
	verify.NoError(t, err)
	_, mayRead, err := agent.NewToken("reads", `key_prefix "sluice-acme/" { policy = "read" }`)
	verify.NoError(t, err)
	file := filepath.Join(t.TempDir(), "token")
	replaceFile(t, file, mayRead.SecretID)
	port := func() int { return consultest.ReservePort(t) }
	peer := serveOrigin(t, func(http.ResponseWriter, *http.Request) {})
	p := &pebble{plain: port(), secure: port()} // TLS-ALPN-01 fails
	p.start(t)
	ordering, answering := port(), port()
	answers := start(t, p.replicaOf(name, fmt.Sprintf("addresses: [%q], token_file: %q", agent.URL(), file), p.plain, answering, peer))
	answers.await("it finds that it may not order", func() bool {
		c := answers.certificates()["acme:"+name]
		return c.State == "missing" && strings.Contains(c.Error, "403")
	})
	startProcess(t, p.replicaOf(name, fmt.Sprintf("addresses: [%q], token: %q", agent.URL(), may.SecretID), port(), ordering, peer))
	first := awaitObtained(t, "a certificate by the answer of the other replica", name, ordering)
	verify.Equal(t, answers.served("websecure", name), "", "the replica without permission has the certificate")
	replaceFile(t, file, may.SecretID)
	second := awaitObtained(t, "the certificate of the other replica", name, answering)
	verify.That(t, second == first, "the replicas have the certificates %s and %s", first, second)
	verify.Equal(t, p.issued(), 1, "certificates were issued")
}
