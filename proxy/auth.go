package proxy

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"sluice/observe/tracing"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/reserved"
	"sluice/route"
	"sluice/route/auth"
)

// maxAuthFields is the maximum number of fields in an answer of an authentication server.
const maxAuthFields = 80

// askAuthServer asks the authentication server of the route whether the request is allowed.
func askAuthServer(x *exchange) *refusal.Refusal {
	if x.route.actions.ForwardAuth == nil {
		return nil
	}
	f := x.route.actions.ForwardAuth
	ctx, end := x.tries.waiting(f.Timeout())
	answer, err := f.Ask(ctx, x.request.block(), x.route.authHeader(x.request.bytes()))
	end()
	if err == nil {
		err = scanAnswer(answer)
	}
	switch {
	case err != nil, x.request.client.Gone.Load():
		return x.tries.endOfWait(refusal.AuthUnavailable)
	case !answer.Allows():
		return x.route.denial(answer)
	}
	for _, name := range f.Copied {
		for _, value := range answer.Header.Values(name) {
			x.route.appendAuthorized(name, value)
		}
	}
	if len(x.route.authorized) > maxEditedHead {
		return refusal.AuthUnavailable
	}
	return nil
}

// appendAuthorized appends a field line that peers get in place of what the client has sent.
func (x *chosenRoute) appendAuthorized(name, value string) {
	x.authorized = append(append(x.authorized, name...), ": "...)
	start := len(x.authorized)
	x.authorized = append(x.authorized, value...)
	http1.Clean(x.authorized[start:])
	x.authorized = append(x.authorized, "\r\n"...)
}

// scanAnswer fails for an answer that would be malformed as the response of a peer, so that
// its fields can be passed on to peers and clients.
func scanAnswer(answer *auth.Answer) error {
	text := fmt.Appendf(nil, "HTTP/1.1 %d \r\n", answer.Status)
	for name, values := range answer.Header {
		switch http1.NameOf([]byte(name)) {
		case http1.NameContentLength, http1.NameTransferEncoding: // net/http has read the body
			continue
		}
		for _, value := range values {
			text = append(append(append(append(text, name...), ": "...), value...), "\r\n"...)
		}
	}
	text = append(text, "\r\n"...)
	var head http1.ResponseHead
	head.Reset(maxAuthFields)
	n, err := head.Scan(text)
	switch {
	case err != nil:
		return err
	case n != len(text):
		return http1.ErrResponse
	}
	return nil
}

// authHeader returns the fields of the question: the fields of the request that would be forwarded,
// without fields about its body and about which answer of the peer is wanted, and what the request
// is for.
func (x *chosenRoute) authHeader(b []byte) http.Header {
	header := make(http.Header)
	var seen forwardedFields
	for _, f := range x.request.head.Fields() {
		switch f.Name {
		case http1.NameHost, http1.NameContentLength, http1.NameExpect, http1.NameTrailer, http1.NameMaxForwards, http1.NameGRPCTimeout:
			continue
		}
		name := f.FieldName(b)
		if f.Nominated || f.Name != http1.NameOther && dropsRequestField(x.request, f, &seen) || selectsAnswer(name) {
			continue
		}
		if x.actions.JWT != nil && hasAlike(x.actions.JWT.Written.Dropped, name) {
			continue
		}
		header.Add(string(name), string(f.Value(b)))
	}
	for line := range http1.Lines(x.authorized) { // from the token
		header.Add(string(http1.LineName(line)), string(http1.LineValue(line)))
	}
	if !x.request.head.Has(http1.NameUserAgent) {
		header["User-Agent"] = nil // else net/http adds one
	}
	header.Set("X-Forwarded-Method", string(x.request.head.MethodName(b)))
	header.Set("X-Forwarded-Uri", string(appendTarget(x.request, nil, b)))
	header.Set("X-Forwarded-Host", string(x.request.head.Authority(b)))
	header.Set("X-Forwarded-Proto", x.request.Scheme())
	client := string(x.request.clientAddress())
	header.Set("X-Forwarded-For", client)
	header.Set("X-Real-Ip", client)
	if len(x.request.requestID) > 0 {
		header.Set("X-Request-Id", string(x.request.requestID))
	}
	if s := &x.request.span; !s.ID.IsZero() {
		header.Set("Traceparent", string(tracing.AppendTraceparent(nil, s.Trace, s.ID, s.Sampled)))
	}
	header.Add("Via", "1.1 sluice") // a loop must end
	return header
}

// selectsAnswer reports whether a field of a request is a condition on what the peer has, or asks
// for a part of it. The authentication server would answer for what it has itself: 304, 412 or 416.
func selectsAnswer(name []byte) bool {
	return len(name) > 3 && http1.EqualFold(name[:3], "if-") || http1.EqualFold(name, "range")
}

// denial returns the answer of the authentication server for the client.
func (x *chosenRoute) denial(answer *auth.Answer) *refusal.Refusal {
	fields, ok := x.passed(answer.Header)
	if !ok {
		return refusal.AuthUnavailable
	}
	r := refusal.New(answer.Status, refusal.AuthDenied.Reason, refusal.AuthDenied.Text)
	return r.Passing(fields, answer.Body)
}

// passed returns the fields of an answer that clients get. It is not ok if there are too many.
func (x *chosenRoute) passed(header http.Header) (fields [][2]string, ok bool) {
	for name, values := range header {
		if x.dropsOfAnswer(name) {
			continue
		}
		for _, value := range values {
			text := []byte(value)
			http1.Clean(text)
			fields = append(fields, [2]string{name, string(text)})
		}
	}
	return fields, len(fields) <= maxAuthFields
}

// dropsOfAnswer reports whether clients do not get a field of an answer.
func (x *chosenRoute) dropsOfAnswer(name string) bool {
	n := http1.NameOf([]byte(name))
	if x.actions.CORS != nil && hasAlike(route.CORSFields, []byte(name)) {
		return true
	}
	return n == http1.NameContentLength || n == http1.NameTrailer || n == http1.NameProxyAuthenticate ||
		x.request.reserved().Drop(n, []byte(name), reserved.ToClients)
}

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
