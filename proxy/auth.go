package proxy

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/route"
	"sluice/route/auth"
)

// verifyTimeout bounds the wait for the verification of a password to begin.
const verifyTimeout = 5 * time.Second

// requirePassword refuses requests without a password of a user of the route. user becomes the
// user's name.
func requirePassword(x *exchange) *refusal.Refusal {
	if x.route.actions.BasicAuth == nil {
		return nil
	}
	users := x.route.actions.BasicAuth
	name, password, ok := credentials(&x.request.head, x.request.bytes())
	if ok {
		var err error
		ok, err = users.Verify(x.request.block(), name, password, func() (context.Context, context.CancelFunc) { return x.tries.waiting(verifyTimeout) })
		if err != nil {
			return x.tries.endOfWait(refusal.AuthBusy)
		}
	}
	if !ok {
		return refusal.Unauthorized.With("WWW-Authenticate", `Basic realm="`+users.Realm+`", charset="UTF-8"`)
	}
	x.route.user = name
	return nil
}

// credentials returns the user and the password in the Authorization field of a head (RFC 7617,
// section 2). A request with two of them has none: the peer could use the other one.
func credentials(head *http1.RequestHead, b []byte) (name, password string, ok bool) {
	var value []byte
	for _, f := range head.Fields() {
		if !http1.EqualFold(f.FieldName(b), "authorization") {
			continue
		}
		if value != nil {
			return "", "", false
		}
		value = f.Value(b)
	}
	scheme, encoded, _ := strings.Cut(string(value), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimLeft(encoded, " "))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(text), ":")
}

// requireToken refuses requests without a token that the route allows, and those over a rate limit
// by a claim of it. user becomes the token's subject, and peers get fields from its claims.
func requireToken(x *exchange) *refusal.Refusal {
	if x.route.actions.JWT == nil {
		return nil
	}
	rules := x.route.actions.JWT
	text, number := findToken(&x.request, &rules.Place, x.request.bytes())
	switch {
	case number > 1:
		return ofFault(&auth.Fault{Why: "the request has several"}) // the peer could use another one
	case len(text) == 0:
		return refusal.TokenMissing
	}
	token, err := rules.Check(text, x.request.startTime, x.request.block(), func() (context.Context, context.CancelFunc) {
		return x.tries.waiting(auth.MaxKeyWait)
	})
	if fault := (*auth.Fault)(nil); errors.As(err, &fault) {
		if fault.Kind == auth.KeysUnknown {
			return x.tries.endOfWait(refusal.KeysUnavailable)
		}
		return ofFault(fault)
	}
	x.route.user = token.Subject()
	for i := range rules.Headers {
		h := &rules.Headers[i]
		if value := token.Line(h.Claim); value != "" {
			x.route.appendAuthorized(h.Name, value)
		}
	}
	if limit := x.route.actions.RateLimit; limit != nil && limit.Claim != nil {
		// Not x.startTime: the keys may have been waited for, and others of the user who came later
		// have tokens already.
		return x.route.charge(limit, []byte(token.Key(*limit.Claim)), time.Now())
	}
	return nil
}

// appendAuthorized appends a field line that peers get in place of what the client has sent.
func (x *chosenRoute) appendAuthorized(name, value string) {
	x.authorized = appendLine(x.authorized, name, value)
}

// appendLine appends a field line with a value that is cleaned.
func appendLine(out []byte, name, value string) []byte {
	out = append(append(out, name...), ": "...)
	start := len(out)
	out = append(out, value...)
	http1.Clean(out[start:])
	return append(out, "\r\n"...)
}

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

// findToken returns the token of the request whose head is b, and how many there are. Peers may
// read a name with a mark as one with a hyphen, so it counts as that.
func findToken(x *request, place *route.TokenPlace, b []byte) (token []byte, number int) {
	name := place.Header
	switch {
	case place.Cookie != "":
		return findCookie(x, place.Cookie, b)
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

// findCookie returns the cookie with that name, and how many there are. For some servers a cookie
// ends with other characters than a semicolon, so each place where one with the name may begin
// counts.
func findCookie(x *request, name string, b []byte) (value []byte, number int) {
	for _, f := range x.head.Fields() {
		if f.Name != http1.NameCookie {
			continue
		}
		text := f.Value(b)
		for start := range text {
			if mayBeginCookie(text[:start]) && beginsCookie(text[start:], name) {
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

// mayBeginCookie reports whether a cookie may begin behind text. A cookie without a name begins
// with an equals sign, which some servers skip.
func mayBeginCookie(text []byte) bool {
	if n := len(text) - 1; n >= 0 && text[n] == '=' {
		return n == 0 || !isCookieOctet(text[n-1])
	}
	return len(text) == 0 || !isCookieOctet(text[len(text)-1])
}

// isCookieOctet reports whether c may be in the value of a cookie (RFC 6265, section 4.1.1): no
// server ends it there.
func isCookieOctet(c byte) bool {
	return c > ' ' && c < 0x7f && c != '"' && c != ',' && c != ';' && c != '\\'
}

// beginsCookie reports whether text begins with a name of a cookie, in any spelling that some
// server reads as that: .NET and others ignore case, PHP takes dots, blanks and brackets for
// underscores, older ones decode it, and a bracket after the name makes its value a list.
func beginsCookie(text []byte, name string) bool {
	for i := range len(name) {
		c := byte(0)
		if c, text = nextOctet(text); !sameInName(c, name[i]) {
			return false
		}
	}
	for len(text) > 0 && text[0] != ';' && !isCookieOctet(text[0]) {
		text = text[1:]
	}
	return len(text) > 0 && (text[0] == '=' || text[0] == '[')
}

// nextOctet returns the first octet of text, decoded, and the rest. 0: there is none.
func nextOctet(text []byte) (c byte, rest []byte) {
	var decoded [1]byte
	switch {
	case len(text) == 0:
		return 0, nil
	case text[0] == '%' && len(text) > 2:
		if _, err := hex.Decode(decoded[:], text[1:3]); err == nil {
			return decoded[0], text[3:]
		}
	}
	return text[0], text[1:]
}

// sameInName reports whether some server reads c as the octet want of a name.
func sameInName(c, want byte) bool {
	if want == '_' && (c == '.' || c == ' ' || c == '[') {
		return true
	}
	isLetter := c|0x20 >= 'a' && c|0x20 <= 'z'
	return c == want || isLetter && c|0x20 == want|0x20
}
