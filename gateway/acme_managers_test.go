package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"sluice/test/consultest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// noAuthority is the URL of an authority that does not answer.
const noAuthority = "https://127.0.0.1:1/dir"

// storeCertificate stores a certificate for host as certmagic does.
func storeCertificate(t *testing.T, host string, store func(key string, value []byte) error) {
	t.Helper()
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return nil, errors.New("none") },
	})
	defer cache.Stop()
	issuer := certmagic.NewACMEIssuer(certmagic.New(cache, certmagic.Config{}), certmagic.ACMEIssuer{CA: noAuthority, TestCA: noAuthority}).IssuerKey()
	cert, key := testcert.PEM(host)
	for name, value := range map[string][]byte{
		certmagic.StorageKeys.SiteCert(issuer, host):       cert,
		certmagic.StorageKeys.SitePrivateKey(issuer, host): key,
		certmagic.StorageKeys.SiteMeta(issuer, host):       fmt.Appendf(nil, `{"sans":[%q]}`, host),
	} {
		verify.NoError(t, store(name, value))
	}
}

// Certificates by ACME stay in use, whatever happens to the listeners and the process while
// their storage is away or not: reloads that change listeners and names, and upgrades.
func TestACMECertificatesOutliveListeners(t *testing.T) {
	t.Parallel()
	for _, storage := range []string{"directory", "consul"} {
		t.Run(storage, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			host := storage + ".example"
			agent, own := shared.Agent(t)
			relay := consultest.StartRelay(t, agent.HTTPAddress())
			where := "consul_kv: " + own
			if storage == "directory" {
				dir := t.TempDir()
				where = fmt.Sprintf("storage: %q", dir)
				files := &certmagic.FileStorage{Path: dir}
				storeCertificate(t, host, func(key string, value []byte) error { return files.Store(context.Background(), key, value) })
			} else {
				storeCertificate(t, host, func(key string, value []byte) error {
					put(t, agent, own+"/"+key, string(value))
					return nil
				})
			}
			secure := consultest.ReservePort(t)
			peer := serveOrigin(t, func(http.ResponseWriter, *http.Request) {})
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
%s  - { name: websecure, address: "127.0.0.1:%d", tls: { acme: { names: [%s], directory: %q, %s } } }
`, relay.URL(), listeners, address, names, noAuthority, where) + static("star", peer)
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
				switch random.IntN(2) {
				case 0:
					web = !web
				case 1:
					two = !two
				}
				r.replace(text(secure, web, two))
				got := servedAt(address, host)
				verify.Require(t, got == first, "step %d: got %q, want %s", step, got, first)
			}
			relay.Cut()
			next := r.upgrade(text(0, web, two), nil)
			verify.Equal(t, next.served("websecure", host), first, "the new process")
		})
	}
}
