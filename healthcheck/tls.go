package healthcheck

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// TLSOptions say how a check speaks TLS.
type TLSOptions struct {
	Enabled            bool
	CAFile             string // trusted certificates, PEM; "": the system's
	CertFile, KeyFile  string // client certificate, PEM; "": none
	ServerName         string // in the peer's certificate; "": the host that is checked
	InsecureSkipVerify bool   // accept any certificate
}

// Config reads the files. It returns nil if TLS is not spoken.
func (o TLSOptions) Config() (*tls.Config, error) {
	if !o.Enabled {
		return nil, nil
	}
	c := &tls.Config{ServerName: o.ServerName, InsecureSkipVerify: o.InsecureSkipVerify}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("trusted certificates: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("trusted certificates: %s has none in PEM format", o.CAFile)
		}
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, errors.New("client certificate: give both the certificate and its key, or neither")
	}
	if o.CertFile != "" {
		certificate, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{certificate}
	}
	return c, nil
}
