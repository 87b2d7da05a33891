package http1

// Name is a field name that sluice knows; any other is NameOther.
type Name uint8

const (
	NameOther Name = iota
	NameAccept
	NameConnection
	NameContentLength
	NameContentType
	NameCookie
	NameExpect
	NameForwarded
	NameGRPCTimeout
	NameHost
	NameHTTP2Settings
	NameKeepAlive
	NameMaxForwards
	NameProxyAuthenticate
	NameProxyAuthorization
	NameProxyConnection
	NameReferer
	NameStrictTransportSecurity
	NameTE
	NameTrailer
	NameTraceparent
	NameTransferEncoding
	NameUpgrade
	NameUserAgent
	NameVia
	NameXForwardedClientCert
	NameXForwardedFor
	NameXForwardedHost
	NameXForwardedPort
	NameXForwardedProto
	NameXRealIP
	NameXRequestID
	NameXSluiceAttempts
	NameXSluiceMirror
	// NameUnderscore is any name with an underscore. CGI cannot tell it from the same
	// name with hyphens, so it could imitate a field that sluice sets.
	NameUnderscore
)

type knownName struct {
	lower string
	name  Name
}

// namesByLength has the known names by length.
var namesByLength = func() (table [32][]knownName) {
	for _, known := range []knownName{
		{"accept", NameAccept},
		{"connection", NameConnection},
		{"content-length", NameContentLength},
		{"content-type", NameContentType},
		{"cookie", NameCookie},
		{"expect", NameExpect},
		{"forwarded", NameForwarded},
		{"grpc-timeout", NameGRPCTimeout},
		{"host", NameHost},
		{"http2-settings", NameHTTP2Settings},
		{"keep-alive", NameKeepAlive},
		{"max-forwards", NameMaxForwards},
		{"proxy-authenticate", NameProxyAuthenticate},
		{"proxy-authorization", NameProxyAuthorization},
		{"proxy-connection", NameProxyConnection},
		{"referer", NameReferer},
		{"strict-transport-security", NameStrictTransportSecurity},
		{"te", NameTE},
		{"trailer", NameTrailer},
		{"traceparent", NameTraceparent},
		{"transfer-encoding", NameTransferEncoding},
		{"upgrade", NameUpgrade},
		{"user-agent", NameUserAgent},
		{"via", NameVia},
		{"x-forwarded-client-cert", NameXForwardedClientCert},
		{"x-forwarded-for", NameXForwardedFor},
		{"x-forwarded-host", NameXForwardedHost},
		{"x-forwarded-port", NameXForwardedPort},
		{"x-forwarded-proto", NameXForwardedProto},
		{"x-real-ip", NameXRealIP},
		{"x-request-id", NameXRequestID},
		{"x-sluice-attempts", NameXSluiceAttempts},
		{"x-sluice-mirror", NameXSluiceMirror},
	} {
		table[len(known.lower)] = append(table[len(known.lower)], known)
	}
	return table
}()

// NameOf returns the Name of a field name in any case. It never returns NameUnderscore.
func NameOf(name []byte) Name {
	if len(name) >= len(namesByLength) {
		return NameOther
	}
	for _, known := range namesByLength[len(name)] {
		if EqualFold(name, known.lower) {
			return known.name
		}
	}
	return NameOther
}

// EqualFold reports whether b equals lower, which has no upper-case letter, ignoring
// ASCII case.
func EqualFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range len(b) {
		if c := b[i]; c != lower[i] && (c < 'A' || c > 'Z' || c|0x20 != lower[i]) {
			return false
		}
	}
	return true
}

// equalFold reports whether a and b are equal, ignoring ASCII case.
func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}

// Sets of characters (RFC 9110, section 5.6.2; RFC 9112, sections 2 to 4).
const (
	charToken  = 1 << iota // allowed in a method or a field name
	charValue              // allowed in a field value
	charTarget             // allowed in a request target
	charHost               // allowed in a Host
	charUnderscore
)

var chars = func() (table [256]uint8) {
	for c := range 256 {
		switch {
		case c == '\t' || c == ' ':
			table[c] |= charValue
		case c > ' ' && c != 0x7f:
			table[c] |= charValue
			if c != '#' {
				table[c] |= charTarget
			}
		}
	}
	const alphanumeric = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, c := range []byte(alphanumeric + "!#$%&'*+-.^_`|~") {
		table[c] |= charToken
	}
	// RFC 3986, section 3.2.2, without user information and rarely used characters.
	for _, c := range []byte(alphanumeric + "-._~%!$&'()*+;=:[]") {
		table[c] |= charHost
	}
	table['_'] |= charUnderscore
	return table
}()

// isSpace reports whether c is optional white space (RFC 9110, section 5.6.3).
func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func trimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func consistsOf(b []byte, set uint8) bool {
	for _, c := range b {
		if chars[c]&set == 0 {
			return false
		}
	}
	return true
}
