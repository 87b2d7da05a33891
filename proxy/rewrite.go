package proxy

import (
	"strconv"
	"time"

	"sluice/balancer"
	"sluice/proxy/http1"
)

// writeRequestHead writes the head for the peer to b.out, with the edits of the route. It
// may overwrite b.from.
func (x *httpExchange) writeRequestHead(b *buffers, peer *balancer.Peer) {
	b.borrow()
	if x.actions == nil {
		b.out = x.appendRequestHead(b.out[:0], peer)
		return
	}
	b.out = x.appendEditedRequest(b.out[:0], x.appendRequestHead(b.from[:0], peer), peer)
}

// appendRequestHead appends the head for the peer. It copies adjacent lines at once,
// without the hop-by-hop fields and those that sluice writes.
func (x *httpExchange) appendRequestHead(out []byte, peer *balancer.Peer) []byte {
	b, head := x.in[x.start:x.end], &x.head
	out = append(out, head.MethodName(b)...)
	out = append(out, ' ')
	target := head.OriginTarget(b)
	if len(target) == 0 || target[0] == '?' { // http://host or http://host?query
		if len(target) == 0 && head.Method == http1.MethodOptions {
			out = append(out, '*') // RFC 9112, section 3.2.4
		} else {
			out = append(out, '/')
		}
	}
	out = append(out, target...)
	out = append(out, " HTTP/1.1\r\n"...)

	authority := head.Authority(b)
	if head.AbsoluteForm() || len(authority) == 0 {
		out = append(out, "Host: "...)
		if len(authority) > 0 {
			out = append(out, authority...)
		} else {
			out = append(out, peer.Authority()...)
		}
		out = append(out, "\r\n"...)
	}

	fields := head.Fields()
	var seen forwardedFields
	runStart, runEnd := 0, 0
	for i := range fields {
		f := &fields[i]
		start, end := f.Line()
		if f.Name != http1.NameOther && x.dropsRequestField(f, &seen) || f.Nominated {
			out = append(out, b[runStart:runEnd]...)
			runStart, runEnd = end, end
			continue
		}
		if runEnd == 0 {
			runStart = start
		}
		runEnd = end
	}
	out = append(out, b[runStart:runEnd]...)

	switch {
	case head.Chunked && !x.streaming:
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, int64(len(x.body)), 10)
		out = append(out, "\r\n"...)
	case head.Chunked:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if head.Method == http1.MethodOptions {
		if left := x.maxForwards(); left > 0 {
			out = append(out, "Max-Forwards: "...)
			out = strconv.AppendInt(out, int64(left-1), 10)
			out = append(out, "\r\n"...)
		}
	}
	if !x.deadline.IsZero() {
		out = append(out, "Grpc-Timeout: "...)
		out = append(appendGRPCTimeout(out, time.Until(x.deadline)), "\r\n"...)
	}
	switch {
	case x.upgrade:
		out = x.appendUpgrade(out, b)
	case head.TETrailers:
		out = append(out, "TE: trailers\r\nConnection: TE\r\n"...)
	}
	out = x.appendForwarded(out, b, seen)
	out = x.appendTraceparent(out, peer)
	if x.tries > 0 {
		out = append(out, "X-Sluice-Attempts: "...)
		out = strconv.AppendInt(out, int64(x.tries+1), 10)
		out = append(out, "\r\n"...)
	}
	return append(out, "\r\n"...)
}

// maxForwards returns the Max-Forwards field, or -1 (RFC 9110, section 7.6.2).
func (x *httpExchange) maxForwards() int {
	value := x.head.Find(x.in[x.start:x.end], http1.NameMaxForwards)
	left, err := strconv.Atoi(string(value))
	if err != nil || left < 0 {
		return -1
	}
	return left
}

// dropsRequestField reports whether f is not forwarded. It records in seen the fields
// that are.
func (x *httpExchange) dropsRequestField(f *http1.Field, seen *forwardedFields) bool {
	trusted := x.client.trusted
	switch f.Name {
	case http1.NameConnection, http1.NameKeepAlive, http1.NameProxyConnection, http1.NameTE,
		http1.NameTransferEncoding, http1.NameHTTP2Settings, http1.NameUpgrade,
		http1.NameProxyAuthorization, http1.NameXSluiceAttempts, http1.NameXForwardedFor, http1.NameXRealIP,
		http1.NameXForwardedClientCert: // of trusted proxies too
		return true
	case http1.NameTrailer:
		return !x.head.Chunked || !x.streaming
	case http1.NameExpect:
		return !x.streaming
	case http1.NameUnderscore:
		return !x.client.options.KeepUnderscores && !x.isGRPC() || imitatesClientCertificate(f.FieldName(x.in[x.start:x.end]))
	case http1.NameGRPCTimeout:
		return !x.deadline.IsZero() // appendRequestHead writes what is left of it
	case http1.NameMaxForwards: // appendRequestHead writes it for OPTIONS
		return x.head.Method == http1.MethodOptions
	case http1.NameHost:
		return x.head.AbsoluteForm()
	case http1.NameXForwardedHost:
		seen.host = trusted
		return !trusted
	case http1.NameXForwardedProto:
		seen.proto = trusted
		return !trusted
	case http1.NameTraceparent:
		return !x.span.ID.IsZero()
	case http1.NameXRequestID:
		return len(x.requestID) > 0
	case http1.NameXForwardedPort, http1.NameForwarded, http1.NameXSluiceMirror:
		return !trusted
	}
	return false
}

// forwardedFields are the X-Forwarded-* fields of a trusted client.
type forwardedFields struct{ host, proto bool }

// appendForwarded appends X-Forwarded-*, X-Real-IP, Forwarded, X-Request-Id and Via.
func (x *httpExchange) appendForwarded(out, b []byte, seen forwardedFields) []byte {
	c, authority := x.client, x.head.Authority(b)
	out = append(out, "X-Forwarded-For: "...)
	if c.trusted && x.head.Has(http1.NameXForwardedFor) {
		// One line: some servers read only one.
		for element := range x.head.Elements(b, http1.NameXForwardedFor) {
			out = append(out, element...)
			out = append(out, ", "...)
		}
	}
	out = append(out, c.address...)
	out = append(out, "\r\nX-Real-IP: "...)
	out = x.appendClient(out, b)
	if !seen.host && len(authority) > 0 {
		out = append(out, "\r\nX-Forwarded-Host: "...)
		out = append(out, authority...)
	}
	if !seen.proto {
		out = append(out, "\r\nX-Forwarded-Proto: "...)
		out = append(out, c.scheme()...)
	}
	if c.options.Forwarded {
		out = append(out, "\r\nForwarded: for="...)
		if c.remote.Is6() {
			out = append(out, "\"["...)
			out = append(out, c.address...)
			out = append(out, "]\""...)
		} else {
			out = append(out, c.address...)
		}
		out = append(out, ";proto="...)
		out = append(out, c.scheme()...)
	}
	out = append(out, "\r\n"...)
	out = append(out, c.certificate...)
	out = x.appendRequestIDLine(out)
	if x.head.HTTP10 {
		return append(out, "Via: 1.0 sluice\r\n"...) // the version of the request
	}
	out = append(out, "Via: "...)
	out = append(out, c.protocol()[len("HTTP/"):]...)
	return append(out, " sluice\r\n"...)
}
