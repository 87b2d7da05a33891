package proxy

import (
	"bytes"

	"sluice/proxy/http1"
)

// asksForUpgrade reports whether the request asks for a protocol except HTTP.
func (x *httpExchange) asksForUpgrade() bool {
	if !x.head.Upgrade || x.head.HTTP10 {
		return false
	}
	for protocol := range x.head.Elements(x.in[x.start:x.end], http1.NameUpgrade) {
		if !isHTTP(protocol) {
			return true
		}
	}
	return false
}

// isHTTP reports whether protocol is any version of HTTP. An upgrade to HTTP is
// obsolete (RFC 9113, section 3.1), and sluice could not see the requests.
func isHTTP(protocol []byte) bool {
	name, _, _ := bytes.Cut(protocol, slash)
	return http1.EqualFold(name, "http") || len(name) >= 2 && http1.EqualFold(name[:2], "h2")
}

var slash = []byte("/")

// appendUpgrade appends the Upgrade and Connection fields. b is the request head.
func (x *httpExchange) appendUpgrade(out, b []byte) []byte {
	separator := "Upgrade: "
	for protocol := range x.head.Elements(b, http1.NameUpgrade) {
		if !isHTTP(protocol) {
			out = append(out, separator...)
			out = append(out, protocol...)
			separator = ", "
		}
	}
	out = append(out, "\r\nConnection: Upgrade\r\n"...)
	if x.client.isHTTP2 {
		out = append(append(append(out, "Sec-WebSocket-Key: "...), x.webSocketKey[:]...), "\r\n"...)
	}
	return out
}

// switches reports whether the response, with the head b, selects only protocols that
// the request asks for.
func (x *httpExchange) switches(b []byte) bool {
	if !x.upgrade || !x.response.Upgrade {
		return false
	}
	agreed := false
	for protocol := range x.response.Elements(b, http1.NameUpgrade) {
		if agreed = x.askedFor(protocol); !agreed {
			break
		}
	}
	return agreed && (!x.client.isHTTP2 || x.acceptsWebSocket(b))
}

// askedFor reports whether the forwarded request asks for the protocol.
func (x *httpExchange) askedFor(protocol []byte) bool {
	if isHTTP(protocol) {
		return false
	}
	for asked := range x.head.Elements(x.in[x.start:x.end], http1.NameUpgrade) {
		if bytes.EqualFold(asked, protocol) {
			return true
		}
	}
	return false
}
