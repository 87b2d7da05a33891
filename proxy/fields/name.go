package fields

import "sluice/proxy/http1"

// A name is a field name that the conversion of a head treats specially; any other is
// nameOther.
type name uint8

const (
	nameOther name = iota
	nameMethod
	nameScheme
	nameAuthority
	namePath
	nameProtocol
	namePseudo             // any other pseudo-header field
	nameConnectionSpecific // RFC 9113, section 8.2.2
	nameTE
	nameHost
	nameCookie
	nameContentLength
)

// classify returns the name of b and whether it is malformed.
func classify(b []byte) (n name, malformed bool) {
	switch string(b) {
	case ":method":
		return nameMethod, false
	case ":scheme":
		return nameScheme, false
	case ":authority":
		return nameAuthority, false
	case ":path":
		return namePath, false
	case ":protocol":
		return nameProtocol, false
	case "te":
		return nameTE, false
	case "host":
		return nameHost, false
	case "cookie":
		return nameCookie, false
	case "content-length":
		return nameContentLength, false
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return nameConnectionSpecific, false
	}
	if len(b) > 0 && b[0] == ':' {
		return namePseudo, false
	}
	return nameOther, !validName(b)
}

const (
	charName  = 1 << iota // allowed in a field name: a token without upper case
	charToken             // allowed in a method
)

var chars = func() (table [256]uint8) {
	const marks = "!#$%&'*+-.^_`|~0123456789"
	for _, c := range []byte(marks + "abcdefghijklmnopqrstuvwxyz") {
		table[c] |= charName
	}
	for _, c := range []byte(marks + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		table[c] |= charToken
	}
	return table
}()

func consistsOf(b []byte, set uint8) bool {
	all := set
	for _, c := range b {
		all &= chars[c]
	}
	return all != 0
}

// validName reports whether b is a field name (RFC 9113, section 8.2.1).
func validName(b []byte) bool {
	return len(b) > 0 && (b[0] == ':' || consistsOf(b, charName))
}

// validValue reports whether b is a field value: no control characters except tabs, and
// no surrounding white space (RFC 9113, section 8.2.1).
func validValue(b []byte) bool {
	return len(b) == 0 || http1.IsValue(b) && !isSpace(b[0]) && !isSpace(b[len(b)-1])
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }
