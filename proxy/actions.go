package proxy

import (
	"bytes"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/route"
)

// act applies the actions of the route before the request, whose head is b, is sent.
// done: the request is answered, and ok reports whether the client got the answer.
func (x *httpExchange) act(b []byte) (done, ok bool) {
	a := x.actions
	if a.Access != nil && !a.Access.Allows(x.standing.client) {
		return true, x.refuse(refusal.ClientDenied)
	}
	if a.ClientCertificate && !x.standing.certified {
		return true, x.refuse(refusal.NoCertificate)
	}
	if a.RateLimit != nil {
		if wait := x.takeToken(b); wait > 0 {
			seconds := strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10)
			return true, x.refuse(refusal.RateLimited, [2]string{"Retry-After", seconds})
		}
	}
	if !a.Path.Empty() {
		if r := x.editPath(b); r != nil {
			return true, x.refuse(r)
		}
	}
	if a.Redirect != nil {
		location := x.redirection(b)
		if len(location) > socket.RequestBufferBytes {
			return true, x.refuse(refusal.Of(http1.ErrTargetTooLong))
		}
		if location != nil {
			return true, x.refuse(refusal.New(a.Redirect.Code(x.head.Method == http1.MethodGet), "redirect", "the route redirects to another URL"), [2]string{"Location", string(location)})
		}
		if x.service == nil {
			return true, x.refuse(refusal.RedirectLoop)
		}
	}
	if limit := a.BodyLimit; limit > 0 && max(x.head.ContentLength, int64(x.bodyLength)) > limit {
		return true, x.refuse(refusal.Of(http1.ErrBodyTooLong))
	}
	if a.BasicAuth != nil {
		if r := x.authenticate(b); r != nil {
			return true, x.refuse(r, [2]string{"WWW-Authenticate", `Basic realm="` + a.BasicAuth.Realm + `", charset="UTF-8"`})
		}
	}
	if a.ForwardAuth != nil {
		return x.authorize(b)
	}
	return false, false
}

// takeToken takes a token of the route's rate limit, or returns when there will be one.
func (x *httpExchange) takeToken(b []byte) (wait time.Duration) {
	limit := x.actions.RateLimit
	var memory [16]byte
	key := memory[:0]
	switch {
	case limit.PerRoute:
	case limit.Key.Source == route.HashClientAddress:
		key = appendClientNetwork(key, x.standing.client)
	default:
		key = x.hashKey(&limit.Key, b)
	}
	return limit.Take(key, x.startTime)
}

// appendClientNetwork appends what identifies a client: an IPv4 address, or the first half
// of an IPv6 address, since a client can have as many of the second as it likes. Unknown
// clients have one together.
func appendClientNetwork(out []byte, client netip.Addr) []byte {
	if client.Is4() {
		address := client.As4()
		return append(out, address[:]...)
	}
	address := client.As16()
	return append(out, address[:8]...)
}

// editPath sets target to the edited one. The target "*" has no path.
func (x *httpExchange) editPath(b []byte) *refusal.Refusal {
	path := x.head.Path(b)
	if len(path) == 1 && path[0] == '*' {
		return nil
	}
	query := x.head.OriginTarget(b)[len(path):]
	target, stripped, err := x.actions.Path.Append(x.target[:0], path, query)
	switch {
	case errors.Is(err, route.ErrDotSegment), errors.Is(err, route.ErrEncodedPrefix):
		return refusal.New(400, "unsafe_path", err.Error()+": the route edits paths, and its service could read this one differently")
	case len(target) > socket.RequestBufferBytes:
		return refusal.Of(http1.ErrTargetTooLong)
	}
	x.target, x.stripped = target, stripped
	return nil
}

// redirection returns the URL to which the request is redirected; nil: it is not, or it
// would be the URL of the request.
func (x *httpExchange) redirection(b []byte) []byte {
	location := x.actions.Redirect.Append(nil, x)
	if len(location) == 0 {
		return nil
	}
	clean(location)
	own := append([]byte(x.scheme()), "://"...)
	own = append(own, x.head.Authority(b)...)
	target := x.head.OriginTarget(b)
	if bytes.Equal(location, append(own, target...)) || bytes.Equal(location, target) {
		return nil
	}
	return location
}

// bodyLimit returns the most bytes that the request's body may have; 0: any number.
func (x *httpExchange) bodyLimit() int64 {
	limit := x.client.options.Limits.BodyBytes
	if x.actions != nil && x.actions.BodyLimit > 0 && (limit == 0 || x.actions.BodyLimit < limit) {
		return x.actions.BodyLimit
	}
	return limit
}
