package certificates

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice/config/regular"
)

// maxFileBytes is the maximum size of a file.
const maxFileBytes = 1 << 20

// Files are the paths of certificates.
type Files struct {
	CA          string // trusted certificates; "": see CADirectory
	CADirectory string // of files of trusted certificates, if CA is ""; "": none
	CRL         string // lists of certificates that authorities in CA have revoked; "": none
	Cert, Key   string // certificates, first the server's, and its private key; both or none
	TicketKeys  string // keys of session tickets; "": none
}

// Contents are what Files contained. They are never changed.
type Contents struct {
	Trusted     *x509.CertPool   // nil: no file of trusted certificates
	Revocations *Revocations     // nil: no file of revoked certificates
	Certificate *tls.Certificate // nil: no file of a certificate
	TicketKeys  [][32]byte       // nil: no file of keys

	trusted []*x509.Certificate
	chain   []*x509.Certificate // of Certificate
}

// Read reads the files. It refuses a file that ends within a certificate: it is
// probably being written, and its first certificates would be taken for all.
func Read(f Files) (*Contents, error) {
	text, err := f.text()
	if err != nil {
		return nil, err
	}
	return f.parse(text)
}

// text is what the files contain.
type text struct{ ca, crl, cert, key, tickets string }

func (f Files) text() (t text, err error) {
	if (f.Cert == "") != (f.Key == "") {
		return t, errors.New("certificate: give both the certificate and its key, or neither")
	}
	if f.CA != "" {
		t.ca, err = readFile(f.CA)
	} else if f.CADirectory != "" {
		t.ca, err = readDirectory(f.CADirectory)
	}
	if err != nil {
		return t, fmt.Errorf("trusted certificates: %w", err)
	}
	if f.CRL != "" {
		if t.crl, err = readUpTo(f.CRL, maxCRLBytes); err != nil {
			return t, fmt.Errorf("revoked certificates: %w", err)
		}
	}
	if f.TicketKeys != "" {
		if t.tickets, err = readFile(f.TicketKeys); err != nil {
			return t, fmt.Errorf("keys of session tickets: %w", err)
		}
	}
	if f.Cert == "" {
		return t, nil
	}
	if t.cert, err = readFile(f.Cert); err == nil {
		t.key, err = readFile(f.Key)
	}
	if err != nil {
		return t, fmt.Errorf("certificate: %w", err)
	}
	return t, nil
}

func readFile(name string) (string, error) { return readUpTo(name, maxFileBytes) }

func readUpTo(name string, most int64) (string, error) {
	data, err := regular.ReadUpTo(name, most)
	return string(data), err
}

// readDirectory returns the text of all files of a directory and of the directories below it.
func readDirectory(name string) (string, error) {
	var all strings.Builder
	err := filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			return err
		}
		data, err := readFile(path)
		if err == nil && cut([]byte(data)) {
			err = fmt.Errorf("%s ends within a certificate", path)
		}
		all.WriteString(data)
		all.WriteByte('\n')
		return err
	})
	return all.String(), err
}

func (f Files) parse(t text) (*Contents, error) {
	c := new(Contents)
	var err error
	if f.CA != "" || f.CADirectory != "" {
		if c.trusted, err = parseTrusted(cmp.Or(f.CA, f.CADirectory), []byte(t.ca)); err != nil {
			return nil, fmt.Errorf("trusted certificates: %w", err)
		}
		c.Trusted = x509.NewCertPool()
		if f.CRL != "" {
			if c.Revocations, err = parseRevocations(f.CRL, t.crl, c.trusted); err != nil {
				return nil, fmt.Errorf("revoked certificates: %w", err)
			}
		}
		for _, certificate := range c.trusted {
			if !c.Revocations.distrusts(certificate) {
				c.Trusted.AddCert(certificate)
			}
		}
	}
	if f.TicketKeys != "" {
		if c.TicketKeys, err = parseTicketKeys(t.tickets); err != nil {
			return nil, fmt.Errorf("%s: %w", f.TicketKeys, err)
		}
	}
	if f.Cert != "" {
		if c.Certificate, c.chain, err = f.parsePair(t); err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
	}
	return c, nil
}

// parseTrusted returns the certificates in data. It ignores certificates that Go cannot
// parse, as x509.CertPool does: large collections contain some.
func parseTrusted(name string, data []byte) (all []*x509.Certificate, err error) {
	if cut(data) {
		return nil, fmt.Errorf("%s ends within a certificate", name)
	}
	for block := new(pem.Block); ; {
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			all = append(all, certificate)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has none in PEM format", name)
	}
	return all, nil
}

func (f Files) parsePair(t text) (*tls.Certificate, []*x509.Certificate, error) {
	if cut([]byte(t.cert)) {
		return nil, nil, fmt.Errorf("%s ends within a certificate", f.Cert)
	}
	pair, err := tls.X509KeyPair([]byte(t.cert), []byte(t.key))
	if err != nil {
		return nil, nil, fmt.Errorf("%s with the key %s: %w", f.Cert, f.Key, err)
	}
	chain := make([]*x509.Certificate, len(pair.Certificate))
	for i, der := range pair.Certificate {
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.Cert, err)
		}
	}
	return &pair, chain, nil
}

// cut reports whether data ends within a PEM block.
func cut(data []byte) bool {
	for block := new(pem.Block); block != nil; {
		block, data = pem.Decode(data)
	}
	return bytes.Contains(data, []byte("-----BEGIN"))
}
