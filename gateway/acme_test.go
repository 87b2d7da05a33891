package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"sluice/admin"
	"sluice/test/acmetest"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/long"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// A certificate is obtained by HTTP-01, from a real ACME server. After a restart it is loaded from
// the storage.
func TestACMEByHTTP(t *testing.T) {
	t.Parallel()
	const host = "http-01.example" // certmagic does one job for a name at a time
	plain := consultest.ReservePort(t)
	// TLS-ALPN-01 fails there.
	p := acmetest.Start(t, acmetest.Options{HTTPPort: plain, TLSPort: consultest.ReservePort(t)})
	sluice := fmt.Sprintf(`
listeners:
  - { name: web, address: "127.0.0.1:%d", redirect_https: {} }
  - name: websecure
    address: "127.0.0.1:0"
    tls: { acme: { names: [%s], directory: %q, storage: %q, ca: %q } }
`, plain, host, p.Directory, filepath.Join(t.TempDir(), "acme"), p.CA) + static("star", origin(t, "star"))
	r := start(t, sluice)
	first := r.obtained(host)
	all := fetch[[]admin.Certificate](r, "/api/certificates")
	verify.That(t, len(all) == 1 && all[0].State == "valid", "/api/certificates: %+v", all)
	orders := strings.Count(p.Log.String(), "POST /order-plz")
	r.end()
	r = start(t, sluice)
	verify.Equal(t, r.obtained(host), first, "another certificate after a restart")
	verify.Equal(t, strings.Count(p.Log.String(), "POST /order-plz"), orders, "orders after a restart")
}

// noAuthority is the URL of an authority that does not answer.
const noAuthority = "https://127.0.0.1:1/dir"

// storeCertificate stores a certificate of noAuthority for host in Consul as certmagic does.
func storeCertificate(t *testing.T, agent *consultest.Agent, prefix, host string) {
	t.Helper()
	cert, key := testcert.PEM(host)
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return nil, errors.New("none") },
	})
	defer cache.Stop()
	issuer := certmagic.NewACMEIssuer(certmagic.New(cache, certmagic.Config{}), certmagic.ACMEIssuer{CA: noAuthority, TestCA: noAuthority}).IssuerKey()
	put(t, agent, prefix+"/"+certmagic.StorageKeys.SiteCert(issuer, host), string(cert))
	put(t, agent, prefix+"/"+certmagic.StorageKeys.SitePrivateKey(issuer, host), string(key))
	put(t, agent, prefix+"/"+certmagic.StorageKeys.SiteMeta(issuer, host), fmt.Sprintf(`{"sans":[%q]}`, host))
}

// Certificates by ACME stay in use, whatever happens to the listeners and the process while their
// storage is away or not: reloads that change listeners and names, and upgrades. HTTP-01 is used as
// long as there is a listener for it.
func TestACMECertificatesOutliveListeners(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(verify.Seed(t), 0))
	const host = "outlives.example"
	agent, own := shared.Agent(t)
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	storeCertificate(t, agent, own, host)
	secure := consultest.ReservePort(t)
	peer := origin(t, "star")
	text := func(address int, web, two bool) string {
		listeners, names := "", host
		if web {
			listeners = "  - { name: web, address: \"127.0.0.1:0\" }\n"
		}
		if two {
			names += ", other." + host
		}
		return fmt.Sprintf(`
consul: { addresses: [%q] }
listeners:
%s  - { name: websecure, address: "127.0.0.1:%d", tls: { acme: { names: [%s], directory: %q, consul_kv: %s } } }
`, relay.URL(), listeners, address, names, noAuthority, own) + static("star", peer)
	}
	web, two := false, false
	r := start(t, text(secure, web, two))
	address := fmt.Sprintf("127.0.0.1:%d", secure)
	first := servedAt(address, host)
	verify.Require(t, first != "", "the stored certificate is not served from the beginning")
	var asking sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer asking.Wait()
	defer stop()
	asking.Go(func() {
		for pace := time.Tick(2 * time.Millisecond); ctx.Err() == nil; <-pace {
			if got := servedAt(address, host); got != first {
				t.Errorf("got %q, want %s", got, first)
				return
			}
		}
	})
	for step := range 6 {
		if random.IntN(2) == 0 {
			relay.Cut()
		} else {
			relay.Heal()
		}
		if web = step%2 == 0; random.IntN(2) == 0 {
			two = !two
		}
		r.replace(text(secure, web, two))
		verify.Equal(t, servedAt(address, host), first, "step %d: the certificate", step)
		all := r.listeners.all()
		verify.That(t, all[len(all)-1].tls.Suits(r.effective.Load()), "step %d: HTTP-01 is used without a listener for it, or not with one", step)
	}
	relay.Cut()
	next := r.upgrade(text(0, web, two), nil)
	verify.Equal(t, next.served("websecure", host), first, "the new process")
}

// A load balancer in front does not send clients where no handshake succeeds, if it has another
// replica: for half a minute, since the authority may come through it.
func TestNotReadyWithoutACertificate(t *testing.T) {
	t.Parallel()
	listener := func(more string) string {
		return fmt.Sprintf(`
listeners:
  - { name: web, address: "127.0.0.1:0" }
  - name: websecure
    address: "127.0.0.1:0"
    tls: { %s acme: { names: [www.example], directory: %q, storage: %q } }
`, more, noAuthority, filepath.Join(t.TempDir(), "acme")) + static("star", origin(t, "star"))
	}
	const missing = `listener "websecure": no certificate has been obtained by ACME yet`
	r := start(t, listener(""))
	status, v := r.readyz()
	verify.That(t, status == 503 && slices.Contains(v.Missing, missing), "/readyz: %d %+v", status, v)
	if long.All() { // half a minute
		v = r.awaitReady()
		verify.That(t, slices.Contains(v.Missing, missing), "/readyz: %+v", v)
	}
	files := testcert.Write(t, t.TempDir(), "www.example")
	r = start(t, listener(fmt.Sprintf("certificates: [{ cert: %q, key: %q }],", files.Cert, files.Key)))
	v = r.awaitReady()
	verify.Equal(t, len(v.Missing), 0, "missing with a file")
}

// A service that comes has HTTPS by itself, if the file allows its host, also when it has come back
// and with an upgrade. What a tag asks for beyond that orders nothing.
func TestACMEOfRoutes(t *testing.T) {
	t.Parallel()
	secure := consultest.ReservePort(t)
	p := acmetest.Start(t, acmetest.Options{HTTPPort: consultest.ReservePort(t), TLSPort: secure})
	registry := discoverytest.Start(t)
	register := func(name, host string) {
		registry.Set(name, withTags(t, name, name+"-1", origin(t, name), "sluice.route="+host+"/"))
	}
	register("star", "Star.routed.example")
	register("evil", "evil.example")
	r := start(t, fmt.Sprintf(`
listeners:
  - name: websecure
    address: "127.0.0.1:%d"
    tls: { acme: { names: [www.example], routes: ["*.routed.example"], directory: %q, storage: %q, ca: %q } }
consul: { addresses: [%q] }
catalog: { tags: [sluice] }
services: { fixed: { peers: [%q] } }
routes: [{ host: fixed.routed.example, service: fixed }, { host: www.example, service: fixed }]
`, secure, p.Directory, filepath.Join(t.TempDir(), "acme"), p.CA, registry.URL(), origin(t, "fixed")))
	for _, host := range []string{"star.routed.example", "fixed.routed.example", "www.example"} {
		r.obtained(host)
	}
	register("moon", "moon.routed.example")
	first := r.obtained("moon.routed.example")
	names := func() (names []string) {
		for _, c := range fetch[[]admin.Certificate](r, "/api/certificates") {
			names = append(names, c.Names...)
		}
		slices.Sort(names)
		return names
	}
	verify.Equal(t, fmt.Sprint(names()), "[fixed.routed.example moon.routed.example star.routed.example www.example]", "names")
	register("moon", "fixed.example")
	r.await("no route has the name", func() bool { return !slices.Contains(names(), "moon.routed.example") })
	register("moon", "moon.routed.example")
	verify.Equal(t, r.obtained("moon.routed.example"), first, "the certificate when the service comes back")
	verify.That(t, !strings.Contains(p.Log.String(), "evil"), "the authority was asked for a host that is not allowed")
}
