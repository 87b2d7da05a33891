package proxy

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/observe/metrics"
	"sluice/observe/tracing"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/route/auth"
)

// maxAuthFields is the maximum number of fields in an answer of an authentication server.
const maxAuthFields = 80

// authorize asks the authentication server of the route whether the request, whose head is
// b, is allowed. If not, done is true: the request is answered, and ok reports whether the
// client got the answer.
func (x *httpExchange) authorize(b []byte) (done, ok bool) {
	f := x.actions.ForwardAuth
	x.GiveBack()
	ctx, end := x.Waiting(f.Timeout())
	answer, err := f.Ask(ctx, x.client.block(), x.authHeader(b))
	end()
	if err == nil {
		err = x.checkAnswer(answer)
	}
	switch {
	case x.client.gone.Load():
		x.status, x.interrupted = metrics.StatusClientClosedRequest, "client_gone"
		x.account()
		return true, false
	case err != nil:
		return true, x.refuse(refusal.AuthUnavailable)
	case !answer.Allows():
		return true, x.passDenial(answer)
	}
	x.authorized = x.authorized[:0]
	for _, name := range f.Copied.Dropped {
		for _, value := range answer.Header.Values(name) {
			x.authorized = append(append(x.authorized, name...), ": "...)
			start := len(x.authorized)
			x.authorized = append(x.authorized, value...)
			clean(x.authorized[start:])
			x.authorized = append(x.authorized, "\r\n"...)
		}
	}
	if len(x.authorized) > maxEditedHead {
		return true, x.refuse(refusal.AuthUnavailable)
	}
	return false, false
}

// checkAnswer fails for an answer that would be malformed as the response of a peer, so that
// its fields can be passed on to peers and clients.
func (x *httpExchange) checkAnswer(answer *auth.Answer) error {
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
	x.response.Reset(maxAuthFields)
	n, err := x.response.Scan(text)
	switch {
	case err != nil:
		return err
	case n != len(text):
		return http1.ErrResponse
	}
	return nil
}

// authHeader returns the fields of the question: those of the request that would be
// forwarded, without those about its body, and what the request is for.
func (x *httpExchange) authHeader(b []byte) http.Header {
	header := make(http.Header)
	var seen forwardedFields
	fields := x.head.Fields()
	for i := range fields {
		f := &fields[i]
		switch f.Name {
		case http1.NameHost, http1.NameContentLength, http1.NameExpect, http1.NameTrailer, http1.NameMaxForwards, http1.NameGRPCTimeout:
			continue
		}
		if f.Nominated || f.Name != http1.NameOther && x.dropsRequestField(f, &seen) {
			continue
		}
		header.Add(string(f.FieldName(b)), string(f.Value(b)))
	}
	if !x.head.Has(http1.NameUserAgent) {
		header["User-Agent"] = nil // else net/http adds one
	}
	header.Set("X-Forwarded-Method", string(x.head.MethodName(b)))
	header.Set("X-Forwarded-Uri", string(x.head.OriginTarget(b)))
	header.Set("X-Forwarded-Host", string(x.head.Authority(b)))
	header.Set("X-Forwarded-Proto", x.scheme())
	client := string(x.clientAddress())
	header.Set("X-Forwarded-For", client)
	header.Set("X-Real-Ip", client)
	if len(x.requestID) > 0 {
		header.Set("X-Request-Id", string(x.requestID))
	}
	if s := &x.span; !s.ID.IsZero() {
		header.Set("Traceparent", string(tracing.AppendTraceparent(nil, s.Trace, s.ID, s.Sampled)))
	}
	header.Add("Via", "1.1 sluice") // a loop must end
	return header
}

// passDenial answers the request with the answer of the authentication server, and reports
// whether the client got it.
func (x *httpExchange) passDenial(answer *auth.Answer) bool {
	r := refusal.New(answer.Status, "auth_denied", "the authentication server of the route does not allow the request")
	if x.standing.grpc {
		return x.refuse(r)
	}
	c := x.client
	keep := c.downstream.keepsOpen()
	var head fasthttp.ResponseHeader
	head.DisableNormalizing()
	head.SetNoDefaultContentType(true)
	head.SetStatusCode(answer.Status)
	count := 0
	for name, values := range answer.Header {
		if x.dropsOfDenial(name) {
			continue
		}
		for _, value := range values {
			if count++; count > maxAuthFields {
				return x.refuse(refusal.AuthUnavailable)
			}
			text := []byte(value)
			clean(text)
			head.Add(name, string(text))
		}
	}
	head.Set("X-Sluice-Reason", r.Reason)
	if len(x.requestID) > 0 {
		head.Set("X-Request-Id", string(x.requestID))
	}
	if !keep {
		head.Set("Connection", "close")
	}
	head.SetContentLength(len(answer.Body))
	x.status, x.refused = r.Status, r.Reason
	x.Borrow()
	x.Out = head.AppendBytes(x.Out[:0])
	if x.head.Method != http1.MethodHead {
		x.Out = append(x.Out, answer.Body...)
		x.bytesOut = int64(len(answer.Body))
	}
	err := c.downstream.writeAnswer(x.Out)
	if err != nil || !keep {
		c.downstream.closeAfterAnswer()
	}
	x.account()
	return err == nil
}

// dropsOfDenial reports whether clients do not get a field of an answer.
func (x *httpExchange) dropsOfDenial(name string) bool {
	n := http1.NameOf([]byte(name))
	return n == http1.NameContentLength || n == http1.NameTrailer || n == http1.NameProxyAuthenticate ||
		x.reserves(n, []byte(name), toClients)
}

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
