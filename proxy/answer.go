package proxy

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/balancer"
	"sluice/proxy/http1"
)

// A refusal is a response that sluice generates.
type refusal struct {
	status int
	reason string // the X-Sluice-Reason field
	text   string // for the user
}

var (
	refusalTooManyConnections = &refusal{503, "too_many_connections", "sluice, or one client, has too many connections"}

	refusalNoDescriptors    = &refusal{503, "no_descriptors", "sluice has no file descriptor or local port left for a connection to the service's instance"}
	refusalMaxForwards      = &refusal{200, "max_forwards", "Max-Forwards is 0: the request ends here"}
	refusalLoop             = &refusal{400, "loop", fmt.Sprintf("the request has come through sluice %d times: a route leads back", maxHops)}
	refusalHTTPS            = &refusal{308, "https_redirect", "the same URL is served over HTTPS"}
	refusalClientDenied     = &refusal{403, "client_denied", "the route is not for this client's address"}
	refusalNoCertificate    = &refusal{403, "certificate_required", "the route is for clients with a certificate that the listener verifies"}
	refusalDotSegment       = &refusal{400, "unsafe_path", "the path has a segment \"..\", and the host has a route that not every client may use: its service could read this path as one of that route"}
	refusalUnauthorized     = &refusal{401, "unauthorized", "the route requires a user and a password"}
	refusalAuthBusy         = &refusal{503, "auth_busy", "too many passwords are being verified"}
	refusalAuthUnavailable  = &refusal{503, "auth_unavailable", "the authentication server of the route has not answered"}
	refusalRateLimited      = &refusal{429, "rate_limited", "the request exceeds the route's rate limit"}
	refusalRedirectLoop     = &refusal{508, "redirect_loop", "the route redirects this URL to itself"}
	refusalNoHost           = &refusal{400, "no_host", "the request names no host, so that there is no HTTPS URL for it"}
	refusalNoRoute          = &refusal{404, "no_route", "no route leads from this host and path to a service"}
	refusalNoPeers          = &refusal{503, "no_peers", "the service has no instances"}
	refusalNotKnown         = &refusal{503, "no_peers", "nothing is known about the service's instances yet: what lists them has not answered since sluice has started"}
	refusalNoEligible       = &refusal{503, "no_eligible_peer", "every instance of the service is unhealthy or draining"}
	refusalNoGroup          = &refusal{503, "group_empty", "the request's group has no healthy instance, and neither has its fallback"}
	refusalSaturated        = &refusal{503, "too_many_requests", "the service has reached its limit of requests in flight"}
	refusalPeersFull        = &refusal{503, "peers_saturated", "every instance of the service has reached its limit of requests in flight"}
	refusalConnectionsFull  = &refusal{503, "connections_saturated", "every instance of the service has reached its limit of connections, and no connection became free in time"}
	refusalPending          = &refusal{503, "too_many_pending", "no instance of the service can take the request now, and the service has reached its limit of waiting requests"}
	refusalConnect          = &refusal{502, "connect_failed", "no connection to the service's instance could be made"}
	refusalPeerTLS          = &refusal{502, "upstream_tls_failed", "no TLS connection to the service's instance could be made: the log has the reason"}
	refusalReset            = &refusal{502, "upstream_reset", "the service's instance closed the connection before it answered"}
	refusalBadResponse      = &refusal{502, "bad_response", "the service's instance sent a malformed response"}
	refusalLongResponse     = &refusal{502, "response_head_too_long", "the service's instance sent a response head over its limit"}
	refusalDeclined         = &refusal{502, "upgrade_declined", "the service's instance answered as if no WebSocket was asked for"}
	refusalNoWebSocket      = &refusal{501, "no_websocket", "the service's instances use HTTP/2, and sluice forwards WebSocket over HTTP/1.1 only"}
	refusalTimeout          = &refusal{504, "upstream_timeout", "the service's instance did not answer in time"}
	refusalGRPCTimeout      = &refusal{400, "bad_grpc_timeout", "grpc-timeout is no number of up to 8 digits with one of the units H, M, S, m, u and n"}
	refusalDeadline         = &refusal{504, "grpc_timeout", "the request's grpc-timeout has passed"}
	refusalBodyTimeout      = &refusal{408, "body_timeout", "the request's body did not arrive in time"}
	refusalTooManyAddresses = &refusal{400, "too_many_addresses", fmt.Sprintf("X-Forwarded-For has more than %d addresses", maxAddresses)}

	refusalInternal = &refusal{500, "internal_error", "sluice has failed by a fault of its own: its log has the reason"}

	refusalHeadTimeout = &refusal{408, "head_timeout", "the request's head did not arrive in time"}
)

func refusalOf(err *http1.Error) *refusal {
	return &refusal{err.Status, err.Reason, err.Error()}
}

// pickRefusal returns the refusal for an error of the first pick from a pool. inGroup: it was to
// pick from a group.
func pickRefusal(err error, pool *balancer.Pool, inGroup bool) *refusal {
	if err == balancer.ErrNoPeers && !pool.Known() {
		return refusalNotKnown
	}
	if inGroup && (err == balancer.ErrNoPeers || err == balancer.ErrNoEligible) {
		return refusalNoGroup
	}
	switch err {
	case balancer.ErrNoPeers:
		return refusalNoPeers
	case balancer.ErrSaturated:
		return refusalSaturated
	case balancer.ErrPeersSaturated:
		return refusalPeersFull
	case balancer.ErrConnectionsSaturated:
		return refusalConnectionsFull
	case balancer.ErrTooManyPending:
		return refusalPending
	}
	return refusalNoEligible
}

// appendAnswer appends the response for r and returns the length of its body. json
// selects the format; bodiless: the request is a HEAD request. fields are more header
// fields.
func appendAnswer(out []byte, r *refusal, keep, json, bodiless bool, fields ...[2]string) ([]byte, int) {
	var head fasthttp.ResponseHeader
	head.SetNoDefaultContentType(true)
	head.DisableNormalizing()
	head.SetStatusCode(r.status)
	head.Set("X-Sluice-Reason", r.reason)
	head.Set("Cache-Control", "no-store")
	head.Set("Date", string(fasthttp.AppendHTTPDate(nil, time.Now())))
	for _, f := range fields {
		head.Set(f[0], f[1])
	}
	if !keep {
		head.Set("Connection", "close")
	}
	if r.status == 503 {
		head.Set("Retry-After", "1")
	}
	var body []byte
	if json {
		head.SetContentType("application/json")
		body = append(body, `{"status":`...)
		body = strconv.AppendInt(body, int64(r.status), 10)
		body = append(body, `,"reason":`...)
		body = strconv.AppendQuote(body, r.reason)
		body = append(body, `,"message":`...)
		body = strconv.AppendQuote(body, r.text)
		body = append(body, "}\n"...)
	} else {
		head.SetContentType("text/plain; charset=utf-8")
		body = strconv.AppendInt(body, int64(r.status), 10)
		body = append(body, ' ')
		body = append(body, fasthttp.StatusMessage(r.status)...)
		body = append(body, ": "...)
		body = append(body, r.text...)
		body = append(body, '\n')
	}
	if r.reason == challengeReason {
		head.SetContentType("application/octet-stream")
		body = append(body[:0], r.text...)
	}
	head.SetContentLength(len(body))
	out = head.AppendBytes(out)
	if bodiless {
		return out, 0
	}
	return append(out, body...), len(body)
}

// wantsJSON reports whether an Accept field names JSON.
func wantsJSON(accept []byte) bool {
	return bytes.Contains(accept, []byte("application/json"))
}
