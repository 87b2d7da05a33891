package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"sync/atomic"

	"sluice/certificates"
	"sluice/route"
)

// A clientCertificate is the certificate of a client that the listener has verified. All streams of a connection share it.
type clientCertificate struct {
	*route.Certificate
	line   string // the X-Forwarded-Client-Cert line of requests, in Envoy's format
	chains [][]*x509.Certificate
	// revocations returns the lists of the listener now; nil: it never has any.
	revocations func() *certificates.Revocations
	judged      atomic.Pointer[judgement] // nil: none
}

// A judgement is what some lists say about a certificate.
type judgement struct {
	by      *certificates.Revocations
	revoked bool
}

// newClientCertificate returns the certificate of a client; nil: it has none that is verified. A name with control
// characters is an error: it cannot be written in a field.
func newClientCertificate(state tls.ConnectionState, revocations func() *certificates.Revocations) (*clientCertificate, error) {
	if len(state.VerifiedChains) == 0 {
		return nil, nil
	}
	leaf := state.VerifiedChains[0][0]
	c := &clientCertificate{Certificate: route.NewCertificate(leaf), chains: state.VerifiedChains, revocations: revocations}
	line := []byte("X-Forwarded-Client-Cert: Hash=")
	line = append(line, c.SHA256...)
	line = append(line, ";Subject="...)
	line = appendQuoted(line, leaf.Subject.String())
	for _, uri := range leaf.URIs {
		line = append(line, ";URI="...)
		line = appendCertificateName(line, uri.String())
	}
	for _, name := range leaf.DNSNames {
		line = append(line, ";DNS="...)
		line = appendCertificateName(line, name)
	}
	for _, b := range line {
		if b < ' ' || b == 0x7f {
			return nil, errors.New("the client's certificate has a name with control characters")
		}
	}
	c.line = string(append(line, "\r\n"...))
	return c, nil
}

// isRevoked reports whether the present lists of the listener revoke the certificate. The handshake has asked the lists of
// then.
func (c *clientCertificate) isRevoked() bool {
	if c.revocations == nil {
		return false
	}
	now, last := c.revocations(), c.judged.Load()
	if last == nil || last.by != now {
		last = &judgement{now, now.Revokes(c.chains)}
		c.judged.Store(last)
	}
	return last.revoked
}

// appendCertificateName quotes a name if necessary.
func appendCertificateName(out []byte, name string) []byte {
	if strings.ContainsAny(name, `,;="\ `) {
		return appendQuoted(out, name)
	}
	return append(out, name...)
}

func appendQuoted(out []byte, s string) []byte {
	out = append(out, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			out = append(out, '\\')
		}
		out = append(out, s[i])
	}
	return append(out, '"')
}
