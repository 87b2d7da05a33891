package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/admin"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// A client gets the certificate for its server name, and the peer the header of a request over
// HTTPS.
func TestServesHTTPS(t *testing.T) {
	t.Parallel()
	peer := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Forwarded-Proto")) })
	dir := t.TempDir()
	a, b := testcert.Write(t, dir, "a.example"), testcert.Write(t, dir, "b.example")
	r := start(t, fmt.Sprintf(`
listeners:
  - { name: web, address: "127.0.0.1:0" }
  - name: websecure
    address: "127.0.0.1:0"
    tls: { certificates: [{ cert: %q, key: %q }, { cert: %q, key: %q }] }
`, a.Cert, a.Key, b.Cert, b.Key)+static("star", peer))
	r.gets("/", "http")
	for name, files := range map[string]testcert.Files{"a.example": a, "b.example": b} {
		r.trust(files.Cert, name)
		status, body := r.getSecure("websecure")
		verify.That(t, status == 200 && body == "https", "%s: got %d %q", name, status, body)
	}
}

// trust makes the client expect a certificate in file, for the name.
func (r *running) trust(file, name string) {
	r.t.Helper()
	root := verify.Result(os.ReadFile(file)).Must(r.t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	r.client.Transport = &http.Transport{
		DisableKeepAlives: true, ForceAttemptHTTP2: true, // it is not agreed to
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name},
	}
}

// getSecure sends a request to a listener with TLS. Without an answer, the status is 0.
func (r *running) getSecure(listener string) (status int, body string) {
	r.t.Helper()
	return read(r.client.Get("https://" + r.Address(listener).String()))
}

// read reads a response. Without one, the status is 0.
func read(response *http.Response, err error) (status int, body string) {
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(all)
}

// A listener uses a changed certificate without a reload, and keeps the previous one
// while the files cannot be used.
func TestCertificateOfListenerChanges(t *testing.T) {
	t.Parallel()
	peer := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {})
	dir := t.TempDir()
	files := testcert.Write(t, dir, "a.example")
	r := start(t, fmt.Sprintf(`
listeners: [{ name: websecure, address: "127.0.0.1:0", tls: { certificates: [{ cert: %q, key: %q }] } }]
`, files.Cert, files.Key)+static("star", peer))
	expect := func(what, trusted string, want int) {
		t.Helper()
		r.Gateway.certificates.Refresh()
		r.trust(trusted, "a.example")
		status, body := r.getSecure("websecure")
		verify.That(t, status == want, "%s: got %d %s", what, status, body)
	}
	old := filepath.Join(dir, "old.pem")
	verify.NoError(t, os.Rename(files.Cert, old))
	expect("no file", old, 200)
	ready := fetch[admin.Readiness](r, "/readyz")
	verify.That(t, len(ready.Certificates) == 1 && strings.Contains(ready.Certificates[0], "no such file"), "/readyz: %+v", ready)
	testcert.Write(t, dir, "a.example", testcert.Lasting(-90*24*time.Hour, 24*time.Hour))
	expect("changed", files.Cert, 200)
	expect("the old one", old, 0)
	all := fetch[[]admin.Certificate](r, "/api/certificates")
	verify.That(t, len(all) == 1 && all[0].State == "expiring" && all[0].Error == "", "/api/certificates: %+v", all)
}
