package gateway

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/admin"
	"sluice/certificates"
	"sluice/test/consultest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// show makes the client use a certificate; "": none.
func (r *running) show(cert, key string) {
	r.t.Helper()
	config := &tls.Config{InsecureSkipVerify: true}
	if cert != "" {
		pair := verify.Result(tls.LoadX509KeyPair(cert, key)).Must(r.t)
		// Without a callback, a client keeps back what the server does not trust.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	r.client.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}
}

// A listener with client_ca accepts clients with a certificate of it, and others only
// if that is optional. Peers get the identity. The CA is read again.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	peer := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "got "+strings.Join(r.Header.Values("X-Forwarded-Client-Cert"), " and "))
	})
	dir := t.TempDir()
	site := testcert.Write(t, dir, "a.example")
	first, second := consultest.NewAuthority(t, "First CA"), consultest.NewAuthority(t, "Second CA")
	trusted := dir + "/ca.pem"
	trust := func(a *consultest.Authority) {
		t.Helper()
		data := verify.Result(os.ReadFile(a.File)).Must(t)
		verify.NoError(t, os.WriteFile(trusted, data, 0o600))
	}
	trust(first)
	certificates := fmt.Sprintf("certificates: [{ cert: %q, key: %q }], client_ca: %q", site.Cert, site.Key, trusted)
	r := start(t, fmt.Sprintf(`
listeners:
  - { name: required, address: "127.0.0.1:0", tls: { %s } }
  - { name: optional, address: "127.0.0.1:0", tls: { %s, client_auth: optional } }
`, certificates, certificates)+static("star", peer))

	good, goodKey := first.Issue("good", "client.example")
	other, otherKey := second.Issue("other")
	expect := func(listener, what, want string) {
		t.Helper()
		status, body := r.getSecure(listener)
		if want == "" && status != 0 || want != "" && (status != 200 || !strings.HasPrefix(body, "got ") || !strings.HasSuffix(body, want)) {
			t.Errorf("%s, %s: got %d %q, want the end %q", listener, what, status, body, want)
		}
	}
	const none = "got "
	r.show("", "")
	expect("required", "no certificate", "")
	expect("optional", "no certificate", none)
	r.show(good, goodKey)
	expect("required", "a certificate", `;Subject="CN=good";DNS=client.example`)
	expect("optional", "a certificate", `;Subject="CN=good";DNS=client.example`)
	r.show(other, otherKey)
	expect("required", "another CA", "")
	expect("optional", "another CA", "")
	trust(second)
	r.Gateway.certificates.Refresh()
	expect("required", "the CA has changed", `;Subject="CN=other"`)
	r.show(good, goodKey)
	expect("required", "the CA before", "")
}

// Clients choose among the cipher suites of TLS 1.2 that are safe, and no older version.
func TestSafeSuitesOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	site := testcert.Write(t, dir, "a.example")
	pair := fmt.Sprintf("{ cert: %q, key: %q }", site.Cert, site.Key)
	r := start(t, fmt.Sprintf(`
admin: { address: "127.0.0.1:0", tls: %[1]s }
listeners: [{ name: web, address: "127.0.0.1:0", tls: { certificates: [%[1]s] } }]
`, pair)+static("star", serveOrigin(t, func(http.ResponseWriter, *http.Request) {})))
	for _, listener := range []string{"web", "admin"} {
		safe := 0
		for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			conn, err := tls.Dial("tcp", r.Address(listener).String(), &tls.Config{
				InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID},
			})
			if err != nil {
				continue
			}
			conn.Close()
			if safe++; !strings.Contains(suite.Name, "_GCM_") && !strings.Contains(suite.Name, "_POLY1305_") || !strings.HasPrefix(suite.Name, "TLS_ECDHE_") {
				t.Errorf("%s: a client may use %s", listener, suite.Name)
			}
		}
		verify.That(t, safe >= 3, "%s: clients may use %d suites", listener, safe) // of the kind of the key
		if conn, err := tls.Dial("tcp", r.Address(listener).String(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
			conn.Close()
			t.Errorf("%s: a client may use TLS 1.1", listener)
		}
	}
}

// A route with client_certificate is closed to clients without one, on every listener.
func TestRouteForClientsWithCertificates(t *testing.T) {
	t.Parallel()
	peer := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {})
	site := testcert.Write(t, t.TempDir(), "a.example")
	authority := consultest.NewAuthority(t, "CA")
	r := start(t, fmt.Sprintf(`
listeners:
  - { name: plain, address: "127.0.0.1:0" }
  - { name: secure, address: "127.0.0.1:0", tls: { certificates: [{ cert: %[1]q, key: %[2]q }] } }
  - { name: optional, address: "127.0.0.1:0", tls: { certificates: [{ cert: %[1]q, key: %[2]q }], client_ca: %[3]q, client_auth: optional } }
services: { star: { peers: [%[4]q] } }
routes:
  - { service: star }
  - { path: /admin, service: star, client_certificate: required }
`, site.Cert, site.Key, authority.File, peer))
	good, goodKey := authority.Issue("good", "client.example")
	for _, test := range []struct {
		scheme, listener, cert, key string
		want                        int
	}{
		{"http", "plain", "", "", 403}, {"https", "secure", "", "", 403}, {"https", "secure", good, goodKey, 403},
		{"https", "optional", "", "", 403}, {"https", "optional", good, goodKey, 200},
	} {
		for version := 1; version <= 2; version++ {
			r.show(test.cert, test.key)
			r.client.Transport.(*http.Transport).ForceAttemptHTTP2 = version == 2
			for path, want := range map[string]int{"/": 200, "/admin": test.want, "/admin/x": test.want, "/admin/%2e%2e/x": 400} {
				response := verify.Result(r.client.Get(test.scheme + "://" + r.Address(test.listener).String() + path)).Must(t)
				response.Body.Close()
				reason := response.Header.Get("X-Sluice-Reason")
				if response.StatusCode != want || want == 403 && reason != "certificate_required" || want == 400 && reason != "unsafe_path" {
					t.Errorf("%s, certificate %v, HTTP/%d, %s: got %d %q, want %d", test.listener, test.cert != "", version, path, response.StatusCode, reason, want)
				}
			}
		}
	}
}

// Clients cannot forge the identity, by HTTP/1.1 and by HTTP/2, and connections of
// listeners with client_ca resume no session: each is verified.
func TestIdentityCannotBeForged(t *testing.T) {
	t.Parallel()
	peer := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%q %q", r.Header.Values("X-Forwarded-Client-Cert"), r.Trailer)
	})
	site := testcert.Write(t, t.TempDir(), "a.example")
	authority := consultest.NewAuthority(t, "CA")
	r := start(t, fmt.Sprintf(`
listeners:
  - { name: web, address: "127.0.0.1:0", tls: { certificates: [{ cert: %[1]q, key: %[2]q }] } }
  - { name: optional, address: "127.0.0.1:0", tls: { certificates: [{ cert: %[1]q, key: %[2]q }], client_ca: %[3]q, client_auth: optional } }
client: { trusted_proxies: [127.0.0.0/8], keep_underscores: true }
`, site.Cert, site.Key, authority.File)+static("star", peer))
	good, goodKey := authority.Issue("good", "client.example")
	for _, test := range []struct {
		listener, cert, key string
		want                int // identities
	}{{"web", "", "", 0}, {"web", good, goodKey, 0}, {"optional", "", "", 0}, {"optional", good, goodKey, 1}} {
		for version := 1; version <= 2; version++ {
			r.show(test.cert, test.key)
			transport := r.client.Transport.(*http.Transport)
			transport.ForceAttemptHTTP2 = version == 2
			transport.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			for range 2 {
				request := verify.Result(http.NewRequest(http.MethodPost, "https://"+r.Address(test.listener).String(), io.MultiReader(strings.NewReader("body")))).Must(t)
				request.Header.Set("X-Forwarded-Client-Cert", "Hash=forged")
				request.Header.Set("X_forwarded-client-cert", "Hash=forged")
				request.Header.Set("Connection", "X-Forwarded-Client-Cert")
				if version == 2 {
					request.Header.Del("Connection")
				}
				request.Trailer = http.Header{"X-Forwarded-Client-Cert": {"Hash=forged"}}
				response := verify.Result(r.client.Do(request)).Must(t)
				body, _ := io.ReadAll(response.Body)
				response.Body.Close()
				text := string(body)
				if response.ProtoMajor != version || strings.Contains(text, "forged") || strings.Count(text, "Hash=") != test.want {
					t.Errorf("%s by HTTP/%d: got %s, want %d identities", test.listener, response.ProtoMajor, text, test.want)
				}
				verify.That(t, test.listener != "optional" || !response.TLS.DidResume, "%s by HTTP/%d resumes a session", test.listener, version)
			}
		}
	}
}

// Sessions are resumed after a change of the listener, with the key before, and in a
// new process.
func TestSessionTickets(t *testing.T) {
	t.Parallel()
	peer := serveOrigin(t, func(http.ResponseWriter, *http.Request) {})
	site := testcert.Write(t, t.TempDir(), "a.example")
	text := func(name string) string {
		return fmt.Sprintf(`
listeners: [{ name: %s, address: "127.0.0.1:0", tls: { certificates: [{ cert: %q, key: %q }] } }]
`, name, site.Cert, site.Key) + static("star", peer)
	}
	r := start(t, text("web"))
	cache := tls.NewLRUClientSessionCache(1)
	r.client.Transport = &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: "a.example", ClientSessionCache: cache},
	}
	resumes := func(r *running, listener string) bool {
		t.Helper()
		response := verify.Result(r.client.Get("https://" + r.Address(listener).String())).Must(t)
		defer response.Body.Close()
		io.Copy(io.Discard, response.Body)
		return response.TLS.DidResume
	}
	verify.That(t, !resumes(r, "web"), "the first connection resumes a session")
	verify.That(t, resumes(r, "web"), "the second connection does not resume the session")
	r.write(text("other"))
	r.Reload()
	r.await("the listener", func() bool { return r.Address("other") != nil })
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
	dir := t.TempDir()
	files := testcert.Write(t, dir, "peer.example")
	pair := verify.Result(tls.LoadX509KeyPair(files.Cert, files.Key)).Must(t)
	var mu sync.Mutex
	clients := make(map[string]bool)
	peer := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		clients[r.RemoteAddr] = true
		fmt.Fprint(w, len(clients))
	}))
	peer.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	peer.Config.ErrorLog = log.New(io.Discard, "", 0)
	peer.StartTLS()
	defer peer.Close()
	text := func(settings, other string) string {
		return fmt.Sprintf(`
services: { star: { peers: [%q], upstream: { tls: { %s } }, keepalive: { idle: 1h }, health: { passive: { consecutive_failures: 0 } }%s } }
routes: [{ service: star }]
`, peer.Listener.Addr(), settings, other)
	}
	good := fmt.Sprintf("ca: %q, server_name: peer.example", files.Cert)
	r := start(t, text(good, ""))
	expect := func(what string, wantStatus int, wantBody string) {
		t.Helper()
		r.await("the end of the request before", func() bool { return r.peers()[peer.Listener.Addr().String()].Inflight == 0 })
		status, body := r.get("/")
		verify.That(t, status == wantStatus && strings.Contains(body, wantBody), "%s: got %d %q, want %d %q", what, status, body, wantStatus, wantBody)
	}
	expect("verified", 200, "1")
	expect("again", 200, "1")
	r.replace(text(good, ", wait_for_peer: 1s"))
	expect("another key", 200, "1")
	r.replace(text("insecure: true", ""))
	expect("other settings", 200, "2")
	r.replace(text(fmt.Sprintf("ca: %q, server_name: a.example", files.Cert), ""))
	expect("another name", 502, "no TLS connection")
	verify.Contains(t, r.log.String(), "peer.example, not a.example", "the log has no reason")
	all := fetch[[]admin.Certificate](r, "/api/certificates")
	verify.That(t, len(all) == 1 && all[0].UsedBy == `peers of service "star"`, "/api/certificates: %+v", all)
}

// A listener redirects to another one, which asks browsers to come there directly.
func TestRedirectToHTTPS(t *testing.T) {
	t.Parallel()
	peer := serveOrigin(t, func(http.ResponseWriter, *http.Request) {})
	site := testcert.Write(t, t.TempDir(), "a.example")
	r := start(t, fmt.Sprintf(`
listeners:
  - { name: web, address: "127.0.0.1:0", redirect_https: { port: 8443 } }
  - name: websecure
    address: "127.0.0.1:0"
    tls: { certificates: [{ cert: %q, key: %q }], hsts: { subdomains: true } }
`, site.Cert, site.Key)+static("star", peer))
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response := verify.Result(r.client.Get(r.url("web") + "/a")).Must(t)
	response.Body.Close()
	got := response.Header.Get("Location")
	verify.That(t, response.StatusCode == 308 && got == "https://127.0.0.1:8443/a", "got %d to %s", response.StatusCode, got)
	r.show("", "")
	response = verify.Result(r.client.Get("https://" + r.Address("websecure").String())).Must(t)
	response.Body.Close()
	verify.Equal(t, response.Header.Get("Strict-Transport-Security"), "max-age=31536000; includeSubDomains", "result")
}
