// Package testcert makes certificates for tests.
package testcert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/test/verify"
)

// Files are the files of a certificate and its key.
type Files struct{ Cert, Key string }

// Write writes a certificate for host, signed by itself, and its key to dir, over the
// files of an earlier call. change is as in PEM.
func Write(t testing.TB, dir, host string, change ...func(*x509.Certificate)) Files {
	t.Helper()
	cert, key := PEM(host, change...)
	return write(t, dir, host, cert, key)
}

// WriteRSA is Write with a key for RSA.
func WriteRSA(t testing.TB, dir, host string) Files {
	t.Helper()
	cert, key := signedByItself(verify.Result(rsa.GenerateKey(rand.Reader, 2048)).Must(t), host)
	return write(t, dir, host, cert, key)
}

func write(t testing.TB, dir, host string, cert, key []byte) Files {
	t.Helper()
	files := Files{filepath.Join(dir, host+".pem"), filepath.Join(dir, host+".key")}
	for path, data := range map[string][]byte{files.Cert: cert, files.Key: key} {
		verify.NoError(t, os.WriteFile(path, data, 0o600))
	}
	return files
}

// Lasting is a change for PEM: the certificate is valid between two times from now.
func Lasting(begin, end time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(begin), time.Now().Add(end) }
}

// PEM returns a certificate for host, signed by itself, and its key. Each change is
// made to the template.
func PEM(host string, change ...func(*x509.Certificate)) (cert, key []byte) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return signedByItself(private, host, change...)
}

func signedByItself(private crypto.Signer, host string, change ...func(*x509.Certificate)) (cert, key []byte) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	for _, f := range change {
		f(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		panic(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}
