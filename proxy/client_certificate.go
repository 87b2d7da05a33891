package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"strings"
)

// clientCertificateLine returns the X-Forwarded-Client-Cert line of requests on a
// connection, in Envoy's format; empty: the client has no verified certificate. A name
// with control characters is an error: it cannot be written in a field.
func clientCertificateLine(state tls.ConnectionState) (string, error) {
	if len(state.VerifiedChains) == 0 {
		return "", nil
	}
	leaf := state.VerifiedChains[0][0]
	sum := sha256.Sum256(leaf.Raw)
	line := []byte("X-Forwarded-Client-Cert: Hash=")
	line = hex.AppendEncode(line, sum[:])
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
	for _, c := range line {
		if c < ' ' || c == 0x7f {
			return "", errors.New("the client's certificate has a name with control characters")
		}
	}
	return string(append(line, "\r\n"...)), nil
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
