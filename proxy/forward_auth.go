package proxy

import (
	"fmt"
	"net/http"
	"slices"
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

// What an authentication server may decide, if the route lets it: see [route.ForwardAuth].
const (
	serviceField = "X-Sluice-Service"
	groupField   = "X-Sluice-Group"
	pathField    = "X-Sluice-Path"
)

// askAuthServer asks the authentication server of the route whether the request is allowed, and
// does what it decides.
func askAuthServer(x *exchange) *refusal.Refusal {
	f := x.route.actions.ForwardAuth
	if f == nil {
		return nil
	}
	body, r := x.bodyForQuestion(f.BodyBytes)
	if r != nil {
		return r
	}
	header := x.route.authHeader(x.request.bytes())
	if body != nil {
		header.Set("X-Sluice-Body", "whole")
		if !x.body.bodyRead() || len(x.body.bytes) > len(body) {
			header.Set("X-Sluice-Body", "partial")
		}
	}
	answer := f.Answers.Find(x.request.block(), header)
	if answer == nil {
		ctx, end := x.tries.waiting(f.Timeout())
		var err error
		answer, err = f.Ask(ctx, x.request.block(), header, body)
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
		f.Answers.Keep(x.request.block(), header, answer)
	}
	return x.applyAnswer(f, answer)
}

// bodyForQuestion returns the first bytes of the request's body, at most so many, for which it may
// wait; nil: none are wanted. What comes after an upgrade is no body.
func (x *exchange) bodyForQuestion(most int) ([]byte, *refusal.Refusal) {
	if most == 0 || x.request.upgrade {
		return nil, nil
	}
	if !x.body.bodyRead() && x.request.head.ExpectContinue && !x.body.upload.continued {
		if err := x.answer.askForBody(); err != nil {
			return nil, refusal.ClientGone
		}
		x.answer.begun = false // the answer may still be of any peer
	}
	if r := x.tries.readStart(most); r != nil {
		return nil, r
	}
	if x.body.bytes == nil {
		return []byte{}, nil
	}
	return x.body.bytes[:min(most, len(x.body.bytes))], nil
}

// applyAnswer does what an answer that allows the request decides.
func (x *exchange) applyAnswer(f *route.ForwardAuth, answer *auth.Answer) *refusal.Refusal {
	for _, name := range f.Copied {
		for _, value := range answer.Header.Values(name) {
			x.route.appendAuthorized(name, value)
		}
	}
	for _, name := range f.ToClients {
		if x.route.dropsOfAnswer(name) {
			continue
		}
		for _, value := range answer.Header.Values(name) {
			x.route.clientFields = appendLine(x.route.clientFields, name, value)
		}
	}
	if len(x.route.authorized)+len(x.route.clientFields) > maxEditedHead {
		return refusal.AuthUnavailable
	}
	if limit := x.route.actions.RateLimit; limit != nil && limit.Key.Source == route.HashAnswer {
		if r := x.route.charge(limit, []byte(answer.Header.Get(limit.Key.Name)), time.Now()); r != nil {
			return r
		}
	}
	if path := answer.Header.Get(pathField); f.DecidesPath && path != "" {
		if r := x.route.takePath(path); r != nil {
			return r
		}
	}
	if f.DecidesGroup {
		x.route.group = answer.Header.Get(groupField)
	}
	if !f.DecidesService {
		return nil
	}
	if name := answer.Header.Get(serviceField); name != "" {
		if r := x.route.takeTarget(name); r != nil {
			return r
		}
	}
	return x.route.maintenance()
}

// takeTarget takes the target of the route with that service. The request stays with it, whichever
// peers it has.
func (x *chosenRoute) takeTarget(service string) *refusal.Refusal {
	all := x.divided.Targets
	i := slices.IndexFunc(all, func(t route.Target) bool { return t.Route.Service.Name == service })
	if i < 0 {
		return refusal.AuthChoice
	}
	x.matched, x.targetChosen, x.newClient = all[i].Route, true, 0
	return x.take(x.matched)
}

// takePath makes peers get that path: see [route.ChosenTarget].
func (x *chosenRoute) takePath(path string) *refusal.Refusal {
	_, query := x.sentPath(x.request.bytes())
	target, err := route.ChosenTarget(path, query)
	if err != nil {
		return refusal.AuthChoice
	}
	x.target = target
	return nil
}

// scanAnswer fails for an answer that would be malformed as the response of a peer, so that
// its fields can be passed on to peers and clients.
func scanAnswer(answer *auth.Answer) error {
	text := fmt.Appendf(nil, "HTTP/1.1 %d \r\n", answer.Status)
	for name, values := range answer.Header {
		switch http1.NameOf([]byte(name)) {
		case http1.NameContentLength, http1.NameTransferEncoding: // of a body that is read
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

// withClientFields returns the fields of a response, which end with an empty line, with what the
// authentication server says to the client. Its cookies come beside those of the response, its
// other fields in their place.
func (x *chosenRoute) withClientFields(fields []byte) (all []byte) {
	for line := range http1.Lines(fields) {
		if !x.replacesForClient(http1.LineName(line)) {
			all = append(all, line...)
		}
	}
	return append(append(all, x.clientFields...), "\r\n"...)
}

// replacesForClient reports whether the client gets a field of the authentication server in place
// of one with that name.
func (x *chosenRoute) replacesForClient(name []byte) bool {
	for own := range http1.Lines(x.clientFields) {
		if http1.EqualFold(name, string(http1.LineName(own))) { // which is in lower case
			return !http1.EqualFold(name, "set-cookie")
		}
	}
	return false
}
