package proxy

import (
	"bytes"
	"net/netip"

	"sluice/proxy/http1"
)

// routedRequest is the request of an exchange as the conditions of routes see it. It
// implements [route.Request].
type routedRequest httpExchange

func (r *routedRequest) bytes() []byte { return r.in[r.start:r.end] }

func (r *routedRequest) Method() []byte { return r.head.MethodName(r.bytes()) }

// Field does not return fields that are not forwarded because the client is not trusted to
// send them, or because a peer may take them for another one.
func (r *routedRequest) Field(name string, from int) (value []byte, next int) {
	b, fields := r.bytes(), r.head.Fields()
	for i := from; i < len(fields); i++ {
		f := &fields[i]
		if http1.EqualFold(f.FieldName(b), name) && !r.ignores(f) {
			return f.Value(b), i + 1
		}
	}
	return nil, -1
}

func (r *routedRequest) ignores(f *http1.Field) bool {
	switch reservations[f.Name] {
	case ofProxies, ofSluice, likeAnother:
		return (*httpExchange)(r).reserves(f.Name, f.FieldName(r.bytes()), toPeers)
	}
	return false
}

func (r *routedRequest) Query() []byte {
	_, query, _ := bytes.Cut(r.head.OriginTarget(r.bytes()), questionMark)
	return query
}

var questionMark = []byte("?")

// Scheme implements route.Request.
func (r *routedRequest) Scheme() string { return (*httpExchange)(r).scheme() }

// Client implements route.Request.
func (r *routedRequest) Client() netip.Addr { return r.standing.client }

func (r *routedRequest) Listener() string { return r.client.listener.name }
