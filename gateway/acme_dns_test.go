package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sluice/test/acmetest"
	"sluice/test/dnstest"
	"sluice/test/verify"
)

// byDNS is an ACME server, and the name server that it asks, whose records sluice makes.
type byDNS struct {
	*acmetest.Server
	zones *dnstest.Zones
	key   string // the file of the key for changes
	hook  string // a program that makes records
}

func startByDNS(t *testing.T) *byDNS {
	t.Helper()
	zones := dnstest.StartZones(t, "example", "challenges.test")
	b := &byDNS{acmetest.Start(t, acmetest.Options{DNS: zones.Address}), zones, "", ""}
	dir := t.TempDir()
	b.key, b.hook = filepath.Join(dir, "key"), filepath.Join(dir, "hook")
	verify.NoError(t, os.WriteFile(b.key, []byte(dnstest.UpdateKey), 0o600))
	verify.NoError(t, os.WriteFile(b.hook, fmt.Appendf(nil, `#!/bin/sh -e
cd %q
case $1 in
present) mkdir -p "$2"; : > "$2/$3" ;;
cleanup) rm -f "$2/$3" ;;
esac
`, zones.Directory), 0o700))
	return b
}

// text returns a configuration, whose certificates are stored in a directory.
func (b *byDNS) text(names, dir, provider, peer string) string {
	maker := fmt.Sprintf("server: %q, key_file: %q", b.zones.Address, b.key)
	if provider == "exec" {
		maker = fmt.Sprintf("command: [%q]", b.hook)
	}
	return fmt.Sprintf(`
listeners:
  - name: websecure
    address: "127.0.0.1:0"
    tls:
      acme:
        names: [%s]
        directory: %q
        ca: %q
        storage: %q
        dns: { provider: %s, %s, resolvers: [%q], timeout: 30s }
`, names, b.Directory, b.CA, dir, provider, maker, b.zones.Address) + static("star", peer)
}

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
			text := b.text(fmt.Sprintf("%s, '*.%s'", host, host), t.TempDir(), provider, origin(t, "star"))
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

// The order of a process that is replaced ends, its record is removed, and the new process orders.
func TestUpgradeDuringAnOrderByDNS(t *testing.T) {
	t.Parallel()
	b := startByDNS(t)
	text := b.text("'*.upgrade.example'", t.TempDir(), "exec", origin(t, "star"))
	b.zones.Hide(1 << 30)
	old := start(t, text)
	var first []string
	old.await("the record of the order", func() bool { first = b.zones.Left(); return len(first) == 1 })
	of := b.zones.Texts(first[0])
	// It would wait until it is ready without a certificate, which takes half a minute.
	next := old.succeedAfter(text, nil, func(g *Gateway) { g.readiness.lacksCertificates = func() []string { return nil } })
	verify.NoError(t, <-next.outcome)
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
