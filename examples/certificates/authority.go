package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"time"

	"sluice/test/testcert"
)

// authority gives clients their certificates.
type authority struct {
	root []byte // in PEM format
	pair tls.Certificate
}

func newAuthority() (a authority, err error) {
	var key []byte
	a.root, key = testcert.PEM("clients.shop.example", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign })
	a.pair, err = tls.X509KeyPair(a.root, key)
	return a, err
}

// client returns a certificate of the client with a name.
func (a authority) client(name string, serial int64) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.pair.Leaf, &key.PublicKey, a.pair.PrivateKey)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// list returns the list of the certificates that are revoked, by their serial numbers, in PEM
// format.
func (a authority) list(revoked ...int64) ([]byte, error) {
	now := time.Now()
	list := &x509.RevocationList{Number: big.NewInt(now.UnixNano()), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
	for _, serial := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: now})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.pair.Leaf, a.pair.PrivateKey.(crypto.Signer))
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), err
}
