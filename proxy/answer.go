package proxy

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/balancer"
	"sluice/http1"
)

// A refusal is an answer that sluice itself gives.
type refusal struct {
	status int
	reason string // the X-Sluice-Reason field
	text   string // for a person
}

var (
	refusalTooManyConnections = &refusal{503, "too_many_connections", "sluice, or one client, has too many connections"}

	refusalNoDescriptors    = &refusal{503, "no_descriptors", "sluice has no descriptor or port left for a connection to the service's instance"}
	refusalMaxForwards      = &refusal{200, "max_forwards", "the request was not to be forwarded any further"}
	refusalLoop             = &refusal{400, "loop", fmt.Sprintf("the request has come through sluice %d times: a route leads back", maxHops)}
	refusalNoRoute          = &refusal{404, "no_route", "no route leads from this host and path to a service"}
	refusalNoPeers          = &refusal{503, "no_peers", "the service has no instances"}
	refusalNoEligible       = &refusal{503, "no_eligible_peer", "every instance of the service is unhealthy or draining"}
	refusalSaturated        = &refusal{503, "too_many_requests", "as many requests to the service are in flight as it is allowed"}
	refusalPeersFull        = &refusal{503, "peers_saturated", "as many requests are in flight to each of the service's instances as it is allowed"}
	refusalPending          = &refusal{503, "too_many_pending", "the service has no instance that may get requests, and as many wait for one as may"}
	refusalConnect          = &refusal{502, "connect_failed", "no connection to the service's instance could be made"}
	refusalReset            = &refusal{502, "upstream_reset", "the service's instance broke off the connection before it answered"}
	refusalBadResponse      = &refusal{502, "bad_response", "the service's instance sent a malformed response"}
	refusalTimeout          = &refusal{504, "upstream_timeout", "the service's instance did not answer in time"}
	refusalBodyTimeout      = &refusal{408, "body_timeout", "the request's body did not arrive in time"}
	refusalTooManyAddresses = &refusal{400, "too_many_addresses", fmt.Sprintf("X-Forwarded-For has more than %d addresses", maxAddresses)}

	refusalHeadTimeout = &refusal{408, "head_timeout", "the request's head did not arrive in time"}
)

func refusalOf(err *http1.Error) *refusal {
	return &refusal{err.Status, err.Reason, err.Error()}
}

// pickRefusal is the answer where no peer could be picked for a first try.
func pickRefusal(err error) *refusal {
	switch err {
	case balancer.ErrNoPeers:
		return refusalNoPeers
	case balancer.ErrSaturated:
		return refusalSaturated
	case balancer.ErrPeersSaturated:
		return refusalPeersFull
	case balancer.ErrTooManyPending:
		return refusalPending
	}
	return refusalNoEligible
}

// appendAnswer appends a whole response of sluice's own and returns how many
// bytes of it are body. json: the client asked for that. bodiless: it is the
// answer to a HEAD request.
func appendAnswer(out []byte, r *refusal, service string, keep, json, bodiless bool) ([]byte, int) {
	var head fasthttp.ResponseHeader
	head.SetNoDefaultContentType(true)
	head.DisableNormalizing()
	head.SetStatusCode(r.status)
	head.Set("X-Sluice-Reason", r.reason)
	head.Set("Cache-Control", "no-store")
	head.Set("Date", string(fasthttp.AppendHTTPDate(nil, time.Now())))
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
		if service != "" {
			body = append(body, `,"service":`...)
			body = strconv.AppendQuote(body, service)
		}
		body = append(body, `,"message":`...)
		body = strconv.AppendQuote(body, r.text)
		body = append(body, "}\n"...)
	} else {
		head.SetContentType("text/plain; charset=utf-8")
		body = strconv.AppendInt(body, int64(r.status), 10)
		body = append(body, ' ')
		body = append(body, fasthttp.StatusMessage(r.status)...)
		body = append(body, ": "...)
		if service != "" {
			body = append(body, "service "...)
			body = strconv.AppendQuote(body, service)
			body = append(body, ": "...)
		}
		body = append(body, r.text...)
		body = append(body, '\n')
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
