package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/admin"
	"sluice/certificates"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// trust makes the client expect a certificate in file, for the name.
func (r *running) trust(file, name string) {
	r.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(verify.Result(os.ReadFile(file)).Must(r.t))
	r.client.Transport = &http.Transport{
		DisableKeepAlives: true, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name},
	}
}

// show makes the client use a certificate; "": none. It returns the client's transport.
func (r *running) show(cert, key string) *http.Transport {
	r.t.Helper()
	config := &tls.Config{InsecureSkipVerify: true}
	if cert != "" {
		pair := verify.Result(tls.LoadX509KeyPair(cert, key)).Must(r.t)
		// Without a callback, a client keeps back what the server does not trust.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}
	r.client.Transport = transport
	return transport
}

// secureURL returns the URL of a listener with TLS.
func (r *running) secureURL(listener string) string { return "https://" + r.Address(listener).String() }

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

// A proxyConn is a connection of a proxy, which sends a header before the first bytes of its
// client.
type proxyConn struct {
	net.Conn
	header []byte
}

func (c *proxyConn) Write(b []byte) (int, error) {
	header := c.header
	c.header = nil
	_, err := c.Conn.Write(append(header, b...))
	return len(b), err
}

// secureListener returns a listener with a certificate, and more settings of tls, as YAML.
func secureListener(name string, files testcert.Files, more string) string {
	return fmt.Sprintf("  - { name: %s, address: '127.0.0.1:0', tls: { certificates: [{ cert: %q, key: %q }]%s } }\n", name, files.Cert, files.Key, more)
}

// A client gets the certificate for its server name, and the peer the header of a request over
// HTTPS. A listener redirects to another one, which asks browsers to come there directly.
func TestServesHTTPS(t *testing.T) {
	t.Parallel()
	peer := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Forwarded-Proto")) })
	dir := t.TempDir()
	a, b := testcert.Write(t, dir, "a.example"), testcert.Write(t, dir, "b.example")
	r := start(t, fmt.Sprintf(`
listeners:
  - { name: web, address: "127.0.0.1:0" }
  - { name: redirecting, address: "127.0.0.1:0", redirect_https: { port: 8443 } }
  - name: websecure
    address: "127.0.0.1:0"
    tls: { certificates: [{ cert: %q, key: %q }, { cert: %q, key: %q }], hsts: { subdomains: true } }
`, a.Cert, a.Key, b.Cert, b.Key)+static("star", peer))
	r.gets("/", "http")
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	got := r.do(r.request("GET", r.url("redirecting")+"/a", nil))
	verify.That(t, got.StatusCode == 308 && got.Header.Get("Location") == "https://127.0.0.1:8443/a", "got %d, %v", got.StatusCode, got.Header)
	for name, files := range map[string]testcert.Files{"a.example": a, "b.example": b} {
		r.trust(files.Cert, name)
		got := r.do(r.request("GET", r.secureURL("websecure"), nil))
		verify.That(t, got.StatusCode == 200 && got.body == "https", "%s: got %d %q", name, got.StatusCode, got.body)
		verify.Equal(t, got.Header.Get("Strict-Transport-Security"), "max-age=31536000; includeSubDomains", "%s", name)
	}
}

// Clients choose among the cipher suites of TLS 1.2 that are safe, and no older version.
func TestSafeSuitesOnly(t *testing.T) {
	t.Parallel()
	site := testcert.Write(t, t.TempDir(), "a.example")
	r := start(t, fmt.Sprintf("admin: { address: '127.0.0.1:0', tls: { cert: %q, key: %q } }\nlisteners:\n", site.Cert, site.Key)+
		secureListener("web", site, "")+static("star", "127.0.0.1:1"))
	for _, listener := range []string{"web", "admin"} {
		accepts := func(c *tls.Config) bool {
			c.InsecureSkipVerify = true
			conn, err := tls.Dial("tcp", r.Address(listener).String(), c)
			if err == nil {
				conn.Close()
			}
			return err == nil
		}
		safe := 0
		for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			if !accepts(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID}}) {
				continue
			}
			if safe++; !strings.Contains(suite.Name, "_GCM_") && !strings.Contains(suite.Name, "_POLY1305_") || !strings.HasPrefix(suite.Name, "TLS_ECDHE_") {
				t.Errorf("%s: a client may use %s", listener, suite.Name)
			}
		}
		verify.That(t, safe >= 3, "%s: clients may use %d suites", listener, safe) // of the kind of the key
		verify.That(t, !accepts(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}), "%s: a client may use TLS 1.1", listener)
	}
}

// Sessions are resumed after a change of the listener, with the key before, and in a
// new process.
func TestSessionTickets(t *testing.T) {
	t.Parallel()
	peer, site := origin(t, "star"), testcert.Write(t, t.TempDir(), "a.example")
	text := func(name string) string {
		return "listeners:\n" + secureListener(name, site, "") + static("star", peer)
	}
	r := start(t, text("web"))
	r.show("", "").TLSClientConfig = &tls.Config{InsecureSkipVerify: true, ServerName: "a.example", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	resumes := func(r *running, listener string) bool {
		t.Helper()
		return r.do(r.request("GET", r.secureURL(listener), nil)).TLS.DidResume
	}
	verify.That(t, !resumes(r, "web"), "the first connection resumes a session")
	verify.That(t, resumes(r, "web"), "the second connection does not resume the session")
	r.replace(text("other"))
	verify.That(t, resumes(r, "other"), "the session is lost in a reload")
	r.Gateway.certificates.RotateKeys(time.Now().Add(certificates.TicketKeyEvery))
	verify.That(t, resumes(r, "other"), "the session is lost with a new key")
	next := r.upgrade(text("web"), nil)
	next.client = r.client
	verify.That(t, resumes(next, "web"), "the session is lost in a new process")
	for n := range certificates.MaxTicketKeys {
		r.Gateway.certificates.RotateKeys(time.Now().Add(time.Duration(n+2) * (certificates.TicketKeyEvery + time.Hour)))
	}
	verify.That(t, !resumes(r, "other"), "a session outlives its keys")
}

// Requests go to the peers over TLS. A change of the settings applies to the next
// request, and other changes keep the connections.
func TestTLSToPeers(t *testing.T) {
	t.Parallel()
	files := testcert.Write(t, t.TempDir(), "peer.example")
	var opened atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, opened.Load()) }))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{verify.Result(tls.LoadX509KeyPair(files.Cert, files.Key)).Must(t)}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	peer := server.Listener.Addr().String()
	text := func(settings, other string) string {
		return fmt.Sprintf(`
services: { star: { peers: [%q], upstream: { tls: { %s } }, keepalive: { idle: 1h }, health: { passive: { consecutive_failures: 0 } }%s } }
routes: [{ service: star }]
`, peer, settings, other)
	}
	good := fmt.Sprintf("ca: %q, server_name: peer.example", files.Cert)
	r := start(t, text(good, ""))
	r.gets("/", "1")
	for _, step := range []struct{ text, want string }{
		{text(good, ", wait_for_peer: 1s"), "1"}, {text("skip_verify: true", ""), "2"},
	} {
		r.await("the end of the request before", func() bool { return r.peers()[peer].Inflight == 0 })
		r.replace(step.text)
		r.gets("/", step.want, step.text)
	}
	r.replace(text(fmt.Sprintf("ca: %q, server_name: a.example", files.Cert), ""))
	status, body := r.get("/")
	verify.That(t, status == 502 && strings.Contains(body, "no TLS connection"), "another name: %d %s", status, body)
	verify.Contains(t, r.log.String(), "peer.example, not a.example", "the log has no reason")
	all := fetch[[]admin.Certificate](r, "/api/certificates")
	verify.That(t, len(all) == 1 && all[0].UsedBy == `peers of service "star"`, "/api/certificates: %+v", all)
}
