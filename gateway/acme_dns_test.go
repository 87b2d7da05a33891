package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"sluice/test/acmetest"
	"sluice/test/consultest"
	"sluice/test/dnstest"
	"sluice/test/long"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// byDNS is an ACME server, and the name server that it asks, whose records sluice makes.
type byDNS struct {
	*acmetest.Server
	zones *dnstest.Zones
	key   string // the file of the key for changes
	hook  string // a program that makes records
}

// hookFails is a file beside the records: with it, the program fails.
const hookFails = "fails"

func startByDNS(t *testing.T) *byDNS {
	t.Helper()
	zones := dnstest.StartZones(t, "example", "challenges.test")
	b := &byDNS{acmetest.Start(t, acmetest.Options{DNS: zones.Address}), zones, "", ""}
	dir := t.TempDir()
	b.key, b.hook = filepath.Join(dir, "key"), filepath.Join(dir, "hook")
	verify.NoError(t, os.WriteFile(b.key, []byte(dnstest.UpdateKey), 0o600))
	verify.NoError(t, os.WriteFile(b.hook, fmt.Appendf(nil, `#!/bin/sh -e
cd %q
if [ -e %s ]; then echo "the zone is locked" >&2; exit 3; fi
case $1 in
present) mkdir -p "$2"; : > "$2/$3" ;;
cleanup) rm -f "$2/$3" ;;
esac
`, zones.Directory, hookFails), 0o700))
	return b
}

// provider returns the settings of acme.dns. With another number of seconds they are others, so
// that a reload orders again.
func (b *byDNS) provider(name string, seconds int) string {
	maker := fmt.Sprintf("server: %q, key_file: %q", b.zones.Address, b.key)
	if name == "exec" {
		maker = fmt.Sprintf("command: [%q]", b.hook)
	}
	return fmt.Sprintf("{ provider: %s, %s, resolvers: [%q], timeout: %ds }", name, maker, b.zones.Address, seconds)
}

// text returns a configuration. settings are those of acme besides names, provider is as provider
// returns it.
func (b *byDNS) text(names, settings, provider, peer string) string {
	return fmt.Sprintf(`
listeners:
  - name: websecure
    address: "127.0.0.1:0"
    tls: { acme: { names: [%s], directory: %q, ca: %q, %s, dns: %s } }
`, names, b.Directory, b.CA, settings, provider) + static("star", peer)
}

func storageIn(dir string) string { return fmt.Sprintf("storage: %q", dir) }

// obtained waits for the certificate that a client of host gets.
func (r *running) obtained(host string) (serial string) {
	r.t.Helper()
	r.await("the certificate for "+host, func() bool { serial = r.served("websecure", host); return serial != "" })
	return serial
}

// A wildcard and its domain are proven by the records of a name server or of a program, also those
// that are delegated to another zone. They are in use after a restart, and no record is left.
func TestACMEByDNS(t *testing.T) {
	t.Parallel()
	for _, provider := range []string{"rfc2136", "exec"} {
		t.Run(provider, func(t *testing.T) {
			t.Parallel()
			b := startByDNS(t)
			host := provider + ".example" // certmagic does one job for a name at a time
			if provider == "exec" {
				b.zones.Alias("_acme-challenge."+host, host+".challenges.test")
			}
			text := b.text(fmt.Sprintf("%s, '*.%s'", host, host), storageIn(t.TempDir()), b.provider(provider, 30), origin(t, "star"))
			r := start(t, text)
			own, wildcard := r.obtained(host), r.obtained("www."+host)
			verify.That(t, own != wildcard, "one certificate for both")
			for _, other := range []string{"a.b." + host, "other.example"} {
				verify.Equal(t, r.served("websecure", other), "", "the certificate for %s", other)
			}
			for _, name := range []string{host, "*." + host} {
				c := r.certificates()["acme:"+name]
				verify.That(t, c.State == "valid" && c.Error == "", "/api/certificates: %s: %+v", name, c)
			}
			verify.Slices(t, b.zones.Left(), nil, "records that are left")
			r.end()
			r = start(t, text)
			verify.Equal(t, r.obtained("www."+host), wildcard, "another certificate after a restart")
			verify.Equal(t, b.Issued(), 2, "certificates were issued")
		})
	}
}

// A wildcard that is about to expire is in use until it is renewed. Slow name servers are waited
// for.
func TestRenewalByDNS(t *testing.T) {
	t.Parallel()
	b := startByDNS(t)
	dir := t.TempDir()
	files := &certmagic.FileStorage{Path: dir}
	storeCertificate(t, b.Directory, "*.renewal.example", func(key string, value []byte) error {
		return files.Store(context.Background(), key, value)
	}, testcert.Lasting(-time.Hour, 10*time.Minute))
	b.zones.Hide(3)
	r := start(t, b.text("'*.renewal.example'", storageIn(dir), b.provider("rfc2136", 30), origin(t, "star")))
	verify.That(t, r.served("websecure", "www.renewal.example") != "", "the stored certificate is not served from the beginning")
	r.await("the renewed certificate", func() bool {
		c := r.certificates()["acme:*.renewal.example"]
		return c.State == "valid"
	})
	_, asked := b.zones.Counts()
	verify.That(t, asked > 3, "the authority was asked to look before the name server had the record")
	verify.Equal(t, b.Issued(), 1, "certificates were issued")
	verify.Slices(t, b.zones.Left(), nil, "records that are left")
}

// Why a program fails is told. A reload that changes the provider orders at once.
func TestReloadReplacesTheProvider(t *testing.T) {
	t.Parallel()
	b := startByDNS(t)
	verify.NoError(t, os.WriteFile(filepath.Join(b.zones.Directory, hookFails), nil, 0o600))
	peer, storage := origin(t, "star"), storageIn(t.TempDir())
	r := start(t, b.text("'*.reload.example'", storage, b.provider("exec", 30), peer))
	r.await("what the program says", func() bool {
		c := r.certificates()["acme:*.reload.example"]
		return c.State == "missing" && strings.Contains(c.Error, "hook present: exit status 3: the zone is locked")
	})
	r.awaitLog("the zone is locked")
	r.replace(b.text("'*.reload.example'", storage, b.provider("rfc2136", 30), peer))
	r.obtained("www.reload.example")
	changes, _ := b.zones.Counts()
	verify.That(t, changes > 0, "the new provider was not used")
}

// The order of a process that is replaced ends, its record is removed, and the new process orders.
func TestUpgradeDuringAnOrderByDNS(t *testing.T) {
	t.Parallel()
	b := startByDNS(t)
	text := b.text("'*.upgrade.example'", storageIn(t.TempDir()), b.provider("exec", 30), origin(t, "star"))
	b.zones.Hide(1 << 30)
	old := start(t, text)
	var first []string
	old.await("the record of the order", func() bool { first = b.zones.Left(); return len(first) == 1 })
	of := b.zones.Texts(first[0])
	next := old.upgrade(text, nil)
	old.end()
	next.await("the record of the new process only", func() bool {
		now := b.zones.Texts(first[0])
		return len(now) == 1 && now[0] != of[0]
	})
	b.zones.Hide(0)
	next.obtained("www.upgrade.example")
	verify.Equal(t, b.Issued(), 1, "certificates were issued")
	verify.Slices(t, b.zones.Left(), nil, "records that are left")
}

// Two replicas have one wildcard, which one of them has ordered. All values are in Consul.
func TestReplicasOrderOnceByDNS(t *testing.T) {
	t.Parallel()
	long.Test(t)
	b := startByDNS(t)
	agent := consultest.Start(t, consultest.Options{})
	port := consultest.ReservePort(t)
	text := fmt.Sprintf("consul: { addresses: [%q] }\n", agent.URL()) +
		b.text("'*.replicas.example'", "consul_kv: sluice-acme", b.provider("exec", 30), origin(t, "star"))
	startProcess(t, "admin: { address: \"127.0.0.1:0\" }\naccess_log: { path: \"off\" }\n"+strings.Replace(text, `"127.0.0.1:0"`, fmt.Sprintf(`"127.0.0.1:%d"`, port), 1))
	r := start(t, text)
	first := awaitObtained(t, "a certificate", "www.replicas.example", port)
	verify.Equal(t, r.obtained("www.replicas.example"), first, "the certificate of the other replica")
	verify.Equal(t, b.Issued(), 1, "certificates were issued")
	verify.Slices(t, b.zones.Left(), nil, "records that are left")
}

// Whatever fails while a wildcard is ordered, name servers, the provider, Consul, or changes, with
// reloads and upgrades: the certificate in use stays in use, the wildcard is obtained in the end,
// and a record that is left was told.
func TestOrdersByDNSAtRandom(t *testing.T) {
	t.Parallel()
	long.Test(t)
	seed := rand.Uint64()
	if text := os.Getenv("SLUICE_ACME_SEED"); text != "" {
		seed = verify.Result(strconv.ParseUint(text, 10, 64)).Must(t)
	}
	t.Logf("SLUICE_ACME_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	b := startByDNS(t)
	agent, own := shared.Agent(t)
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	storeCertificate(t, b.Directory, "old.example", func(key string, value []byte) error {
		put(t, agent, own+"/"+key, string(value))
		return nil
	})
	peer := origin(t, "star")
	providers := []string{"rfc2136", "exec"}
	provider, seconds := 0, 30
	text := func() string {
		return fmt.Sprintf("consul: { addresses: [%q] }\n", relay.URL()) +
			b.text("old.example, '*.random.example'", "consul_kv: "+own, b.provider(providers[provider], seconds), peer)
	}
	fails := filepath.Join(b.zones.Directory, hookFails)
	r := start(t, text())
	first := r.served("websecure", "old.example")
	verify.Require(t, first != "", "the stored certificate is not served from the beginning")
	var mu sync.Mutex
	current, logs := r, []fmt.Stringer{r.log}
	var asking sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer asking.Wait()
	defer stop()
	asking.Go(func() {
		for pace := time.Tick(5 * time.Millisecond); ctx.Err() == nil; <-pace {
			mu.Lock()
			got := current.served("websecure", "old.example")
			mu.Unlock()
			if got != first {
				t.Errorf("got %q, want %s", got, first)
				return
			}
		}
	})
	for step := range 8 {
		switch choice := random.IntN(6); choice {
		case 0:
			b.zones.Freeze(random.IntN(2) == 0)
		case 1:
			b.zones.Refuse(random.IntN(2) == 0)
			if random.IntN(2) == 0 {
				verify.NoError(t, os.WriteFile(fails, nil, 0o600))
			} else {
				os.Remove(fails)
			}
		case 2:
			b.zones.Hide(random.IntN(3))
		case 3:
			if random.IntN(2) == 0 {
				relay.Cut()
			} else {
				relay.Heal()
			}
		case 4:
			provider, seconds = random.IntN(2), seconds+1
			r.replace(text())
		case 5:
			old := r
			r = old.upgrade(text(), nil)
			mu.Lock()
			current, logs = r, append(logs, r.log)
			mu.Unlock()
			old.end()
		}
		r.await(fmt.Sprintf("step %d: an outcome", step), func() bool {
			c := r.certificates()["acme:*.random.example"]
			return c.State == "valid" || c.Error != "" || len(b.zones.Left()) > 0
		})
	}
	relay.Heal()
	b.zones.Freeze(false)
	b.zones.Refuse(false)
	b.zones.Hide(0)
	os.Remove(fails)
	seconds++
	r.replace(text())
	r.obtained("www.random.example")
	stop()
	asking.Wait()
	r.await("the removal of the records", func() bool {
		removed := true
		var told strings.Builder
		for _, log := range logs {
			told.WriteString(log.String())
		}
		for _, name := range b.zones.Left() {
			for _, value := range b.zones.Texts(name) {
				removed = removed && strings.Contains(told.String(), value)
			}
		}
		return removed
	})
}
