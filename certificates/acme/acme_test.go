package acme

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"sluice/certificates"
	"sluice/certificates/acme/dns01"
	"sluice/config/units"
	"sluice/test/consultest"
	"sluice/test/parallel"
	"sluice/test/testcert"
	"sluice/test/verify"
)

var shared consultest.Shared

// Tests with a real Consul mostly wait.
func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	status := m.Run()
	_ = shared.Close()
	os.Exit(status)
}

// challengePath is the prefix of the paths of the challenge HTTP-01.
const challengePath = "/.well-known/acme-challenge/"

func newManager(t *testing.T, o Options) *Manager {
	t.Helper()
	if o.Directory.IsZero() {
		o.Directory = units.NewLocation("https://127.0.0.1:1/dir")
	}
	m := verify.Result(New(o)).Must(t)
	t.Cleanup(func() {
		m.Close()
		m.Close() // may be called again
	})
	return m
}

// numbered returns a certificate with a serial number, which ends after a time.
func numbered(name string, number int64, ends time.Duration) (cert, key []byte) {
	return testcert.PEM(name, testcert.Lasting(-2*time.Hour, ends), func(c *x509.Certificate) { c.SerialNumber.SetInt64(number) })
}

// restore gives m such a certificate.
func restore(m *Manager, name string, number int64, ends time.Duration) {
	cert, key := numbered(name, number, ends)
	m.Restore(map[string]Pair{name: {string(cert), string(key)}})
}

// inUse returns the serial number of the certificate that m has for a name; "": it has none.
func inUse(m *Manager, name string) string {
	c, err := m.Certificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		return ""
	}
	return c.Leaf.SerialNumber.String()
}

// certmagic would start its own server for a challenge at a free address.
func TestChallengesNeedNoServer(t *testing.T) {
	for _, http := range []bool{true, false} {
		m := newManager(t, Options{Storage: t.TempDir(), HTTP: http})
		i := m.issuer
		verify.That(t, i.DisableHTTPChallenge != http, "HTTP %v: HTTP-01 disabled: %v", http, i.DisableHTTPChallenge)
		for _, port := range []int{i.AltHTTPPort, i.AltTLSALPNPort} {
			address := net.JoinHostPort(i.ListenHost, strconv.Itoa(port))
			if l, err := net.Listen("tcp", address); err == nil {
				l.Close()
				t.Errorf("%s is free", address)
			}
			for range 3 { // it is in use by something that answers
				conn := verify.Result(net.Dial("tcp", address)).Must(t)
				conn.Close()
			}
		}
	}
}

// A challenge of another replica is in the storage. The storage is not asked for names of
// others: anyone can send such requests.
func TestHTTPChallengeOfAnotherReplica(t *testing.T) {
	m := newManager(t, Options{Storage: t.TempDir(), HTTP: true})
	verify.NoError(t, m.Manage([]string{"A.example"}))
	storage := m.files.Path
	const token = `{"type":"http-01","token":"abc","keyAuthorization":"abc.key","identifier":{"type":"dns","value":%q}}`
	for _, name := range []string{"a.example", "b.example"} {
		file := filepath.Join(storage, "acme", certmagic.StorageKeys.Safe(m.issuer.IssuerKey()), "challenge_tokens", name+".json")
		verify.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		verify.NoError(t, os.WriteFile(file, fmt.Appendf(nil, token, name), 0o600))
	}
	for _, host := range []string{"a.example", "A.example:80"} {
		body, ok := m.HTTPChallenge(host, challengePath+"abc")
		verify.That(t, ok && string(body) == "abc.key", "%s: got %q, %v", host, body, ok)
	}
	for _, request := range [][2]string{{"b.example", "abc"}, {"a.example", "other"}, {"a.example", ""}} {
		body, ok := m.HTTPChallenge(request[0], challengePath+request[1])
		verify.That(t, !ok, "%s: got %q", request, body)
	}
}

// A manager that cannot read its storage has the certificates that it has restored, and hands
// them on. A name that it no longer manages is forgotten.
func TestRestoredCertificates(t *testing.T) {
	blocked := filepath.Join(os.DevNull, "storage")
	names := []string{"A.example", "b.example"}
	m := newManager(t, Options{Storage: blocked})
	m.Restore(map[string]Pair{"b.example": {"x", "y"}})
	restore(m, "a.example", 1, -time.Hour)
	verify.Equal(t, inUse(m, "a.example"), "", "an expired one")
	restore(m, "a.example", 2, time.Hour)
	restore(m, "a.example", 3, time.Minute)
	verify.NoError(t, m.Manage(names))
	verify.Equal(t, inUse(m, "A.EXAMPLE"), "2", "result")
	next := newManager(t, Options{Storage: blocked})
	next.Restore(m.Pairs())
	verify.NoError(t, next.Manage(names))
	verify.Equal(t, inUse(next, "a.example"), "2", "the next manager")
	all := next.Statuses(names)
	verify.That(t, all[0].State(time.Now()) != certificates.Missing && all[1].State(time.Now()) == certificates.Missing, "statuses: %+v", all)
	verify.NoError(t, next.Manage(names[1:]))
	verify.Equal(t, inUse(next, "a.example"), "", "not managed")
	verify.Equal(t, len(next.Pairs()), 0, "pairs of what is not managed")
}

// A name has the certificate of its own, if that is valid, else the one of its wildcard. The
// statuses are of exactly one name.
func TestWildcards(t *testing.T) {
	m := newManager(t, Options{Storage: filepath.Join(os.DevNull, "storage"), DNS: &dns01.Options{}})
	verify.That(t, m.issuer.DNS01Solver != nil, "DNS-01 is not used")
	names := []string{"*.A.example", "www.a.example", "late.a.example"}
	verify.NoError(t, m.Manage(names))
	restore(m, "*.a.example", 1, 2*time.Hour)
	restore(m, "www.a.example", 2, time.Hour)
	for name, want := range map[string]string{"WWW.a.example": "2", "late.a.example": "1", "other.A.example": "1", "a.example": "", "a.b.a.example": "", "": ""} {
		verify.Equal(t, inUse(m, name), want, "the certificate for %q", name)
	}
	for i, missing := range []bool{false, false, true} {
		verify.Equal(t, m.Statuses(names)[i].State(time.Now()) == certificates.Missing, missing, "%s is missing", names[i])
	}
	verify.Equal(t, len(m.Pairs()), 2, "certificates to hand on")
	m.mu.Lock()
	m.restored["www.a.example"].Leaf.NotAfter = time.Now().Add(-time.Minute)
	m.mu.Unlock()
	verify.Equal(t, inUse(m, "www.a.example"), "1", "the certificate in place of an expired one")
	m.Close()
	m.AwaitRecords()
}
