package proxy

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/route"
)

const challengePrefix = "/.well-known/acme-challenge/"

// answerChallenge answers a present ACME challenge for a certificate of the listener (RFC 8555,
// section 8.3).
func answerChallenge(x *exchange) *refusal.Refusal {
	if !isChallenge(x) {
		return nil
	}
	b := x.request.bytes()
	body, ok := x.request.client.listener.Challenge(string(x.request.head.Authority(b)), string(x.request.head.Path(b)))
	if !ok {
		return nil
	}
	return refusal.New(200, refusal.ChallengeReason, string(body))
}

// isChallenge reports whether a request may be a challenge of ACME to the listener.
func isChallenge(x *exchange) bool {
	return x.request.client.listener.Challenge != nil && x.request.head.Method == http1.MethodGet && !x.request.upgrade &&
		bytes.HasPrefix(x.request.head.Path(x.request.bytes()), []byte(challengePrefix))
}

// requireHTTPS redirects to the same URL on the HTTPS port of the listener, if it has one. The
// client must not change the method.
func requireHTTPS(x *exchange) *refusal.Refusal {
	b, port := x.request.bytes(), x.request.client.listener.HTTPSPort
	if port == 0 || x.request.identity.secure {
		return nil
	}
	host := withoutPort(x.request.head.Authority(b))
	if len(host) == 0 {
		return refusal.NoHost
	}
	location := append([]byte("https://"), host...)
	if port != 443 {
		location = append(location, ':')
		location = strconv.AppendInt(location, int64(port), 10)
	}
	location = append(location, urlTarget(&x.request, b)...)
	if len(location) > socket.RequestBufferBytes {
		return refusal.Of(http1.ErrTargetTooLong)
	}
	return refusal.HTTPS.With("Location", string(location))
}

// withoutPort returns the host of an authority.
func withoutPort(authority []byte) []byte {
	if i := bytes.LastIndexByte(authority, ':'); i > bytes.LastIndexByte(authority, ']') {
		return authority[:i]
	}
	return authority
}

// endLoops ends requests that have come through sluice too often, or are for sluice.
func endLoops(x *exchange) *refusal.Refusal {
	switch b := x.request.bytes(); {
	case x.request.head.Method == http1.MethodOptions && maxForwards(&x.request) == 0:
		return refusal.MaxForwards
	case x.request.head.Has(http1.NameVia) && hops(&x.request, b) >= refusal.MaxHops:
		return refusal.Loop
	case x.request.identity.trusted && x.request.head.Has(http1.NameXForwardedFor) && addresses(&x.request, b) > refusal.MaxAddresses:
		return refusal.TooManyAddresses
	}
	return nil
}

// limitRate refuses requests over the rate limit of the route. Of a limit by a claim requireToken
// does, and applyAnswer of one by a field of the authentication server's answer.
func limitRate(x *exchange) *refusal.Refusal {
	limit := x.route.actions.RateLimit
	if limit == nil || limit.Claim != nil || limit.Key.Source == route.HashAnswer {
		return nil
	}
	var memory [16]byte
	key := memory[:0]
	switch {
	case limit.PerRoute:
	case limit.Key.Source == route.HashClientAddress:
		key = appendClientNetwork(key, x.request.identity.client)
	default:
		key = hashKey(&x.request, &limit.Key, x.request.bytes())
	}
	return x.route.charge(limit, key, x.request.startTime)
}

// charge makes a rate limit count the request, once for all targets that share the limiter.
func (x *chosenRoute) charge(limit *route.RateLimit, key []byte, now time.Time) *refusal.Refusal {
	if slices.Contains(x.charged, limit.Limiter) {
		return nil
	}
	x.charged = append(x.charged, limit.Limiter)
	wait := limit.Take(key, now)
	if wait <= 0 {
		return nil
	}
	return refusal.RateLimited.RetryAfter(wait)
}

// appendClientNetwork appends what identifies a client: an IPv4 address, or the first half
// of an IPv6 address, since a client can have as many of the second as it likes. Unknown
// clients have nothing together, which is not the network of ::1.
func appendClientNetwork(out []byte, client netip.Addr) []byte {
	switch {
	case !client.IsValid():
		return out
	case client.Is4():
		address := client.As4()
		return append(out, address[:]...)
	}
	address := client.As16()
	return append(out, address[:8]...)
}

// editPath edits the target that peers get, and reports whether its path has lost a prefix. The
// target "*" has no path.
func (x *chosenRoute) editPath(edits *route.PathEdits, b []byte) (stripped bool, r *refusal.Refusal) {
	path, query := x.sentPath(b)
	if len(path) == 1 && path[0] == '*' {
		return false, nil
	}
	kept := len(x.target) // path and query may be in it
	target, stripped, err := edits.Append(x.target, path, query, &x.request.steps)
	switch {
	case errors.Is(err, route.ErrSteps):
		return false, refusal.RegexpBudget
	case errors.Is(err, route.ErrDotSegment), errors.Is(err, route.ErrEncodedPrefix):
		return false, refusal.New(400, "unsafe_path", err.Error()+": the route edits paths, and its service could read this one differently")
	case len(target)-kept > socket.RequestBufferBytes:
		return false, refusal.Of(http1.ErrTargetTooLong)
	}
	x.target = append(target[:0], target[kept:]...)
	return stripped, nil
}

// redirect returns the redirect of the route; nil: it has none for the request, because it would
// be to the URL of the request.
func (x *chosenRoute) redirect(b []byte) *refusal.Refusal {
	location := x.actions.Redirect.Append(nil, x, &x.request.steps)
	if len(location) == 0 {
		return nil
	}
	http1.Clean(location)
	own := append([]byte(x.request.Scheme()), "://"...)
	own = append(own, x.request.head.Authority(b)...)
	target := urlTarget(x.request, b)
	if bytes.Equal(location, append(own, target...)) || bytes.Equal(location, target) {
		return nil
	}
	if len(location) > socket.RequestBufferBytes {
		return refusal.Of(http1.ErrTargetTooLong)
	}
	status := x.actions.Redirect.Code(x.request.head.Method == http1.MethodGet)
	return refusal.New(status, "redirect", "the route redirects to another URL").With("Location", string(location))
}

// bodyLimit returns the most bytes that the request's body may have; 0: any number.
func (x *chosenRoute) bodyLimit() int64 {
	limit := int64(x.request.client.options.Limits.BodyBytes)
	if x.actions.BodyLimit > 0 && (limit == 0 || x.actions.BodyLimit < limit) {
		return x.actions.BodyLimit
	}
	return limit
}
