package gateway

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/xml"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/admin"
	"sluice/test/long"
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

// sslscan finds what the profiles of Mozilla allow, and nothing else.
func TestScanner(t *testing.T) {
	t.Parallel()
	long.Test(t)
	if _, err := exec.LookPath("sslscan"); err != nil {
		if os.Getenv("SLUICE_REQUIRE_SSLSCAN") != "" {
			t.Fatal(err)
		}
		t.Skip("there is no sslscan (Debian's package sslscan)")
	}
	dir := t.TempDir()
	site := testcert.Write(t, dir, "a.example")
	r := start(t, "listeners:\n"+secureListener("modern", site, ", profile: modern")+secureListener("intermediate", site, ", profile: intermediate")+
		secureListener("default", site, "")+secureListener("own", site, ", ciphers: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256], curves: [P-256]")+
		secureListener("rsa", testcert.WriteRSA(t, dir, "rsa.example"), ", profile: intermediate")+static("star", origin(t, "star")))
	const (
		suites13 = "TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256"
		suites12 = " ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-ECDSA-CHACHA20-POLY1305"
		mozilla  = "secp256r1 secp384r1 x25519"
	)
	for _, test := range []struct{ listener, versions, suites, groups string }{
		{"modern", "1.3", suites13, mozilla},
		{"intermediate", "1.2 1.3", suites13 + suites12, mozilla},
		{"default", "1.2 1.3", suites13 + suites12, mozilla + " secp521r1"},
		{"own", "1.2 1.3", suites13 + " ECDHE-ECDSA-AES128-GCM-SHA256", "secp256r1"},
		{"rsa", "1.2 1.3", suites13 + strings.ReplaceAll(suites12, "ECDSA", "RSA"), mozilla},
	} {
		var out struct {
			Test struct {
				Protocols []struct {
					Version string `xml:"version,attr"`
					Enabled string `xml:"enabled,attr"`
				} `xml:"protocol"`
				Ciphers []struct {
					Name string `xml:"cipher,attr"`
				} `xml:"cipher"`
				Groups []struct {
					Name string `xml:"name,attr"`
				} `xml:"group"`
				Compression struct {
					Supported string `xml:"supported,attr"`
				} `xml:"compression"`
				Renegotiation struct {
					Supported string `xml:"supported,attr"`
				} `xml:"renegotiation"`
			} `xml:"ssltest"`
		}
		text := verify.Result(exec.CommandContext(t.Context(), "sslscan", "--xml=-", "--no-heartbleed", r.Address(test.listener).String()).Output()).Must(t)
		decoder := xml.NewDecoder(bytes.NewReader(text))
		decoder.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
		verify.NoError(t, decoder.Decode(&out))
		sorted := func(all []string) string { slices.Sort(all); return strings.Join(slices.Compact(all), " ") }
		var versions, suites, groups []string
		for _, p := range out.Test.Protocols {
			if p.Enabled == "1" {
				versions = append(versions, p.Version)
			}
		}
		for _, c := range out.Test.Ciphers {
			suites = append(suites, c.Name)
		}
		for _, g := range out.Test.Groups {
			name, _, _ := strings.Cut(g.Name, " ") // "secp256r1 (NIST P-256)"
			groups = append(groups, name)
		}
		verify.Equal(t, sorted(versions), sorted(strings.Fields(test.versions)), "%s: versions", test.listener)
		verify.Equal(t, sorted(suites), sorted(strings.Fields(test.suites)), "%s: cipher suites", test.listener)
		verify.Equal(t, sorted(groups), sorted(strings.Fields(test.groups)), "%s: groups", test.listener)
		verify.That(t, out.Test.Compression.Supported != "1" && out.Test.Renegotiation.Supported == "0", "%s: %+v", test.listener, out.Test)
		if t.Failed() {
			t.Logf("%s", text)
		}
	}
}
