package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net/url"
	"strings"
	"testing"

	"sluice/test/testcert"
	"sluice/test/verify"
)

func TestClientCertificateLine(t *testing.T) {
	spiffe := verify.Result(url.Parse("spiffe://mesh/ns/default/svc/web")).Must(t)
	for _, test := range []struct {
		name   string
		change func(*x509.Certificate)
		want   string // after the hash; "": an error
	}{
		{"all", func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "web", Organization: []string{"A"}}
			c.URIs = []*url.URL{spiffe}
			c.DNSNames = []string{"a.example", "b.example"}
		}, `;Subject="CN=web,O=A";URI=spiffe://mesh/ns/default/svc/web;DNS=a.example;DNS=b.example`},
		{"characters that separate", func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: `a";URI=b\`}
			c.DNSNames = []string{`a;DNS=b`, `"`}
		}, `;Subject="CN=a\\\"\\;URI=b\\\\";DNS="a;DNS=b";DNS="\""`},
		{"a line end", func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "a\r\nX-Admin: 1"}
		}, ""},
	} {
		text, _ := testcert.PEM("star", func(c *x509.Certificate) { c.DNSNames = nil }, test.change)
		block, _ := pem.Decode(text)
		certificate := verify.Result(x509.ParseCertificate(block.Bytes)).Must(t)
		c, err := newClientCertificate(tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{certificate}}}, nil)
		if test.want == "" {
			verify.That(t, err != nil, "%s: got %v", test.name, c)
			continue
		}
		const start = "X-Forwarded-Client-Cert: Hash="
		got, ok := strings.CutPrefix(c.line, start)
		verify.That(t, err == nil && ok && len(got) >= 64 && got[64:] == test.want+"\r\n", "%s: got %q, %v; want the end %q", test.name, c.line, err, test.want)
	}
}
