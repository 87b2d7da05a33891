package gateway

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"sluice/admin"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// Certificates are obtained by either challenge, from a real ACME server, and are
// loaded from the storage after a restart.
func TestACME(t *testing.T) {
	t.Parallel()
	for _, challenge := range []string{"tls-alpn-01", "http-01"} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			host := challenge + ".example" // certmagic does one job for a name at a time
			plain, secure := consultest.ReservePort(t), consultest.ReservePort(t)
			p := pebble{plain: plain, secure: secure}
			listener := fmt.Sprintf("  - { name: web, address: \"127.0.0.1:%d\", redirect_https: {} }\n", plain)
			if challenge == "http-01" {
				p.secure = consultest.ReservePort(t) // TLS-ALPN-01 fails there
			} else {
				listener = ""
			}
			p.start(t)
			sluice := fmt.Sprintf(`
listeners:
%s  - name: websecure
    address: "127.0.0.1:%d"
    tls: { acme: { names: [%s], directory: "https://127.0.0.1:%d/dir", storage: %q, ca: %q } }
`, listener, secure, host, p.directory, filepath.Join(t.TempDir(), "acme"), p.ca) +
				static("star", serveOrigin(t, func(http.ResponseWriter, *http.Request) {}))
			obtained := func(r *running) (serial string) {
				t.Helper()
				r.await("the certificate", func() bool { serial = r.served("websecure", host); return serial != "" })
				return serial
			}
			r := start(t, sluice)
			first := obtained(r)
			all := fetch[[]admin.Certificate](r, "/api/certificates")
			verify.That(t, len(all) == 1 && all[0].State == "valid", "/api/certificates: %+v", all)
			orders := strings.Count(p.log.String(), "POST /order-plz")
			r.end()
			r = start(t, sluice)
			verify.Equal(t, obtained(r), first, "another certificate after a restart")
			n := strings.Count(p.log.String(), "POST /order-plz")
			verify.That(t, n == orders, "%d orders after a restart", n-orders)
		})
	}
}

// HTTP-01 is used as long as there is a listener for it.
func TestACMEFollowsTheListeners(t *testing.T) {
	t.Parallel()
	peer := serveOrigin(t, func(http.ResponseWriter, *http.Request) {})
	text := func(web string) string {
		return fmt.Sprintf(`
listeners:
%s  - { name: websecure, address: "127.0.0.1:0", tls: { acme: { names: [a.example], directory: "https://127.0.0.1:1/dir", storage: %q } } }
`, web, filepath.Join(t.TempDir(), "acme")) + static("star", peer)
	}
	const web = "  - { name: web, address: \"127.0.0.1:0\" }\n"
	with := text(web)
	without := strings.Replace(with, web, "", 1)
	r := start(t, without)
	for i, text := range []string{without, with, without} {
		if i > 0 {
			r.replace(text)
		}
		all := r.listeners.all()
		verify.That(t, all[len(all)-1].tls.Suits(r.effective.Load()), "after %d reloads, HTTP-01 is used without a listener for it, or not with one", i)
	}
}
