package proxy

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"sluice/proxy/http1"
	"sluice/proxy/refusal"
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
