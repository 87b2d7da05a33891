package consultest

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"

	"sluice/test/testcert"
	"sluice/test/verify"
)

// Authority issues certificates into files.
type Authority struct {
	*testcert.Authority
	t      *testing.T
	dir    string
	File   string // its own certificate
	Issued int64  // serial number of the last certificate
}

// NewAuthority creates an authority, whose files are removed when t ends.
func NewAuthority(t *testing.T, name string) *Authority {
	a := &Authority{t: t, dir: filepath.Join(t.TempDir(), "issued"), Issued: 1}
	verify.NoError(t, os.Mkdir(a.dir, 0o700))
	a.Authority = testcert.NewAuthority(t, name, func(c *x509.Certificate) { c.Subject.CommonName, c.URIs = name, nil })
	a.File = a.write("ca.pem", a.Root)
	return a
}

// Issue creates a certificate for names, which may be IP addresses.
func (a *Authority) Issue(file string, names ...string) (certificate, key string) {
	a.t.Helper()
	a.Issued++
	cert, private := a.Leaf(a.t, "", func(c *x509.Certificate) {
		c.SerialNumber, c.Subject, c.URIs = big.NewInt(a.Issued), pkix.Name{CommonName: file}, nil
		for _, name := range names {
			if ip := net.ParseIP(name); ip != nil {
				c.IPAddresses = append(c.IPAddresses, ip)
			} else {
				c.DNSNames = append(c.DNSNames, name)
			}
		}
	})
	return a.write(file+".pem", cert), a.write(file+"-key.pem", private)
}

func (a *Authority) write(name string, text []byte) (path string) {
	a.t.Helper()
	path = filepath.Join(a.dir, name)
	verify.NoError(a.t, os.WriteFile(path, text, 0o600))
	return path
}
