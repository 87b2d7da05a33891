package proxy

import (
	"strconv"

	"sluice/http1"
)

// Heads are sent on byte for byte, but for the lines that end at this hop or
// that sluice vouches for. Lines that stay are copied in runs, as they stand in
// the buffer.

// appendRequestHead appends the head that the peer gets.
func (x *httpExchange) appendRequestHead(out []byte) []byte {
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
			out = append(out, x.token.Peer.Address()...)
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

	if head.Chunked {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if head.Method == http1.MethodOptions {
		if left := x.maxForwards(); left > 0 {
			out = append(out, "Max-Forwards: "...)
			out = strconv.AppendInt(out, int64(left-1), 10)
			out = append(out, "\r\n"...)
		}
	}
	switch {
	case x.upgrade:
		out = x.appendUpgrade(out, b)
	case head.TETrailers:
		out = append(out, "TE: trailers\r\nConnection: TE\r\n"...)
	}
	out = x.appendForwarded(out, b, seen)
	if x.tries > 0 {
		out = append(out, "X-Sluice-Attempts: "...)
		out = strconv.AppendInt(out, int64(x.tries+1), 10)
		out = append(out, "\r\n"...)
	}
	return append(out, "\r\n"...)
}

// maxForwards returns how often an OPTIONS request may be forwarded, or -1
// (RFC 9110, section 7.6.2).
func (x *httpExchange) maxForwards() int {
	value := x.head.Find(x.in[x.start:x.end], http1.NameMaxForwards)
	left, err := strconv.Atoi(string(value))
	if err != nil || left < 0 {
		return -1
	}
	return left
}

// dropsRequestField reports whether a field that sluice knows stays behind. It
// notes in seen what is needed to write it anew.
func (x *httpExchange) dropsRequestField(f *http1.Field, seen *forwardedFields) bool {
	trusted := x.client.trusted
	switch f.Name {
	case http1.NameConnection, http1.NameKeepAlive, http1.NameProxyConnection, http1.NameTE,
		http1.NameTransferEncoding, http1.NameHTTP2Settings, http1.NameUpgrade,
		http1.NameProxyAuthorization, http1.NameXSluiceAttempts, http1.NameXForwardedFor:
		return true
	case http1.NameTrailer:
		return !x.head.Chunked
	case http1.NameExpect:
		return !x.streaming
	case http1.NameUnderscore:
		return !x.client.server.options.KeepUnderscores
	case http1.NameMaxForwards: // written anew where it counts
		return x.head.Method == http1.MethodOptions
	case http1.NameHost:
		return x.head.AbsoluteForm()
	case http1.NameXForwardedHost:
		seen.host = trusted
		return !trusted
	case http1.NameXForwardedProto:
		seen.proto = trusted
		return !trusted
	case http1.NameXForwardedPort, http1.NameXRealIP, http1.NameForwarded:
		return !trusted
	}
	return false
}

// forwardedFields are those that a trusted client vouches for.
type forwardedFields struct{ host, proto bool }

// appendForwarded appends what sluice says of the client, and of itself.
func (x *httpExchange) appendForwarded(out, b []byte, seen forwardedFields) []byte {
	c, authority := x.client, x.head.Authority(b)
	out = append(out, "X-Forwarded-For: "...)
	if c.trusted && x.head.Has(http1.NameXForwardedFor) {
		// One line, so that those who read only one see all of the way.
		for element := range x.head.Elements(b, http1.NameXForwardedFor) {
			out = append(out, element...)
			out = append(out, ", "...)
		}
	}
	out = append(out, c.clientAddress...)
	if !seen.host && len(authority) > 0 {
		out = append(out, "\r\nX-Forwarded-Host: "...)
		out = append(out, authority...)
	}
	if !seen.proto {
		out = append(out, "\r\nX-Forwarded-Proto: http"...)
	}
	if c.server.options.Forwarded {
		out = append(out, "\r\nForwarded: for="...)
		if c.remote.Is6() {
			out = append(out, "\"["...)
			out = append(out, c.clientAddress...)
			out = append(out, "]\""...)
		} else {
			out = append(out, c.clientAddress...)
		}
		out = append(out, ";proto=http"...)
	}
	if x.head.HTTP10 {
		return append(out, "\r\nVia: 1.0 sluice\r\n"...) // the version the request came with
	}
	return append(out, "\r\nVia: 1.1 sluice\r\n"...)
}

// appendResponseHead appends the head that the client gets. b is the head as
// the peer sent it.
func (x *httpExchange) appendResponseHead(out, b []byte) []byte {
	head := &x.response
	out = append(out, "HTTP/1.1 "...)
	status := head.StatusText(b)
	out = append(out, status...)
	if len(status) == len("200") {
		out = append(out, ' ')
	}
	out = append(out, "\r\n"...)

	fields := head.Fields()
	runStart, runEnd := 0, 0
	for i := range fields {
		f := &fields[i]
		start, end := f.Line()
		if f.Name != http1.NameOther && x.dropsResponseField(f) || f.Nominated {
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

	if x.service.Affinity != nil && (!head.Interim() || head.Status == 101) {
		out = x.appendStickyCookie(out)
	}
	switch {
	case head.Interim():
		return append(out, "\r\n"...)
	case head.Status == 101:
		return append(out, "Connection: Upgrade\r\n\r\n"...)
	}
	if x.framing == framingChunked || x.framing == framingChunkedAnew ||
		x.framing == framingNone && head.Chunked && x.head.Method == http1.MethodHead && !x.head.HTTP10 {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case !x.keepClient:
		out = append(out, "Connection: close\r\n"...)
	case x.head.HTTP10:
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	return append(out, "\r\n"...)
}

// dropsResponseField reports whether a field that sluice knows stays behind.
func (x *httpExchange) dropsResponseField(f *http1.Field) bool {
	switch f.Name {
	case http1.NameConnection, http1.NameKeepAlive, http1.NameProxyConnection, http1.NameTE,
		http1.NameTransferEncoding:
		return true
	case http1.NameUpgrade:
		return x.response.Status != 101 && x.response.Status != 426
	case http1.NameTrailer:
		return x.framing != framingChunked || !x.head.TETrailers
	case http1.NameContentLength:
		return x.response.Status == 204 || x.response.Status < 200 // RFC 9110, section 8.6
	}
	return false
}
