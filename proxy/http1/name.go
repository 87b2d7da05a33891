package http1

// Name is a field name that sluice knows; any other is NameOther.
type Name uint8

const (
	NameOther Name = iota
	NameAccept
	NameAltSvc
	NameAuthorization
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
	NameSecWebSocketKey
	NameStrictTransportSecurity
	NameTE
	NameTrailer
	NameTraceparent
	NameTracestate
	NameTransferEncoding
	NameUpgrade
	NameUserAgent
	NameVia
	NameWWWAuthenticate
	NameXForwardedClientCert
	NameXForwardedFor
	NameXForwardedHost
	NameXForwardedPort
	NameXForwardedProto
	NameXRealIP
	NameXRequestID
	NameXSluiceMirror
	// NameXSluice is any other name that begins with X-Sluice-.
	NameXSluice
	// NameClaim is any other name of a field in which proxies tell servers about their
	// clients: X-Forwarded-User, True-Client-IP, Client-Cert, Remote-User, ….
	NameClaim
	// NameMarked is any name with a mark: a character that is no letter, digit or hyphen.
	// CGI, WSGI and PHP cannot tell it from the same name with hyphens, so that it could
	// imitate another field: see [NameLike].
	NameMarked

	// NumNames is the number of names.
	NumNames = iota
)

type knownName struct {
	lower string
	name  Name
}

// comparedName is a known name as nameOf compares it: by its ends, in at most two words.
type comparedName struct {
	knownName
	first, last         uint64 // endsOf lower
	firstCase, lastCase uint64
}

// is reports whether a name of the same length, with these ends, is k.
func (k *comparedName) is(name []byte, first, last uint64) bool {
	return first|k.firstCase == k.first && last|k.lastCase == k.last && (len(name) <= 16 || EqualFold(name, k.lower))
}

// namesByLength has the known names by length.
var namesByLength = func() (table [32][]comparedName) {
	for _, known := range []knownName{
		{"accept", NameAccept},
		{"alt-svc", NameAltSvc},
		{"authorization", NameAuthorization},
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
		{"sec-websocket-key", NameSecWebSocketKey},
		{"strict-transport-security", NameStrictTransportSecurity},
		{"te", NameTE},
		{"trailer", NameTrailer},
		{"traceparent", NameTraceparent},
		{"tracestate", NameTracestate},
		{"transfer-encoding", NameTransferEncoding},
		{"upgrade", NameUpgrade},
		{"user-agent", NameUserAgent},
		{"via", NameVia},
		{"www-authenticate", NameWWWAuthenticate},
		{"x-forwarded-client-cert", NameXForwardedClientCert},
		{"x-forwarded-for", NameXForwardedFor},
		{"x-forwarded-host", NameXForwardedHost},
		{"x-forwarded-port", NameXForwardedPort},
		{"x-forwarded-proto", NameXForwardedProto},
		{"x-real-ip", NameXRealIP},
		{"x-request-id", NameXRequestID},
		{"x-sluice-mirror", NameXSluiceMirror},

		{"cf-connecting-ip", NameClaim},
		{"cf-connecting-ipv6", NameClaim},
		{"client-cert", NameClaim}, // RFC 9440
		{"client-cert-chain", NameClaim},
		{"client-ip", NameClaim},
		{"fastly-client-ip", NameClaim},
		{"front-end-https", NameClaim},
		{"proxy", NameClaim}, // HTTP_PROXY in CGI
		{"true-client-ip", NameClaim},
		{"x-authenticated-user", NameClaim},
		{"x-client-ip", NameClaim},
		{"x-cluster-client-ip", NameClaim},
		{"x-envoy-external-address", NameClaim},
		{"x-envoy-internal", NameClaim},
		{"x-forwarded", NameClaim},
		{"x-rewrite-url", NameClaim},
		{"x-scheme", NameClaim},
		{"x-url-scheme", NameClaim},
	} {
		first, last := endsOf([]byte(known.lower))
		table[len(known.lower)] = append(table[len(known.lower)], comparedName{known, first, last, caseOf(first), caseOf(last)})
	}
	return table
}()

// prefixes are the starts of further names, by their first byte.
var prefixes = func() (table [256][]knownName) {
	for _, known := range []knownName{
		{"x-forwarded-", NameClaim},
		{"x-sluice-", NameXSluice},
		{"x-original-", NameClaim},
		{"x-ssl-", NameClaim},
		{"x-client-cert", NameClaim},
		{"x-auth-request-", NameClaim},
		{"ssl-client-", NameClaim},
		{"remote-", NameClaim}, // Remote-User, Remote-Groups, …: of authentication servers, and of CGI
		{"x-remote-", NameClaim},
	} {
		table[known.lower[0]] = append(table[known.lower[0]], known)
	}
	return table
}()

// NameOf returns the Name of a field name in any case.
func NameOf(name []byte) Name {
	marks := uint8(0)
	for _, c := range name {
		marks |= chars[c]
	}
	return nameOf(name, marks&charMark != 0)
}

func nameOf(name []byte, marked bool) Name {
	if marked {
		return NameMarked
	}
	if len(name) < len(namesByLength) {
		first, last := endsOf(name)
		names := namesByLength[len(name)]
		for i := range names {
			if known := &names[i]; known.is(name, first, last) {
				return known.name
			}
		}
	}
	if len(name) == 0 {
		return NameOther
	}
	for _, known := range prefixes[name[0]|0x20] {
		if len(name) >= len(known.lower) && EqualFold(name[:len(known.lower)], known.lower) {
			return known.name
		}
	}
	return NameOther
}

// NameLike returns the Name that a name with marks has for servers that read each mark as a
// hyphen.
func NameLike(name []byte) Name {
	var memory [len(namesByLength) + 1]byte // a longer name is known by its start only
	like := memory[:copy(memory[:], name)]
	for i, c := range like {
		if chars[c]&charMark != 0 {
			like[i] = '-'
		}
	}
	return nameOf(like, false)
}

// Alike reports whether a field name is lower, which has no upper-case letter, ignoring ASCII
// case, for servers that read each mark as a hyphen, whichever of the two has it.
func Alike(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if c != lower[i] && (c < 'A' || c > 'Z' || c|0x20 != lower[i]) && !(isHyphen(c) && isHyphen(lower[i])) {
			return false
		}
	}
	return true
}

// isHyphen reports whether some servers read c as a hyphen.
func isHyphen(c byte) bool { return c == '-' || chars[c]&charMark != 0 }

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
		if Lower(a[i]) != Lower(b[i]) {
			return false
		}
	}
	return true
}

// Lower returns c, an upper-case ASCII letter as a lower-case one.
func Lower(c byte) byte {
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
	charMark               // allowed in a field name, and no letter, digit or hyphen
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
	for _, c := range []byte("!#$%&'*+.^_`|~") {
		table[c] |= charMark
	}
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
