package gateway

import (
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/admin"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// writeFile writes a file of dir, and returns its path.
func writeFile(t *testing.T, dir, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	verify.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}

// writeLeaf writes a certificate of a, with its chain, and its key.
func writeLeaf(t *testing.T, a *testcert.Authority, dir, name string, change ...func(*x509.Certificate)) testcert.Files {
	t.Helper()
	chain, key, _ := a.Chain(t, "/"+name, change...)
	return testcert.Files{Cert: writeFile(t, dir, name+".pem", chain), Key: writeFile(t, dir, name+".key", key)}
}

// Routes are for clients whose certificate has a name, or chosen by it. sluice route explains it.
func TestNamesOfCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	site, a := testcert.Write(t, dir, "a.example"), testcert.NewAuthority(t, "ca.example")
	named := func(name string) testcert.Files {
		return writeLeaf(t, a, dir, name, func(c *x509.Certificate) {
			c.Subject, c.DNSNames = pkix.Name{CommonName: name}, []string{strings.ToUpper(name) + ".example"}
		})
	}
	web, api := named("web"), named("api")
	two := writeLeaf(t, a, dir, "two", func(c *x509.Certificate) {
		id := asn1.ObjectIdentifier{2, 5, 4, 3}
		c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: id, Value: "web"}, {Type: id, Value: "web"}}}
	})
	r := start(t, "listeners:\n"+secureListener("web", site, fmt.Sprintf(", client_ca: %q, client_auth: optional", writeFile(t, dir, "ca.pem", a.Root)))+fmt.Sprintf(`
client: { trusted_proxies: [127.0.0.0/8] }
services: { star: { peers: [%q] }, other: { peers: [%q] } }
routes:
  - { service: star }
  - { path: /cn, service: star, client_certificates: ["cn=web", "cn=none"] }
  - { path: /dns, service: star, client_certificates: ["dns=web.Example"] }
  - { path: /uri, service: star, client_certificates: ["uri=spiffe://ca.example/web"] }
  - { path: /any, service: star, client_certificates: [any] }
  - { path: /chosen, service: star }
  - { path: /chosen, service: other, when: { client_certificates: ["cn=web"] } }
  - { path: /not, service: other, when: { not: { client_certificates: [any] } } }
`, origin(t, "star"), origin(t, "other")))
	for _, test := range []struct {
		client testcert.Files
		paths  string // path, status, reason or body
	}{
		{testcert.Files{}, "/cn 403 certificate_required, /any 403 certificate_required, /chosen 200 star, /not 200 other"},
		{web, "/cn 200 star, /dns 200 star, /uri 200 star, /any 200 star, /chosen 200 other, /not 200 star"},
		{api, "/cn 403 certificate_denied, /dns 403 certificate_denied, /uri 403 certificate_denied, /any 200 star, /chosen 200 star"},
		{two, "/cn 403 certificate_denied, /chosen 200 star"},
	} {
		for line := range strings.SplitSeq(test.paths, ", ") {
			var path, want string
			var status int
			fmt.Sscan(line, &path, &status, &want)
			r.show(test.client.Cert, test.client.Key)
			got := r.do(r.request("GET", r.secureURL("web")+path, nil, "X-Forwarded-Client-Cert", `Hash=1;Subject="CN=web"`))
			verify.That(t, got.StatusCode == status && cmp.Or(got.Header.Get("X-Sluice-Reason"), got.body) == want, "%s%s: got %d %q %q, want %d %s", test.client.Cert, path, got.StatusCode, got.Header.Get("X-Sluice-Reason"), got.body, status, want)
		}
	}
	for names, want := range map[string]string{"": "star", "cn=web": "other", "cn=api dns=web.example": "star"} {
		query := url.Values{"url": {"https://a.example/chosen"}, "certificate": strings.Fields(names)}
		answer := fetch[admin.RouteAnswer](r, "/api/route?"+query.Encode())
		verify.That(t, answer.Route != nil && answer.Route.Service == want && answer.Candidates[0].Conditions[0] == "client certificate is cn=web" &&
			(want == "other") == (answer.Candidates[0].Failing == ""), "%q: got %+v", names, answer)
	}
}
