package proxy

import (
	"bytes"
	"strconv"
	"time"

	"sluice/observe/tracing"
	"sluice/proxy/grpc"
	"sluice/proxy/http1"
	"sluice/proxy/reserved"
)

// writeRequestHead writes the head for the peer to x.Out, with the edits of the route. It
// may overwrite x.From. The error is http1.ErrHeadTooLong.
func (x *tries) writeRequestHead() error {
	x.body.buffers.Borrow()
	if x.route.actions == noActions && len(x.route.target) == 0 {
		x.body.buffers.Out = x.appendRequestHead(x.body.buffers.Out[:0])
		return nil
	}
	x.body.buffers.Out = x.appendEditedRequest(x.body.buffers.Out[:0], x.appendRequestHead(x.body.buffers.From[:0]))
	if len(x.body.buffers.Out) > maxSentHead {
		return http1.ErrHeadTooLong
	}
	return nil
}

// maxSentHead bounds a request head after edits: the client's head, at most http1.MaxHeadBytes,
// with what sluice adds. An expansion of a template that did not reach its end is longer.
const maxSentHead = 64 << 10

// appendRequestHead appends the head for the peer. It copies adjacent lines at once,
// without the hop-by-hop fields and the fields that sluice writes.
func (x *tries) appendRequestHead(out []byte) []byte {
	b, head := x.request.bytes(), &x.request.head
	out = append(out, head.MethodName(b)...)
	out = append(out, ' ')
	out = appendTarget(x.request, out, b)
	out = append(out, " HTTP/1.1\r\n"...)

	authority := head.Authority(b)
	switch {
	case len(authority) == 0:
		out = http1.AppendLine(out, "Host: ", x.token.Peer.Authority())
	case head.AbsoluteForm():
		out = http1.AppendLine(out, "Host: ", authority)
	}

	var seen forwardedFields
	runStart, runEnd := 0, 0
	for _, f := range head.Fields() {
		start, end := f.Line()
		if f.Name != http1.NameOther && dropsRequestField(x.request, f, &seen) || f.Nominated {
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
	case head.Chunked && !x.request.streaming:
		out = appendNumber(out, "Content-Length: ", len(x.body.bytes))
	case head.Chunked:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if head.Method == http1.MethodOptions {
		if left := maxForwards(x.request); left > 0 {
			out = appendNumber(out, "Max-Forwards: ", left-1)
		}
	}
	if !x.request.deadline.IsZero() {
		out = append(out, "Grpc-Timeout: "...)
		out = append(grpc.AppendTimeout(out, time.Until(x.request.deadline)), "\r\n"...)
	}
	switch {
	case x.request.upgrade:
		out = appendUpgrade(x.request, out, b)
	case head.TETrailers:
		out = append(out, "TE: trailers\r\nConnection: TE\r\n"...)
	}
	out = appendForwarded(x.request, out, b, seen)
	out = x.appendTraceparent(out)
	if x.attempts.Tries > 1 {
		out = appendNumber(out, "X-Sluice-Attempts: ", x.attempts.Tries)
	}
	return append(out, "\r\n"...)
}

// appendTarget appends the target as peers get it, if the route does not edit it.
func appendTarget(x *request, out, b []byte) []byte {
	target := x.head.OriginTarget(b)
	switch {
	case len(target) > 0 && target[0] != '?':
	case len(target) == 0 && x.head.Method == http1.MethodOptions: // http://host: RFC 9112, section 3.2.4
		out = append(out, '*')
	default: // http://host or http://host?query
		out = append(out, '/')
	}
	return append(out, target...)
}

// urlTarget returns the target as the end of a URL. Without a path, as * and that of http://host,
// it is the root.
func urlTarget(x *request, b []byte) []byte {
	target := x.head.OriginTarget(b)
	if len(target) > 0 && target[0] == '/' {
		return target
	}
	return append([]byte{'/'}, bytes.TrimPrefix(target, []byte{'*'})...)
}

// appendNumber is http1.AppendLine for a number.
func appendNumber(out []byte, name string, value int) []byte {
	return append(strconv.AppendInt(append(out, name...), int64(value), 10), "\r\n"...)
}

// dropsRequestField reports whether f is not forwarded: it is reserved, or is written anew
// in this head. It records in seen the fields that are forwarded.
func dropsRequestField(x *request, f http1.Field, seen *forwardedFields) bool {
	switch f.Name {
	case http1.NameXForwardedFor, http1.NameXRealIP:
		return true
	case http1.NameTrailer:
		return !x.head.Chunked || !x.streaming
	case http1.NameExpect:
		return !x.streaming
	case http1.NameMaxForwards: // appendRequestHead writes it for OPTIONS
		return x.head.Method == http1.MethodOptions
	case http1.NameHost:
		return x.head.AbsoluteForm()
	case http1.NameXForwardedHost:
		seen.host = x.identity.trusted
	case http1.NameXForwardedProto:
		seen.proto = x.identity.trusted
	}
	return x.reserved().Drop(f.Name, f.FieldName(x.in[x.start:x.end]), reserved.ToPeers)
}

// forwardedFields are the X-Forwarded-* fields of a trusted client.
type forwardedFields struct{ host, proto bool }

// appendForwarded appends X-Forwarded-*, X-Real-IP, Forwarded, X-Request-Id and Via.
func appendForwarded(x *request, out, b []byte, seen forwardedFields) []byte {
	c, authority := x.client, x.head.Authority(b)
	out = append(out, "X-Forwarded-For: "...)
	start := len(out)
	if x.identity.trusted && x.head.Has(http1.NameXForwardedFor) {
		// One line: some servers read only one.
		for element := range x.head.Elements(b, http1.NameXForwardedFor) {
			out = append(out, element...)
			out = append(out, ", "...)
		}
	}
	if c.remote.IsValid() || len(out) == start {
		out = append(out, c.address...)
	} else { // a proxy at a unix socket adds nothing to what it says
		out = out[:len(out)-len(", ")]
	}
	out = append(out, "\r\nX-Real-IP: "...)
	out = append(out, x.clientAddress()...)
	if !seen.host && len(authority) > 0 {
		out = append(out, "\r\nX-Forwarded-Host: "...)
		out = append(out, authority...)
	}
	if !seen.proto {
		out = append(out, "\r\nX-Forwarded-Proto: "...)
		out = append(out, c.listener.scheme()...)
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
		out = append(out, c.listener.scheme()...)
	}
	out = append(out, "\r\n"...)
	if c.certificate != nil {
		out = append(out, c.certificate.line...)
	}
	out = x.appendRequestIDLine(out)
	out = append(out, "Via: "...)
	out = append(out, x.protocol()[len("HTTP/"):]...)
	return append(out, " sluice\r\n"...)
}

// appendTraceparent appends the traceparent line of the try, if the request has a span. Otherwise
// the peer gets what the client has sent.
func (x *tries) appendTraceparent(out []byte) []byte {
	if x.request.span.ID.IsZero() {
		return out
	}
	id := x.request.span.ID
	if t := x.tried.last(); !t.span.IsZero() {
		id = t.span
	}
	out = append(out, "traceparent: "...)
	return append(tracing.AppendTraceparent(out, x.request.span.Trace, id, x.request.span.Sampled), "\r\n"...)
}

// appendEditedRequest appends text, a request head that sluice wrote, with the edits of
// the route.
func (x *tries) appendEditedRequest(out, text []byte) []byte {
	a := x.route.actions
	line, fields := http1.CutLine(text)
	if len(x.route.target) == 0 {
		out = append(out, line...)
	} else {
		out = append(append(out, x.request.head.MethodName(x.request.bytes())...), ' ')
		out = append(append(out, x.route.target...), " HTTP/1.1\r\n"...)
	}
	host := a.Host
	if a.HostOfPeer {
		host = x.token.Peer.Authority()
	}
	if host != "" {
		out = http1.AppendLine(out, "Host: ", host)
	}
	if x.route.stripped {
		start := len(out)
		out = http1.AppendLine(out, "X-Forwarded-Prefix: ", a.Path.Stripped())
		if drops(&a.RequestHeaders, out[start:]) {
			out = out[:start]
		}
	}
	for line := range http1.Lines(fields) {
		switch {
		case host != "" && http1.HasName(line, "host"):
		case drops(&a.RequestHeaders, line):
		case drops(&a.Authorized, line):
		default:
			out = append(out, line...)
		}
	}
	for line := range http1.Lines(x.route.authorized) {
		if !drops(&a.RequestHeaders, line) {
			out = append(out, line...)
		}
	}
	return x.route.appendAdded(out, &a.RequestHeaders)
}
