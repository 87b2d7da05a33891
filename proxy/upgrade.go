package proxy

import (
	"bytes"

	"sluice/http1"
)

// asksForUpgrade reports whether the peer is to be asked for another protocol.
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

// isHTTP reports whether protocol is HTTP itself, in whatever version. An upgrade
// to it is obsolete (RFC 9113, section 3.1) and would hide requests from sluice.
func isHTTP(protocol []byte) bool {
	name, _, _ := bytes.Cut(protocol, slash)
	return http1.EqualFold(name, "http") || len(name) >= 2 && http1.EqualFold(name[:2], "h2")
}

var slash = []byte("/")

// appendUpgrade appends the fields that ask the peer for another protocol. b is
// the head of the request.
func (x *httpExchange) appendUpgrade(out, b []byte) []byte {
	separator := "Upgrade: "
	for protocol := range x.head.Elements(b, http1.NameUpgrade) {
		if !isHTTP(protocol) {
			out = append(out, separator...)
			out = append(out, protocol...)
			separator = ", "
		}
	}
	return append(out, "\r\nConnection: Upgrade\r\n"...)
}

// switches reports whether the response agrees to nothing but what the peer was
// asked for. b is its head.
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
	return agreed
}

// askedFor reports whether the peer was asked for the protocol.
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
