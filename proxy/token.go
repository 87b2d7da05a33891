package proxy

import (
	"bytes"

	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/route"
	"sluice/route/auth"
)

// ofFault returns the refusal of a request whose token has a fault (RFC 6750, section 3).
func ofFault(f *auth.Fault) *refusal.Refusal {
	const challenge = `Bearer realm="restricted", error="`
	switch f.Kind {
	case auth.TokenDenied:
		r := refusal.New(403, "token_denied", "the token does not allow this: "+f.Why)
		return r.With("WWW-Authenticate", challenge+`insufficient_scope", error_description="`+f.Why+`"`)
	case auth.TokenExpired:
		r := refusal.New(401, "token_expired", "the token has expired")
		return r.With("WWW-Authenticate", challenge+`invalid_token", error_description="`+f.Why+`"`)
	}
	r := refusal.New(401, "token_invalid", "the token cannot be used: "+f.Why)
	return r.With("WWW-Authenticate", challenge+`invalid_token", error_description="`+f.Why+`"`)
}

// findToken returns the token of the request whose head is b, and how many there are. Peers may read a name with a mark as
// one with a hyphen, so it counts as that.
func (x *request) findToken(place *route.TokenPlace, b []byte) (token []byte, number int) {
	name := place.Header
	switch {
	case place.Cookie != "":
		return x.findCookie(place.Cookie, b)
	case name == "":
		name = "authorization"
	}
	for _, f := range x.head.Fields() {
		if !http1.Alike(f.FieldName(b), name) {
			continue
		}
		number++
		value := f.Value(b)
		scheme, credentials, ok := bytes.Cut(value, []byte(" "))
		switch {
		case ok && http1.EqualFold(scheme, "bearer"):
			token = bytes.Trim(credentials, " ")
		case place.Header != "":
			token = value
		}
	}
	return token, number
}

// findCookie returns the cookie with that name, and how many there are. For some servers a cookie ends with other characters
// than a semicolon, so each place where one with the name may begin counts.
func (x *request) findCookie(name string, b []byte) (value []byte, number int) {
	for _, f := range x.head.Fields() {
		if f.Name != http1.NameCookie {
			continue
		}
		text := f.Value(b)
		for start := range text {
			if (start == 0 || !isCookieOctet(text[start-1])) && beginsCookie(text[start:], name) {
				number++
			}
		}
		for pair := range bytes.SplitSeq(text, semicolon) {
			if key, v, ok := bytes.Cut(pair, []byte("=")); ok && string(bytes.Trim(key, " \t")) == name {
				value = bytes.Trim(v, " \t\"")
			}
		}
	}
	return value, number
}

// isCookieOctet reports whether c may be in the value of a cookie (RFC 6265, section 4.1.1): no server ends it there.
func isCookieOctet(c byte) bool {
	return c > ' ' && c < 0x7f && c != '"' && c != ',' && c != ';' && c != '\\'
}

// beginsCookie reports whether text begins with a name of a cookie, in any spelling that some server reads as that: PHP takes
// dots, blanks and brackets for underscores.
func beginsCookie(text []byte, name string) bool {
	if len(text) <= len(name) {
		return false
	}
	for i := range len(name) {
		if c := text[i]; c != name[i] && !(name[i] == '_' && (c == '.' || c == ' ' || c == '[')) {
			return false
		}
	}
	rest := text[len(name):]
	for len(rest) > 0 && rest[0] != ';' && !isCookieOctet(rest[0]) {
		rest = rest[1:]
	}
	return len(rest) > 0 && rest[0] == '='
}
