package healthcheck

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
)

// TLSOptions say how a check speaks TLS.
type TLSOptions struct {
	CAFile             string // trusted certificates, PEM; "": the system's
	CertFile, KeyFile  string // client certificate, PEM; "": none
	ServerName         string // in the peer's certificate; "": the host that is checked
	InsecureSkipVerify bool   // accept any certificate
	// Changed is called after the files have changed: with nil if what they hold is
	// used from now on, else with why it is not and what was read before goes on to
	// be. May be nil.
	Changed func(error)
}

// TLS is how a check speaks TLS, with the certificates that the files hold when a
// connection is opened: those that last for hours are renewed on disk. It is safe
// for concurrent use.
type TLS struct {
	o TLSOptions

	mu     sync.Mutex // guards the fields below
	used   pems       // that config was made of
	config *tls.Config
	fault  string // why what the files hold could not be used last; "": it is used
}

// pems is what the files hold.
type pems struct{ ca, cert, key []byte }

// NewTLS reads the files for the first time.
func NewTLS(o TLSOptions) (*TLS, error) {
	t := &TLS{o: o}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, errors.New("client certificate: give both the certificate and its key, or neither")
	}
	var err error
	if t.used, err = o.files(); err != nil {
		return nil, err
	}
	if t.config, err = o.config(t.used); err != nil {
		return nil, err
	}
	return t, nil
}

// current returns the configuration for a new connection. Files that cannot be
// read, or do not fit together, leave it as it was: they may be in the middle of a
// change. It must not be changed.
func (t *TLS) current() *tls.Config {
	if t.o.CAFile == "" && t.o.CertFile == "" {
		return t.config
	}
	now, err := t.o.files()
	t.mu.Lock()
	defer t.mu.Unlock()
	same := err == nil && t.used.equal(now)
	if err == nil && !same {
		var config *tls.Config
		if config, err = t.o.config(now); err == nil {
			t.config, t.used = config, now
		}
	}
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	if news := fault != t.fault || err == nil && !same; news && t.o.Changed != nil {
		t.o.Changed(err)
	}
	t.fault = fault
	return t.config
}

// files reads the files.
func (o *TLSOptions) files() (p pems, err error) {
	for _, f := range []struct {
		name, what string
		data       *[]byte
	}{{o.CAFile, "trusted certificates", &p.ca}, {o.CertFile, "client certificate", &p.cert}, {o.KeyFile, "client certificate", &p.key}} {
		if f.name == "" {
			continue
		}
		if *f.data, err = os.ReadFile(f.name); err != nil {
			return p, fmt.Errorf("%s: %w", f.what, err)
		}
	}
	return p, nil
}

func (p *pems) equal(o pems) bool {
	return bytes.Equal(p.ca, o.ca) && bytes.Equal(p.cert, o.cert) && bytes.Equal(p.key, o.key)
}

// config makes a configuration of what the files hold.
func (o *TLSOptions) config(p pems) (*tls.Config, error) {
	c := &tls.Config{ServerName: o.ServerName, InsecureSkipVerify: o.InsecureSkipVerify}
	if o.CAFile != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(p.ca) {
			return nil, fmt.Errorf("trusted certificates: %s has none in PEM format", o.CAFile)
		}
		if cut(p.ca) {
			return nil, fmt.Errorf("trusted certificates: %s ends within one", o.CAFile)
		}
	}
	if o.CertFile != "" {
		certificate, err := tls.X509KeyPair(p.cert, p.key)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		if cut(p.cert) {
			return nil, fmt.Errorf("client certificate: %s ends within one", o.CertFile)
		}
		c.Certificates = []tls.Certificate{certificate}
	}
	return c, nil
}

// cut reports whether data ends within a block, so that those before it would be
// taken for all there are.
func cut(data []byte) bool {
	for block := new(pem.Block); block != nil; {
		block, data = pem.Decode(data)
	}
	return bytes.Contains(data, []byte("-----BEGIN"))
}
