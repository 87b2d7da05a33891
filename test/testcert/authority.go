package testcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	"sluice/test/verify"
)

// Authority signs certificates of the members of a service mesh, as Consul's certificate authority
// does.
type Authority struct {
	Domain string // of trust
	Root   []byte // in PEM format

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority returns the authority of a trust domain, with a root of its own. Each change is made
// to the template of the root.
func NewAuthority(t testing.TB, domain string, change ...func(*x509.Certificate)) *Authority {
	t.Helper()
	a := &Authority{Domain: domain, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root of " + domain},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, URIs: []*url.URL{{Scheme: "spiffe", Host: domain}},
	}
	for _, f := range change {
		f(template)
	}
	a.certificate, a.Root = a.sign(t, template, template, a.key)
	return a
}

// Leaf returns the certificate of a member with a SPIFFE URI, and its key, in PEM format. path is
// such as "/ns/default/dc/dc1/svc/web". Each change is made to the template.
func (a *Authority) Leaf(t testing.TB, path string, change ...func(*x509.Certificate)) (cert, key []byte) {
	t.Helper()
	private := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs: []*url.URL{{Scheme: "spiffe", Host: a.Domain, Path: path}},
	}
	for _, f := range change {
		f(template)
	}
	_, cert = a.sign(t, template, a.certificate, private)
	der := verify.Result(x509.MarshalECPrivateKey(private)).Must(t)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// Chain returns a certificate as of Leaf followed by the root, and its key, in PEM format, and both
// parsed.
func (a *Authority) Chain(t testing.TB, path string, change ...func(*x509.Certificate)) (chain, key []byte, pair tls.Certificate) {
	t.Helper()
	cert, key := a.Leaf(t, path, change...)
	chain = append(cert, a.Root...)
	return chain, key, verify.Result(tls.X509KeyPair(chain, key)).Must(t)
}

// CRL returns the list of the certificates with these serial numbers as revoked, in PEM format.
// Each change is made to the template.
func (a *Authority) CRL(t testing.TB, from, until time.Time, revoked []int64, change ...func(*x509.RevocationList)) []byte {
	t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(from.UnixNano()), ThisUpdate: from, NextUpdate: until}
	for _, serial := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: from})
	}
	for _, f := range change {
		f(template)
	}
	der := verify.Result(x509.CreateRevocationList(rand.Reader, template, a.certificate, a.key)).Must(t)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// Member returns the TLS of a server of the mesh with a certificate as of Leaf, which asks its
// clients for one.
func (a *Authority) Member(t testing.TB, path string, change ...func(*x509.Certificate)) *tls.Config {
	t.Helper()
	cert, key := a.Leaf(t, path, change...)
	pair := verify.Result(tls.X509KeyPair(cert, key)).Must(t)
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
}

// sign returns a certificate that a signs.
func (a *Authority) sign(t testing.TB, template, parent *x509.Certificate, key *ecdsa.PrivateKey) (*x509.Certificate, []byte) {
	t.Helper()
	der := verify.Result(x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)).Must(t)
	c := verify.Result(x509.ParseCertificate(der)).Must(t)
	return c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	return verify.Result(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Must(t)
}
