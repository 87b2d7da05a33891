package proxy

import (
	"bytes"
	"cmp"
	"context"
	"net/http"
	"net/url"

	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/route"
)

// answerByHandler answers the requests of a route with a handler of this process.
func answerByHandler(x *exchange) *refusal.Refusal {
	h := x.route.actions.Handler
	if h == nil {
		return nil
	}
	if x.request.wouldOpen(http.StatusOK) {
		return declinedHere
	}
	question, err := x.route.question()
	if err != nil {
		return refusal.Of(http1.ErrTarget)
	}
	client := x.request.block()
	if h.Places.Take(client, func() (context.Context, context.CancelFunc) { return x.tries.waiting(route.HandlerWait) }) != nil {
		return x.tries.endOfWait(refusal.HandlerBusy)
	}
	leave := func() { h.Places.Give(client) }
	ctx, end := x.tries.waiting(route.HandlerTime)
	var answer handlerAnswer
	h.ServeHTTP(&answer, question.WithContext(ctx))
	end()
	if x.request.client.Gone.Load() {
		leave()
		return x.tries.endOfWait(refusal.ClientGone)
	}
	fields, ok := x.route.passed(answer.header)
	if !ok {
		leave()
		return refusal.Internal
	}
	r := refusal.New(cmp.Or(answer.status, http.StatusOK), refusal.Handled.Reason, refusal.Handled.Text)
	return r.Passing(fields, answer.body.Bytes()).WhenSent(leave)
}

// question returns the request for a handler: the target and the fields that a peer would get, and
// no body.
func (x *chosenRoute) question() (*http.Request, error) {
	b := x.request.bytes()
	target, err := url.ParseRequestURI(string(x.sentTarget(b)))
	if err != nil {
		return nil, err
	}
	return &http.Request{
		Method: string(x.request.head.MethodName(b)), URL: target, Host: string(x.request.head.Authority(b)),
		Header: x.authHeader(b), Body: http.NoBody, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		RemoteAddr: x.request.identity.client.String(),
	}, nil
}

// A handlerAnswer keeps the answer of a handler. It implements [http.ResponseWriter].
type handlerAnswer struct {
	status int // 0: nothing was written
	header http.Header
	body   bytes.Buffer
}

// Header implements [http.ResponseWriter].
func (a *handlerAnswer) Header() http.Header {
	if a.header == nil {
		a.header = make(http.Header)
	}
	return a.header
}

// WriteHeader implements [http.ResponseWriter].
func (a *handlerAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements [http.ResponseWriter].
func (a *handlerAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}
