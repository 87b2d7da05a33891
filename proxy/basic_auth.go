package proxy

import (
	"context"
	"encoding/base64"
	"strings"
	"time"

	"sluice/proxy/http1"
	"sluice/proxy/refusal"
)

// verifyTimeout bounds the wait for the verification of a password to begin.
const verifyTimeout = 5 * time.Second

// authenticate checks the password of the request, whose head is b. If it is right, user
// becomes the user's name, and the refusal is nil.
func (x *httpExchange) authenticate(b []byte) *refusal.Refusal {
	name, password, ok := x.credentials(b)
	if !ok {
		return refusal.Unauthorized
	}
	x.GiveBack()
	ok, err := x.actions.BasicAuth.Verify(x.client.block(), name, password, func() (context.Context, context.CancelFunc) { return x.Waiting(verifyTimeout) })
	switch {
	case err != nil:
		return refusal.AuthBusy
	case !ok:
		return refusal.Unauthorized
	}
	x.user = name
	return nil
}

// credentials returns those of the Authorization field (RFC 7617, section 2). A request
// with two of them has none: the peer could use the other one.
func (x *httpExchange) credentials(b []byte) (name, password string, ok bool) {
	var value []byte
	fields := x.head.Fields()
	for i := range fields {
		if !http1.EqualFold(fields[i].FieldName(b), "authorization") {
			continue
		}
		if value != nil {
			return "", "", false
		}
		value = fields[i].Value(b)
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
