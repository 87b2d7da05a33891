package route

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"slices"
	"strings"
)

// A Certificate is what routes know of a client's certificate that a listener has verified. It does
// not change.
type Certificate struct {
	// CommonName is the one of the subject; empty: it has none, or several, of which readers choose
	// differently.
	CommonName string
	DNSNames   []string // in lower case
	URIs       []string
	SHA256     string // of the certificate, in hexadecimal digits in lower case
}

var commonNameID = asn1.ObjectIdentifier{2, 5, 4, 3}

// NewCertificate returns the names of a certificate.
func NewCertificate(leaf *x509.Certificate) *Certificate {
	sum := sha256.Sum256(leaf.Raw)
	c := &Certificate{SHA256: hex.EncodeToString(sum[:])}
	commonNames := 0
	for _, name := range leaf.Subject.Names {
		if name.Type.Equal(commonNameID) {
			commonNames++
		}
	}
	if commonNames == 1 {
		c.CommonName = leaf.Subject.CommonName
	}
	for _, name := range leaf.DNSNames {
		c.DNSNames = append(c.DNSNames, strings.ToLower(name))
	}
	for _, uri := range leaf.URIs {
		c.URIs = append(c.URIs, uri.String())
	}
	return c
}

// Add gives c, which nobody uses yet, one more name.
func (c *Certificate) Add(n CertificateName) {
	switch n.Kind {
	case CertificateCommonName:
		c.CommonName = n.Text
	case CertificateDNS:
		c.DNSNames = append(c.DNSNames, n.Text)
	case CertificateURI:
		c.URIs = append(c.URIs, n.Text)
	case CertificateSHA256:
		c.SHA256 = n.Text
	}
}

// A CertificateName is a name that a certificate may have, as a whole. The zero value is no name.
type CertificateName struct {
	Kind CertificateNameKind
	Text string
}

// CertificateNameKind is where a name is in a certificate.
type CertificateNameKind string

const (
	CertificateAny        CertificateNameKind = "any" // without a text: each certificate has it
	CertificateCommonName CertificateNameKind = "cn"
	CertificateDNS        CertificateNameKind = "dns" // case does not matter
	CertificateURI        CertificateNameKind = "uri"
	CertificateSHA256     CertificateNameKind = "sha256"
)

// ParseCertificateName parses "any", or a kind, "=" and the name. Colons and case of a fingerprint
// do not matter.
func ParseCertificateName(s string) (n CertificateName, ok bool) {
	kind, text, named := strings.Cut(s, "=")
	n = CertificateName{CertificateNameKind(kind), text}
	switch n.Kind {
	case CertificateAny:
		return n, !named
	case CertificateCommonName, CertificateURI:
	case CertificateDNS:
		n.Text = strings.ToLower(text)
	case CertificateSHA256:
		n.Text = strings.ToLower(strings.ReplaceAll(text, ":", ""))
		sum, err := hex.DecodeString(n.Text)
		return n, err == nil && len(sum) == sha256.Size
	default:
		return n, false
	}
	return n, text != ""
}

// String returns the name as ParseCertificateName reads it.
func (n CertificateName) String() string {
	if n.Kind == CertificateAny {
		return string(n.Kind)
	}
	return string(n.Kind) + "=" + n.Text
}

func (n CertificateName) compare(o CertificateName) int {
	return cmp.Or(cmp.Compare(n.Kind, o.Kind), cmp.Compare(n.Text, o.Text))
}

// HasOneOf reports whether c has one of names. No certificate, nil, has none.
func (c *Certificate) HasOneOf(names []CertificateName) bool {
	return c != nil && slices.ContainsFunc(names, c.has)
}

func (c *Certificate) has(n CertificateName) bool {
	switch n.Kind {
	case CertificateAny:
		return true
	case CertificateCommonName:
		return c.CommonName == n.Text
	case CertificateDNS:
		return slices.Contains(c.DNSNames, n.Text)
	case CertificateURI:
		return slices.Contains(c.URIs, n.Text)
	}
	return n.Kind == CertificateSHA256 && c.SHA256 == n.Text
}
