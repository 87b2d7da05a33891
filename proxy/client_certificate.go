package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"strings"
	"sync/atomic"

	"sluice/certificates"
	"sluice/route"
)

// A clientCertificate is the certificate of a client that the listener has verified. All streams of
// a connection share it.
type clientCertificate struct {
	*route.Certificate        // nil for TCP, as line
	line               string // the X-Forwarded-Client-Cert line of requests, in Envoy's format

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

// newClientCertificate returns the certificate of a client; nil: it has none that is verified. A
// name with control characters is an error: it cannot be written in a field.
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

// isRevoked reports whether the present lists of the listener revoke the certificate of the client,
// if it has one. The handshake has asked the lists of then.
func (c *client) isRevoked() bool {
	v := c.certificate
	if v == nil || v.revocations == nil {
		return false
	}
	now, last := v.revocations(), v.judged.Load()
	if last == nil || last.by != now {
		last = &judgement{now, now.Revokes(v.chains)}
		v.judged.Store(last)
	}
	return last.revoked
}

// EndRevoked ends the connections whose client has a certificate that is revoked now, with all that
// is in progress on them: requests, streams and tunnels. It must be called after each change of the
// lists of [ListenerOptions].
func (s *Server) EndRevoked() {
	s.mu.Lock()
	all := maps.Clone(s.certified)
	s.mu.Unlock()
	for open, c := range all {
		if c.isRevoked() {
			open.interrupt()
		}
	}
}

var errRevoked = errors.New("the client's certificate has just been revoked")

// certify lets EndRevoked end the connection of c, which is open, from now on. It fails if the
// certificate has been revoked since the handshake: EndRevoked may have been called before.
func (s *Server) certify(c *client, open connection) error {
	s.mu.Lock()
	s.certified[open] = c
	s.mu.Unlock()
	if c.isRevoked() {
		return errRevoked
	}
	return nil
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
