package certificates

import (
	"crypto/tls"
	"maps"
	"slices"
	"strings"
)

// MinVersion is the oldest version of TLS that clients may use (RFC 8996).
const MinVersion = tls.VersionTLS12

// Suites are the cipher suites for clients with TLS 1.2: with forward secrecy and authenticated
// encryption (RFC 9325, section 4.2), as HTTP/2 needs. TLS 1.3 has no others. Go chooses the order.
var Suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// A Policy is how clients may use TLS. It is not changed.
type Policy struct {
	MinVersion uint16
	Suites     []uint16      // of TLS 1.2; nil: none may use it
	Curves     []tls.CurveID // of the key exchange, in Go's order; nil: all that Go has
}

// DefaultPolicy is the policy without a profile. It has new key exchanges as soon as Go has them.
var DefaultPolicy = Policy{MinVersion: MinVersion, Suites: Suites}

// mozillaCurves are the key exchanges of both profiles.
var mozillaCurves = []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384}

// Profiles are the policies of Mozilla's recommendations, version 6.0, which has no others.
var Profiles = map[string]Policy{
	"modern":       {MinVersion: tls.VersionTLS13, Curves: mozillaCurves},
	"intermediate": {MinVersion: tls.VersionTLS12, Suites: Suites, Curves: mozillaCurves},
}

// Restrict makes c accept only what the policy allows.
func (p Policy) Restrict(c *tls.Config) {
	c.MinVersion, c.CipherSuites, c.CurvePreferences = p.MinVersion, p.Suites, p.Curves
}

// SuitsHTTP2 returns why HTTP/2 cannot be used; "": it can. With TLS 1.2 every HTTP/2 client has
// one suite and one curve (RFC 9113, section 9.2.2); as in net/http, either kind of key is enough.
func (p Policy) SuitsHTTP2() string {
	switch {
	case p.MinVersion >= tls.VersionTLS13:
	case !slices.Contains(p.Suites, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256) && !slices.Contains(p.Suites, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256):
		return "HTTP/2 with TLS 1.2 needs a cipher suite with AES_128_GCM_SHA256"
	case p.Curves != nil && !slices.Contains(p.Curves, tls.CurveP256):
		return "HTTP/2 with TLS 1.2 needs the curve P-256"
	}
	return ""
}

// SuitsKey reports whether a client with TLS 1.2 can use a certificate, by the kind of its key.
func (p Policy) SuitsKey(c *tls.Certificate) bool {
	kind := "ECDSA"
	if c.Leaf.PublicKeyAlgorithm.String() == "RSA" {
		kind = "RSA"
	}
	return p.MinVersion >= tls.VersionTLS13 || slices.ContainsFunc(p.Suites, func(id uint16) bool {
		return strings.Contains(tls.CipherSuiteName(id), "_"+kind+"_")
	})
}

// versions, suites and curves are what a policy may have, by their names.
var (
	versions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	suites   = func() map[string]uint16 {
		all := make(map[string]uint16)
		for _, id := range Suites {
			all[tls.CipherSuiteName(id)] = id
		}
		return all
	}()
	curves = map[string]tls.CurveID{
		"X25519MLKEM768": tls.X25519MLKEM768, "SecP256r1MLKEM768": tls.SecP256r1MLKEM768, "SecP384r1MLKEM1024": tls.SecP384r1MLKEM1024,
		"X25519": tls.X25519, "P-256": tls.CurveP256, "P-384": tls.CurveP384, "P-521": tls.CurveP521,
	}
)

// ParseVersion returns the version of TLS with a name such as "1.3".
func ParseVersion(name string) (version uint16, ok bool) { version, ok = versions[name]; return }

// ParseSuite returns the cipher suite with an IANA name.
func ParseSuite(name string) (id uint16, ok bool) { id, ok = suites[name]; return }

// ParseCurve returns the key exchange with a name such as "P-256".
func ParseCurve(name string) (id tls.CurveID, ok bool) { id, ok = curves[name]; return }

// SuiteNames are the names of all cipher suites for policies, and CurveNames of all key exchanges.
var SuiteNames, CurveNames = slices.Sorted(maps.Keys(suites)), slices.Sorted(maps.Keys(curves))
