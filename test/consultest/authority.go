package consultest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sluice/test/verify"
	"testing"
	"time"
)

// Authority issues certificates into files.
type Authority struct {
	t           *testing.T
	dir         string
	File        string // its own certificate
	Issued      int64  // serial number of the last certificate
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority creates an authority, whose files are removed when t ends.
func NewAuthority(t *testing.T, name string) *Authority {
	a := &Authority{t: t, dir: filepath.Join(t.TempDir(), "issued"), Issued: 1}
	a.must(os.Mkdir(a.dir, 0o700))
	a.certificate = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.File, _, a.key = a.write("ca", a.certificate)
	return a
}

// Issue creates a certificate for names, which may be IP addresses.
func (a *Authority) Issue(file string, names ...string) (certificate, key string) {
	a.Issued++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.Issued), Subject: pkix.Name{CommonName: file},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	certificate, key, _ = a.write(file, template)
	return certificate, key
}

// write signs template, with the new key if the authority has none yet.
func (a *Authority) write(file string, template *x509.Certificate) (certificate, keyFile string, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.must(err)
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, signer)
	a.must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	a.must(err)
	certificate, keyFile = filepath.Join(a.dir, file+".pem"), filepath.Join(a.dir, file+"-key.pem")
	a.must(os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	a.must(os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return certificate, keyFile, key
}

func (a *Authority) must(err error) {
	a.t.Helper()
	verify.NoError(a.t, err)
}
