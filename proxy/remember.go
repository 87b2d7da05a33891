package proxy

import (
	"bytes"
	"net/url"
	"slices"
	"strings"
	"time"

	"sluice/proxy/http1"
	"sluice/proxy/recent"
	"sluice/route"
)

// Recent returns a sample of the requests since begin, at most of the last hour.
func (s *Server) Recent(begin time.Time) []recent.Request { return s.recent.Since(begin) }

// remember adds the request, which found matches (nil: none does), to the recent ones, if it is its
// turn. A question is no request.
func (x *exchange) remember(found *route.Route) {
	s := x.request.client.server
	turn := &s.recent.Unrouted
	if found != nil {
		turn = found.Turn()
	}
	if x.route.chances == nil && turn.Take(x.request.startTime.Unix(), recent.Every) {
		s.recent.Add(x.request.forLater(), found != nil && found.Bounded)
	}
}

// forLater returns what conditions of routes read of the request.
func (x *request) forLater() recent.Request {
	r := recent.Request{
		Time: x.startTime, Listener: x.Listener(), Client: x.client.remote, Certificate: x.Certificate(),
	}
	b, reads := x.bytes(), &x.routing.reads
	add := func(parts ...[]byte) {
		for _, part := range parts {
			r.Head = append(r.Head, part...)
		}
	}
	add(x.head.MethodName(b), []byte(" "), x.head.Path(b))
	mark := questionMark
	for pair := range bytes.SplitSeq(x.Query(), ampersand) {
		name, _, _ := bytes.Cut(pair, []byte("="))
		if decoded, err := url.QueryUnescape(string(name)); err == nil && slices.Contains(reads.Queries, decoded) {
			add(mark, pair)
			mark = ampersand
		}
	}
	add([]byte(" HTTP/1.1\r\nHost: "), x.head.Authority(b), []byte("\r\n"))
	for _, f := range x.head.Fields() {
		if x.isRemembered(f, b, reads) {
			add(f.FieldName(b), []byte(": "), f.Value(b), []byte("\r\n"))
		}
	}
	for _, name := range reads.Cookies {
		eachCookie(x, name, b, func(value []byte) bool {
			add([]byte("Cookie: "+name+"="), value, []byte("\r\n"))
			return true
		})
	}
	add([]byte("\r\n"))
	return r
}

// identifying are the fields that say who the client of a trusted proxy is, and preflight those
// that make a request one of CORS.
var (
	identifying = []string{"x-forwarded-for", "x-forwarded-proto", "x-real-ip"}
	preflight   = []string{"origin", "access-control-request-method"}
	credential  = []string{"authorization", "proxy-authorization", "cookie"}
)

// isRemembered reports whether a field counts for routes. Credentials are never kept.
func (x *request) isRemembered(f http1.Field, b []byte, reads *route.Reads) bool {
	name := strings.ToLower(string(f.FieldName(b)))
	return !slices.Contains(credential, name) && (slices.Contains(reads.Headers, name) ||
		x.identity.trusted && slices.Contains(identifying, name) ||
		x.head.Method == http1.MethodOptions && slices.Contains(preflight, name))
}
