// Package refusal has the answers that sluice gives by itself, in place of a peer: why, and how
// they are written for clients of HTTP and of gRPC.
package refusal

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/metrics"
	"sluice/proxy/http1"
)

// What requests may have gone through.
const (
	// MaxHops is how many times a request may pass sluice before it counts as a loop.
	MaxHops = 5
	// MaxAddresses limits X-Forwarded-For, which is never truncated: the last
	// addresses are the trusted ones.
	MaxAddresses = 100
)

// A Refusal is a response that sluice generates.
type Refusal struct {
	Status int
	Reason string // the X-Sluice-Reason field
	Text   string // for the user

	fields      [][2]string // of this answer
	body        []byte
	contentType string // of body; "": there is none
	shows       bool   // body is in place of Text
	others      bool   // likewise, and fields and body are another server's, with nothing of sluice's own
	sent        func() // see WhenSent; nil: nothing
}

// New returns a refusal of a status, with a reason of docs/reasons.md.
func New(status int, reason, text string) *Refusal {
	return &Refusal{Status: status, Reason: reason, Text: text}
}

// With returns r with one more header field.
func (r *Refusal) With(name, value string) *Refusal {
	with := *r
	with.fields = append(slices.Clip(r.fields), [2]string{name, value})
	return &with
}

// RetryAfter returns r with that field, in whole seconds.
func (r *Refusal) RetryAfter(wait time.Duration) *Refusal {
	return r.With("Retry-After", strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10))
}

// Field returns the value of a header field that With has added; "": there is none.
func (r *Refusal) Field(name string) string {
	for _, f := range r.fields {
		if f[0] == name {
			return f[1]
		}
	}
	return ""
}

// Passing returns r with the header fields and the body of another server, which must not change,
// in place of sluice's.
func (r *Refusal) Passing(fields [][2]string, body []byte) *Refusal {
	passing := *r
	passing.fields, passing.body, passing.others = fields, body, true
	return &passing
}

// WhenSent returns r with what is called when it was sent, or could not be.
func (r *Refusal) WhenSent(f func()) *Refusal {
	with := *r
	with.sent = f
	return &with
}

// Sent calls what WhenSent has set.
func (r *Refusal) Sent() {
	if r.sent != nil {
		r.sent()
	}
}

// Showing returns r with a body, which must not change, in place of sluice's words. Without a type
// it is empty.
func (r *Refusal) Showing(contentType string, body []byte) *Refusal {
	if r.others || r.shows {
		return r
	}
	showing := *r
	showing.contentType, showing.body, showing.shows = contentType, body, true
	return &showing
}

var (
	// ClientGone is not written, because nobody is there to read it.
	ClientGone = New(metrics.StatusClientClosedRequest, "client_gone", "the client has closed its connection")

	// Cut is also the reason of an answer that sluice does not end.
	Cut = New(503, "drain_timeout", "sluice stops, or its listener was removed, and the request takes longer than it waits for that")

	TooManyConnections = New(503, "too_many_connections", "sluice, or one client, has too many connections")

	NoDescriptors    = New(503, "no_descriptors", "sluice has no file descriptor or local port left for a connection to the service's instance")
	MaxForwards      = New(200, "max_forwards", "Max-Forwards is 0: the request ends here")
	Loop             = New(400, "loop", fmt.Sprintf("the request has come through sluice %d times: a route leads back", MaxHops))
	HTTPS            = New(308, "https_redirect", "the same URL is served over HTTPS")
	ClientDenied     = New(403, "client_denied", "the route is not for this client's address")
	TagDenied        = New(403, "tag_denied", "a tag restricts who may use the route in a way that sluice does not have or the operator does not allow")
	NoCertificate    = New(403, "certificate_required", "the route is for clients with a certificate that the listener verifies")
	OtherCertificate = New(403, "certificate_denied", "the route is not for clients with this certificate")
	Revoked          = New(403, "certificate_revoked", "the client's certificate was revoked after the client has connected")
	UnsafePath       = New(400, "unsafe_path", "the host has a route that not every client may use, and a service could read this path as one of that route")
	RegexpBudget     = New(403, "regexp_budget", "the regular expressions in tags or documents that decide about this request would take too long for it")
	Preflight        = New(204, "cors_preflight", "the route allows pages of this origin")
	OriginDenied     = New(403, "origin_denied", "the route is not for pages of this origin")
	Unauthorized     = New(401, "unauthorized", "the route requires a user and a password")
	TokenMissing     = New(401, "token_missing", "the route requires a token").With("WWW-Authenticate", `Bearer realm="restricted"`)
	KeysUnavailable  = New(503, "keys_unavailable", "the keys of the tokens' issuer could not be read")
	AuthBusy         = New(503, "auth_busy", "too many passwords are being verified")
	AuthUnavailable  = New(503, "auth_unavailable", "the authentication server of the route has not answered")
	AuthChoice       = New(503, "auth_unavailable", "the authentication server of the route has chosen a service, a group or a path that the route cannot have")
	Handled          = New(0, "admin_api", "the admin API answers")
	HandlerBusy      = New(503, "admin_busy", "too many requests for the admin API are being answered")
	AuthDenied       = New(0, "auth_denied", "the authentication server of the route does not allow the request")
	RateLimited      = New(429, "rate_limited", "the request exceeds the route's rate limit")
	RedirectLoop     = New(508, "redirect_loop", "the route redirects this URL to itself")
	NoHost           = New(400, "no_host", "the request names no host, so that there is no HTTPS URL for it")
	NoRoute          = New(404, "no_route", "no route leads from this host and path to a service")
	NotReady         = New(503, "not_ready", "no route leads from this host and path to a service yet: sluice has just started, and does not know all routes")
	NoPeers          = New(503, "no_peers", "the service has no instances")
	NotKnown         = New(503, "no_peers", "nothing is known about the service's instances yet: what lists them has not answered since sluice has started")
	NoLeader         = New(503, "no_leader", "Consul names no leader of the service, or several instances claim to be the one")
	NoEligible       = New(503, "no_eligible_peer", "every instance of the service is unhealthy or draining")
	NoGroup          = New(503, "group_empty", "the request's group has no healthy instance, and neither has its fallback")
	Saturated        = New(503, "too_many_requests", "the service has reached its limit of requests in flight")
	PeersFull        = New(503, "peers_saturated", "every instance of the service has reached its limit of requests in flight")
	ConnectionsFull  = New(503, "connections_saturated", "every instance of the service has reached its limit of connections, and no connection became free in time")
	Pending          = New(503, "too_many_pending", "no instance of the service can take the request now, and the service has reached its limit of waiting requests")
	Overload         = New(503, "overload", "the service is overloaded, and refuses what exceeds its capacity")
	NotInMesh        = New(503, "no_mesh_certificate", "sluice has no valid certificate of Consul's service mesh, through which the service is reached: /readyz and the log have the reason")
	Connect          = New(502, "connect_failed", "no connection to the service's instance could be made")
	PeerTLS          = New(502, "upstream_tls_failed", "no TLS connection to the service's instance could be made: the log has the reason")
	Reset            = New(502, "upstream_reset", "the service's instance closed the connection before it answered")
	BadResponse      = New(502, "bad_response", "the service's instance sent a malformed response")
	LongResponse     = New(502, "response_head_too_long", "the service's instance sent a response head over its limit")
	Declined         = New(502, "upgrade_declined", "the service's instance answered as if no WebSocket was asked for")
	NoWebSocket      = New(501, "no_websocket", "the service's instances use HTTP/2, and sluice forwards WebSocket over HTTP/1.1 only")
	Timeout          = New(504, "upstream_timeout", "the service's instance did not answer in time")
	GRPCTimeout      = New(400, "bad_grpc_timeout", "grpc-timeout is no number of up to 8 digits with one of the units H, M, S, m, u and n")
	Intention        = New(403, "intention", "Consul's intentions do not let sluice connect to the service")
	Deadline         = New(504, "grpc_timeout", "the request's grpc-timeout has passed")
	BodyTimeout      = New(408, "body_timeout", "the request's body did not arrive in time")
	TooManyAddresses = New(400, "too_many_addresses", fmt.Sprintf("X-Forwarded-For has more than %d addresses", MaxAddresses))

	// Of connections that are forwarded without knowledge of their protocol.
	Demoted      = New(503, "demoted", "the service's instance is no longer the leader")
	ClientTLS    = New(400, "tls_handshake_failed", "there was no TLS handshake with the client")
	NoServerName = New(404, "no_server_name", "no service has the server name of the client")
	NoTLS        = New(400, "no_client_hello", "the client does not begin with a ClientHello of TLS")
	HelloTimeout = New(408, "client_hello_timeout", "the ClientHello did not arrive in time")

	Internal = New(500, "internal_error", "sluice has failed by a fault of its own: its log has the reason")

	HeadTimeout = New(408, "head_timeout", "the request's head did not arrive in time")
)

// OfDenial returns Intention with the names of the two services, and what an operator can do.
func OfDenial(d *discovery.Denial) *Refusal {
	r := *Intention
	r.Text = fmt.Sprintf("Consul's intentions deny connections from %s to %s: consul intention create -allow -replace %[1]s %[2]s", d.Source, d.Destination)
	return &r
}

// Of returns the refusal of a message that http1 has rejected.
func Of(err *http1.Error) *Refusal {
	return New(err.Status, err.Reason, err.Error())
}

// maintenancePause is the Retry-After of a maintenance without an end.
const maintenancePause = time.Minute

// OfMaintenance returns the refusal of a client whose service is in maintenance; nil: it is not, or
// not for this client.
func OfMaintenance(m *balancer.Maintenance, client netip.Addr) *Refusal {
	if m == nil || m.Excepts(client) {
		return nil
	}
	pause := maintenancePause
	r := New(503, "maintenance", "the service is in maintenance")
	if m.Why != "" {
		r.Text += ": " + m.Why
	}
	if !m.Until.IsZero() {
		pause = max(time.Until(m.Until), time.Second)
	}
	return r.RetryAfter(pause)
}

// OfPick returns the refusal for an error of the first pick from a pool. inGroup: it was to
// pick from a group.
func OfPick(err error, pool *balancer.Pool, inGroup bool) *Refusal {
	if err == balancer.ErrNoPeers && !pool.Known() {
		return NotKnown
	}
	if inGroup && (err == balancer.ErrNoPeers || err == balancer.ErrNoEligible) {
		return NoGroup
	}
	switch err {
	case balancer.ErrNoPeers:
		if pool.Snapshot().OneLeader() {
			return NoLeader
		}
		return NoPeers
	case balancer.ErrSaturated:
		return Saturated
	case balancer.ErrPeersSaturated:
		return PeersFull
	case balancer.ErrConnectionsSaturated:
		return ConnectionsFull
	case balancer.ErrTooManyPending:
		return Pending
	case balancer.ErrOverload:
		return Overload
	}
	return NoEligible
}

// OfConnect returns the refusal of a client for whom no connection could be made to a peer of a
// pool, which may have lost its last one meanwhile.
func OfConnect(pool *balancer.Pool) *Refusal {
	switch s := pool.Snapshot(); {
	case len(s.Eligible) > 0:
		return Connect
	case len(s.All) == 0: // it has left
		return OfPick(balancer.ErrNoPeers, pool, false)
	}
	return NoEligible // this failure has ejected it
}

// Append appends the head of the response for r, and returns the body that follows it. json selects
// the format; bodiless: the request is a HEAD request. fields are more header fields.
func Append(out []byte, r *Refusal, keep, json, bodiless bool, fields ...[2]string) (head, body []byte) {
	var h fasthttp.ResponseHeader
	h.SetNoDefaultContentType(true)
	h.DisableNormalizing()
	h.SetStatusCode(r.Status)
	h.Set("X-Sluice-Reason", r.Reason)
	for _, f := range r.fields {
		h.Add(f[0], f[1])
	}
	for _, f := range fields {
		h.Set(f[0], f[1])
	}
	if !keep {
		h.Set("Connection", "close")
	}
	body = r.body
	if !r.others {
		r.addFields(&h)
		if !r.shows {
			body = r.appendText(&h, json)
		} else if r.contentType != "" {
			h.SetContentType(r.contentType)
		}
	}
	h.SetContentLength(len(body))
	if out = h.AppendBytes(out); bodiless || r.Status == 204 || r.Status == 304 {
		return out, nil
	}
	return out, body
}

// addFields adds the fields of all answers of sluice's own, which r may have others of.
func (r *Refusal) addFields(h *fasthttp.ResponseHeader) {
	usual := [][2]string{{"Cache-Control", "no-store"}}
	if r.Status == 503 {
		usual = append(usual, [2]string{"Retry-After", "1"})
	}
	for _, f := range usual {
		if !slices.ContainsFunc(r.fields, func(own [2]string) bool { return strings.EqualFold(own[0], f[0]) }) {
			h.Set(f[0], f[1])
		}
	}
}

// appendText returns the body in sluice's own words, and sets its type.
func (r *Refusal) appendText(h *fasthttp.ResponseHeader, json bool) (body []byte) {
	switch {
	case r.Reason == ChallengeReason:
		h.SetContentType("application/octet-stream")
		body = append(body, r.Text...)
	case json:
		h.SetContentType("application/json")
		body = append(body, `{"status":`...)
		body = strconv.AppendInt(body, int64(r.Status), 10)
		body = append(body, `,"reason":`...)
		body = strconv.AppendQuote(body, r.Reason)
		body = append(body, `,"message":`...)
		body = strconv.AppendQuote(body, r.Text)
		body = append(body, "}\n"...)
	default:
		h.SetContentType("text/plain; charset=utf-8")
		body = strconv.AppendInt(body, int64(r.Status), 10)
		body = append(body, ' ')
		body = append(body, fasthttp.StatusMessage(r.Status)...)
		body = append(body, ": "...)
		body = append(body, r.Text...)
		body = append(body, '\n')
	}
	return body
}

// ChallengeReason is the reason of the response to an ACME challenge, whose text is the
// whole body.
const ChallengeReason = "acme_challenge"

// WantsJSON reports whether an Accept field names JSON.
func WantsJSON(accept []byte) bool {
	return bytes.Contains(accept, []byte("application/json"))
}
