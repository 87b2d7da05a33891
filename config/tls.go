package config

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"time"

	"sluice/certificates"
	"sluice/config/decoding"
	"sluice/config/regular"
)

// ListenerTLS configures TLS on a listener.
type ListenerTLS struct {
	// Certificates has at least one element. A client gets the first certificate that
	// is valid for the requested name, or the first of all.
	Certificates []Certificate `key:"certificates"`
	// ClientCA is the file of the certificates that clients' certificates are verified
	// with. Empty: clients are not asked for one.
	ClientCA   string `key:"client_ca" format:"file"`
	ClientAuth string `key:"client_auth" default:"required" oneof:"required|optional"`
	// ClientCRL is the file of the lists of clients' certificates that ClientCA has revoked. Empty:
	// none is.
	ClientCRL string `key:"client_crl" format:"file"`
	// Profile is a policy of Mozilla's; empty: the following keys, which are absent with it.
	Profile    string     `key:"profile" oneof:"modern|intermediate"`
	MinVersion TLSVersion `key:"min_version" oneof:"1.2|1.3" format:"tls_version"` // empty: 1.2
	Ciphers    []TLSSuite `key:"ciphers" format:"tls_suite"`                       // of TLS 1.2; empty: all safe ones
	Curves     []TLSCurve `key:"curves" format:"tls_curve"`                        // empty: all that Go has
	// TicketKeys is the file of the keys of session tickets that replicas share. Empty: sluice
	// makes keys.
	TicketKeys string `key:"ticket_keys" format:"file"`
	ACME       *ACME  `key:"acme"` // nil: certificates from files only
	HSTS       *HSTS  `key:"hsts"` // nil: the field of the peers is forwarded
}

// HSTS is the field Strict-Transport-Security of responses.
type HSTS struct {
	MaxAge     time.Duration `key:"max_age" default:"8760h" min:"0s" max:"87600h"`
	Subdomains bool          `key:"subdomains" default:"false"`
	Preload    bool          `key:"preload" default:"false"`
}

// RedirectHTTPS redirects all requests of a listener to HTTPS, except requests that came to a
// trusted proxy by HTTPS.
type RedirectHTTPS struct {
	Port int `key:"port" default:"443" min:"1" max:"65535"` // that clients connect to
}

// Certificate contains either the paths of PEM files, the certificate with its
// intermediate certificates and its key, or the prefix of keys in Consul.
type Certificate struct {
	Cert     string `key:"cert" format:"file"`
	Key      string `key:"key" format:"file"`
	ConsulKV string `key:"consul_kv" format:"kv_prefix"` // without a slash at its end; empty: files
}

// Policy returns how clients may use TLS.
func (t *ListenerTLS) Policy() certificates.Policy {
	if t.Profile != "" {
		return certificates.Profiles[t.Profile]
	}
	p := certificates.DefaultPolicy
	p.MinVersion = cmp.Or(t.MinVersion.Value, p.MinVersion)
	if len(t.Ciphers) > 0 {
		p.Suites = Values(t.Ciphers)
	}
	p.Curves = Values(t.Curves)
	return p
}

// checkPolicy checks how clients may use TLS, and HTTP/2 over it if http2 is set.
func (t *ListenerTLS) checkPolicy(d *decoder, key string, http2 bool) {
	p := t.Policy()
	if t.Profile != "" && (t.MinVersion.Text != "" || len(t.Ciphers)+len(t.Curves) > 0) {
		d.Refuse(decoding.Join(key, "profile"), t.Profile, "not together with min_version, ciphers or curves: a profile is all three")
		return
	}
	if len(t.Ciphers) > 0 && p.MinVersion >= tls.VersionTLS13 {
		d.Refuse(decoding.Join(key, "ciphers"), t.Ciphers[0].Text, "only for TLS 1.2, which min_version does not allow: TLS 1.3 has no other ones than safe ones")
		return
	}
	if why := p.SuitsHTTP2(); why != "" && http2 {
		at := "ciphers"
		if len(t.Ciphers) == 0 {
			at = "curves"
		}
		d.Refuse(decoding.Join(key, at), "", why+" (RFC 9113, section 9.2.2): add it, or set http2: false or min_version: 1.3")
	}
}

// check checks that the certificates can be loaded. http2: clients may use HTTP/2. local: the
// listener is a unix socket.
func (t *ListenerTLS) check(d *decoder, key string, http2, local bool) {
	t.checkPolicy(d, key, http2)
	checkCA(d, decoding.Join(key, "client_ca"), t.ClientCA)
	switch {
	case t.ClientCA == "" && t.ClientAuth == "optional":
		d.Refuse(decoding.Join(key, "client_auth"), t.ClientAuth, "only with client_ca")
	case t.ClientCRL == "":
	case t.ClientCA == "":
		d.Refuse(decoding.Join(key, "client_crl"), t.ClientCRL, "only with client_ca, which signs the list")
	case !d.Failed(decoding.Join(key, "client_ca")):
		d.needReadable(decoding.Join(key, "client_crl"), t.ClientCRL, certificates.Files{CA: t.ClientCA, CRL: t.ClientCRL})
	}
	if t.TicketKeys != "" {
		d.needReadable(decoding.Join(key, "ticket_keys"), t.TicketKeys, certificates.Files{TicketKeys: t.TicketKeys})
		if t.ClientCA != "" {
			d.Refuse(decoding.Join(key, "ticket_keys"), t.TicketKeys, "not together with client_ca: such a listener resumes no session, so that each client is verified")
		}
	}
	if t.ACME != nil {
		t.ACME.check(d, decoding.Join(key, "acme"), local)
	}
	key = decoding.Join(key, "certificates")
	if len(t.Certificates) == 0 && t.ACME == nil && !d.Failed(key) {
		d.Refuse(key, "", "empty: want at least one, such as { cert: site.pem, key: site.key }")
	}
	for i, c := range t.Certificates {
		pair := fmt.Sprintf("%s[%d]", key, i)
		if d.Failed(pair) {
			continue
		}
		if c.ConsulKV != "" {
			if c.Cert != "" || c.Key != "" {
				d.Refuse(decoding.Join(pair, "consul_kv"), c.ConsulKV, "not together with cert and key: write two entries")
			}
			continue
		}
		for _, file := range []struct{ key, path string }{{"cert", c.Cert}, {"key", c.Key}} {
			if file.path == "" {
				d.Refuse(decoding.Join(pair, file.key), "", "required: "+formats["file"].Want+", or give consul_kv instead of cert and key")
			}
		}
		checkCertificate(d, pair, c.Cert, c.Key)
		if len(t.Ciphers) == 0 || d.Failed(pair) {
			continue
		}
		if read, err := certificates.Read(certificates.Files{Cert: c.Cert, Key: c.Key}); err == nil && !t.Policy().SuitsKey(read.Certificate) {
			d.Refuse(decoding.Join(pair, "cert"), c.Cert, "none of the ciphers suits its key, so that no client with TLS 1.2 could connect: add one, or set min_version: 1.3")
		}
	}
}

// checkCA checks that a file of trusted certificates can be loaded. An empty path is none.
func checkCA(d *decoder, key, file string) {
	if file != "" {
		d.needReadable(key, file, certificates.Files{CA: file})
	}
}

// needPair checks that the section at a key has both a certificate and its key, or neither.
func needPair(d *decoder, at, cert, key string) {
	if (cert == "") != (key == "") {
		d.Refuse(at, "", "give both cert and key, or neither")
	}
}

// checkCertificate checks that the files of the mapping at a key can be loaded. An empty path is
// an error that is already recorded.
func checkCertificate(d *decoder, at, cert, key string) {
	for _, file := range []struct{ key, path string }{{"cert", cert}, {"key", key}} {
		if file.path == "" {
			continue
		}
		if _, err := regular.ReadUpTo(file.path, maxFileBytes); err != nil {
			d.Refuse(decoding.Join(at, file.key), file.path, "cannot be read: "+err.Error())
		}
	}
	if d.Failed(at) {
		return
	}
	if _, err := certificates.Read(certificates.Files{Cert: cert, Key: key}); err != nil {
		d.Refuse(decoding.Join(at, "cert"), cert, "not a certificate for the key in "+key+": "+err.Error())
	}
}
