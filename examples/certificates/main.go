// Command certificates shows TLS at a public edge, with a real ACME server on this machine. It
// needs only Go, and ends by itself after about half a minute; the first run builds Pebble, the
// ACME server:
//
//	go run ./examples/certificates
//
// sluice has the configuration of this folder. It proves a wildcard by records at a name server
// (DNS-01, RFC 2136), and accepts TLS 1.3 only. One route is for the client certificate of one
// name, until that is revoked. What clients see is printed. The name server, the app, the authority
// of the clients and the clients are parts of this program; Pebble and sluice are processes.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"sluice/test/acmetest"
	"sluice/test/dnstest"
	"sluice/test/sluicetest"
	"sluice/test/stage"
)

func main() { stage.Run("certificates", show) }

// host is a name that the wildcard is for.
const host = "www.shop.example"

// The serial numbers of the certificates of two clients.
const billing, stock = 2, 3

//go:embed sluice.yaml
var configuration string

// tour is what runs.
type tour struct {
	*stage.Stage
	acme    *acmetest.Server
	zones   *dnstest.Zones
	clients authority
	roots   *x509.CertPool // that clients trust
}

// show shows what clients see.
func show(ctx context.Context, on *stage.Stage) error {
	t := &tour{Stage: on}
	if err := t.start(ctx); err != nil {
		return err
	}
	if err := t.awaitWildcard(ctx); err != nil {
		return err
	}
	_, err := sluicetest.Ask(ctx, t.client(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), http.MethodGet, t.at("/"))
	if err == nil {
		return errors.New("a client with TLS 1.2 was served")
	}
	t.Line("%-44s %v", "a client that has TLS 1.2 at most", errors.Unwrap(err))
	with := make(map[int64]*http.Client)
	for serial, name := range map[int64]string{billing: "billing", stock: "stock"} {
		certificate, err := t.clients.client(name, serial)
		if err != nil {
			return err
		}
		with[serial] = t.client(func(c *tls.Config) { c.Certificates = []tls.Certificate{certificate} })
	}
	for _, look := range []struct {
		what   string
		client *http.Client
		want   string
	}{
		{"GET /orders without a client certificate", t.client(), "403 certificate_required"},
		{"GET /orders with the certificate of stock", with[stock], "403 certificate_denied"},
		{"GET /orders with that of billing", with[billing], "200"},
	} {
		answer, err := sluicetest.Ask(ctx, look.client, http.MethodGet, t.at("/orders"))
		if err != nil {
			return fmt.Errorf("%s: %w", look.what, err)
		}
		if answer.String() != look.want {
			return fmt.Errorf("%s: got %v, want %s", look.what, answer, look.want)
		}
		t.Line("%-44s %v: %s", look.what, answer, answer.Text)
	}
	return t.revoke(ctx, with[billing])
}

// at returns the URL of a path.
func (t *tour) at(path string) string { return "https://" + t.Address("web") + path }

// client returns a client that trusts Pebble's root, until the end.
func (t *tour) client(change ...func(*tls.Config)) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{ServerName: host, RootCAs: t.roots}}
	for _, f := range change {
		f(transport.TLSClientConfig)
	}
	t.End(func() error { transport.CloseIdleConnections(); return nil })
	return &http.Client{Transport: transport}
}

func (t *tour) start(ctx context.Context) (err error) {
	t.Line("Building sluice, and starting a name server, Pebble, an app and sluice.")
	if t.zones, err = dnstest.ServeZones(t.File("records"), "example"); err != nil {
		return err
	}
	t.End(t.zones.Close)
	if t.acme, err = acmetest.StartServer(ctx, t.Directory, acmetest.Options{DNS: t.zones.Address, Progress: t.Out}); err != nil {
		return err
	}
	t.End(t.acme.Close)
	if t.roots, err = t.acme.Root(ctx); err != nil {
		return err
	}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "the app knows", r.Header.Get("X-Forwarded-Client-Cert"))
	}))
	t.End(func() error { app.Close(); return nil })
	if t.clients, err = newAuthority(); err != nil {
		return err
	}
	list, err := t.clients.list()
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"dns.key": []byte(dnstest.UpdateKey), "clients.pem": t.clients.root, "clients.crl": list} {
		if err := t.Replace(name, text); err != nil {
			return err
		}
	}
	here := strings.NewReplacer("/etc/sluice", t.Directory, "/var/lib/sluice", t.Directory, "127.0.0.1:8443", sluicetest.Any,
		"https://127.0.0.1:14000/dir", t.acme.Directory, "127.0.0.1:5353", t.zones.Address, "127.0.0.1:9001", app.Listener.Addr().String())
	return t.Serve(ctx, here.Replace(configuration))
}

// awaitWildcard waits until the certificate is there.
func (t *tour) awaitWildcard(ctx context.Context) error {
	begin, client, answer := time.Now(), t.client(), sluicetest.Answer{}
	if err := t.Await(ctx, sluicetest.Patience, "the certificate", func(ctx context.Context) (obtained bool, err error) {
		answer, err = sluicetest.Ask(ctx, client, http.MethodGet, t.at("/"))
		return err == nil, err
	}); err != nil {
		return err
	}
	leaf := answer.TLS.PeerCertificates[0]
	t.Line("%-44s after %s the certificate of %s by %s, with %s", "a client of "+host, time.Since(begin).Round(100*time.Millisecond),
		strings.Join(leaf.DNSNames, ", "), leaf.Issuer.CommonName, tls.VersionName(answer.TLS.Version))
	changes, _ := t.zones.Counts()
	t.Line("%-44s %d, and %d records are left", "changes of the zone for that", changes, len(t.zones.Left()))
	return nil
}

// revoke revokes the certificate of billing, which has an open connection.
func (t *tour) revoke(ctx context.Context, client *http.Client) error {
	list, err := t.clients.list(billing)
	if err != nil {
		return err
	}
	if err := t.Replace("clients.crl", list); err != nil {
		return err
	}
	begin := time.Now()
	if err := t.Await(ctx, sluicetest.Patience, "the revocation", func(ctx context.Context) (revoked bool, err error) {
		_, err = sluicetest.Ask(ctx, client, http.MethodGet, t.at("/orders"))
		return err != nil, nil
	}); err != nil {
		return err
	}
	t.Line("%-44s its open connection has ended %s after the new list", "billing is revoked", time.Since(begin).Round(100*time.Millisecond))
	client.CloseIdleConnections()
	if _, err = sluicetest.Ask(ctx, client, http.MethodGet, t.at("/orders")); err == nil {
		return errors.New("a client with a revoked certificate was served on a new connection")
	}
	t.Line("%-44s %v", "on a new one", errors.Unwrap(err))
	return nil
}
