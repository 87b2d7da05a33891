package proxy

import (
	"bytes"
	"net/netip"

	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
)

type scanResult uint8

const (
	scanIncomplete scanResult = iota // more bytes are needed
	scanWhole                        // a request with its body is in the buffer
	scanStreaming                    // a head is in the buffer; the body is forwarded while it is read
	scanRefused                      // the request was refused
	scanHTTP2                        // the client uses HTTP/2
)

// scan scans the request in the buffer.
func (x *httpExchange) scan() scanResult {
	if x.start == x.end {
		return scanIncomplete
	}
	limits := &x.client.options.Limits
	if x.headLength == 0 {
		n, err := x.head.Scan(x.in[x.start:min(x.end, x.start+limits.HeadBytes)])
		if err == nil && n == 0 && x.end-x.start >= limits.HeadBytes {
			err = http1.ErrHeadTooLong
		}
		if err != nil {
			if x.client.mayPreface && err == http1.ErrMethodRefused {
				if result := x.scanPreface(); result != scanRefused {
					return result
				}
			}
			return x.scanFailed(err)
		}
		if n == 0 {
			return scanIncomplete
		}
		x.headLength = n
	}
	if !x.head.HasBody() {
		if x.upgrade = x.asksForUpgrade(); x.upgrade {
			return scanStreaming
		}
		return scanWhole
	}
	if limits.BodyBytes > 0 && x.head.ContentLength > limits.BodyBytes {
		return x.scanFailed(http1.ErrBodyTooLong)
	}
	arrived := x.end - x.start - x.headLength
	switch {
	case x.head.ExpectContinue:
	case x.head.Chunked:
	case x.head.ContentLength > int64(socket.RequestBufferBytes-x.headLength):
	case int64(arrived) < x.head.ContentLength:
		return scanIncomplete
	default:
		x.bodyLength = int(x.head.ContentLength)
		return scanWhole
	}
	x.streaming = true
	return scanStreaming
}

// scanPreface scans the preface of HTTP/2, which is no valid request of HTTP/1.
func (x *httpExchange) scanPreface() scanResult {
	b, limits := x.in[x.start:x.end], &x.client.options.Limits
	n := min(len(b), len(http2.Preface))
	switch {
	case string(b[:n]) != http2.Preface[:n]:
		return scanRefused
	case n < len(http2.Preface):
		x.head.Reset(limits.TargetBytes, limits.Fields)
		return scanIncomplete
	}
	return scanHTTP2
}

func (x *httpExchange) scanFailed(err error) scanResult {
	x.begin()
	x.refuseMalformed(err)
	return scanRefused
}

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
