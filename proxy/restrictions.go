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

const challengePrefix = "/.well-known/acme-challenge/"

// challenge returns the response to a present ACME challenge (RFC 8555, section 8.3);
// nil: the request, with the head b, is none.
func (x *httpExchange) challenge(b []byte) *refusal.Refusal {
	answer := x.client.listener.challenge
	if answer == nil || x.head.Method != http1.MethodGet || x.upgrade || !bytes.HasPrefix(x.head.Path(b), []byte(challengePrefix)) {
		return nil
	}
	body, ok := answer(string(x.head.Authority(b)), string(x.head.Path(b)))
	if !ok {
		return nil
	}
	return refusal.New(200, refusal.ChallengeReason, string(body))
}

// redirectToHTTPS answers the request with the same URL on the HTTPS port of the
// listener, and reports whether the client got the answer. The client must not change
// the method.
func (x *httpExchange) redirectToHTTPS() bool {
	b := x.in[x.start:x.end]
	host := withoutPort(x.head.Authority(b))
	if len(host) == 0 {
		return x.refuse(refusal.NoHost)
	}
	location := append([]byte("https://"), host...)
	if port := x.client.listener.httpsPort; port != 443 {
		location = append(location, ':')
		location = strconv.AppendInt(location, int64(port), 10)
	}
	target := x.head.OriginTarget(b)
	if len(target) == 0 || target[0] != '/' { // empty, a query only, or *
		location = append(location, '/')
	}
	if !bytes.Equal(target, []byte("*")) {
		location = append(location, target...)
	}
	if len(location) > socket.RequestBufferBytes {
		return x.refuse(refusal.Of(http1.ErrTargetTooLong))
	}
	return x.refuse(refusal.HTTPS, [2]string{"Location", string(location)})
}

// withoutPort returns the host of an authority.
func withoutPort(authority []byte) []byte {
	if i := bytes.LastIndexByte(authority, ':'); i > bytes.LastIndexByte(authority, ']') {
		return authority[:i]
	}
	return authority
}

// notForwarded returns the refusal of a request that must not be forwarded, or nil.
// b is the head.
func (x *httpExchange) notForwarded(b []byte) *refusal.Refusal {
	switch {
	case x.head.Method == http1.MethodOptions && x.maxForwards() == 0:
		return refusal.MaxForwards
	case x.head.Has(http1.NameVia) && x.hops(b) >= refusal.MaxHops:
		return refusal.Loop
	case x.standing.trusted && x.head.Has(http1.NameXForwardedFor) && x.addresses(b) > refusal.MaxAddresses:
		return refusal.TooManyAddresses
	}
	return nil
}

// hops returns how many times the request has passed any sluice.
func (x *httpExchange) hops(b []byte) int {
	n := 0
	for element := range x.head.Elements(b, http1.NameVia) {
		// RFC 9110, section 7.6.3: protocol, pseudonym, optional comment.
		_, by, _ := bytes.Cut(element, space)
		by, _, _ = bytes.Cut(by, space)
		if http1.EqualFold(by, "sluice") {
			n++
		}
	}
	return n
}

var space = []byte(" ")

// addresses returns the number of addresses in X-Forwarded-For.
func (x *httpExchange) addresses(b []byte) int {
	n := 0
	for range x.head.Elements(b, http1.NameXForwardedFor) {
		n++
	}
	return n
}

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
