package mesh

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/discovery"
	"sluice/test/verify"
)

// An instance of a peered cluster is verified with the roots of that cluster only, and has one of
// the identities that the cluster gives it. The roots may change while sluice runs.
func TestPeeredClusters(t *testing.T) {
	own, east, rotated := newRoot(t), newRoot(t), newRoot(t)
	i := NewIdentity(IdentityOptions{Log: zerolog.Nop()})
	i.Restore(&IdentityState{own.leafOf(t, "sluice", time.Hour), rootsOf(own)})
	instance := &discovery.Instance{
		ServerName: "web.default.default.west.external.td", Peer: "east",
		Identity: "spiffe://east.consul/ns/default/dc/dc2/svc/web spiffe://east.consul/gateway/mesh/dc/dc2",
	}
	_, err := i.TermsFor(instance)
	verify.That(t, err != nil && strings.Contains(err.Error(), "set consul.connect.peers.east.ca"), "without roots: %v", err)

	file := filepath.Join(t.TempDir(), "east.pem")
	write := func(of ...*root) {
		t.Helper()
		var all strings.Builder
		for _, r := range rootsOf(of...).Roots {
			all.WriteString(r.RootCert)
		}
		verify.NoError(t, os.WriteFile(file, []byte(all.String()), 0o600))
	}
	write(east)
	err = i.Trust(map[string]string{"east": file, "north": file + ".not"})
	verify.That(t, err != nil && strings.Contains(err.Error(), `roots of the peered cluster "north"`), "a file that is not there: %v", err)
	uses := i.Uses()
	verify.That(t, len(uses) == 2 && uses[1].User == "mesh peer east" && uses[1].Source.Statuses()[0].File == file, "uses: %+v", uses)
	as := func(uri string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.URIs = []*url.URL{verify.Result(url.Parse(uri)).Must(t)} }
	}
	const web, gateway = "spiffe://east.consul/ns/default/dc/dc2/svc/web", "spiffe://east.consul/gateway/mesh/dc/dc2"
	check := func(name string, instance *discovery.Instance, leaf LeafText, refused string) {
		t.Helper()
		terms := verify.Result(i.TermsFor(instance)).Must(t)
		verify.Equal(t, terms.Config.ServerName, instance.ServerName, "%s: server name", name)
		err := connect(t, terms.Config, leaf, tls.VersionTLS13)
		verify.That(t, (err == nil) == (refused == "") && (err == nil || strings.Contains(err.Error(), refused)), "%s: %v", name, err)
	}
	check("the service", instance, east.leafOf(t, "web", time.Hour, as(web)), "")
	check("the gateway", instance, east.leafOf(t, "web", time.Hour, as(gateway)), "")
	check("another service", instance, east.leafOf(t, "web", time.Hour, as("spiffe://east.consul/ns/default/dc/dc2/svc/db")), "and not "+web+" or "+gateway)
	check("roots of the own mesh", instance, own.leafOf(t, "web", time.Hour, as(web)), "unknown authority")
	local := &discovery.Instance{ServerName: "web", Identity: "/ns/default/dc/dc1/svc/web"}
	check("an own instance", local, own.leafOf(t, "web", time.Hour), "")
	check("an own instance with roots of the peer", local, east.leafOf(t, "web", time.Hour), "unknown authority")
	check("before the rotation", instance, rotated.leafOf(t, "web", time.Hour, as(web)), "unknown authority")
	write(east, rotated)
	verify.NoError(t, i.Trust(map[string]string{"east": file}))
	verify.That(t, i.Uses()[1].Source == uses[1].Source, "the same file is followed anew")
	check("after the rotation", instance, rotated.leafOf(t, "web", time.Hour, as(web)), "")
	check("after the rotation, with the old root", instance, east.leafOf(t, "web", time.Hour, as(web)), "")
}
