package proxy

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unsafe"

	"sluice/observe/tracing"
	"sluice/proxy/http1"
	"sluice/route"
	"sluice/route/places"
)

// A clientIdentity is who has sent a request, and whom sluice believes about it. It is decided
// once, before anything else is done with the request, from its listener, its connection and its
// head. Nothing else reads these to decide such a thing. A copy for a mirror has the identity of
// its request.
type clientIdentity struct {
	// trusted: the client is one of TrustedProxies, so that its fields about its own client
	// count.
	trusted bool
	// grpc: the request is a call of gRPC: a POST request with gRPC's content type over
	// HTTP/2, and, as soon as its service is known, to peers with HTTP/2. An extended CONNECT
	// is none: the status of gRPC's errors, 200, would open a tunnel.
	grpc bool
	// secure: who sent the request used HTTPS, behind trusted proxies to the first of them.
	secure bool
	// certificate is the one of who has connected, which the listener has verified; nil: there is
	// none. A proxy's fields about the certificate of its own client do not count.
	certificate *route.Certificate
	// revoked: certificate was verified, and is revoked now.
	revoked bool
	// client is who sent the request, behind trusted proxies according to them, without zone,
	// and IPv4 not mapped to IPv6. The zero value: they say it in a way that cannot be
	// understood, or the client is at a unix socket. Then nobody is known, which no list of
	// addresses allows.
	client netip.Addr
	length uint8 // of text
	text   [maxAddressText]byte
}

// maxAddressText is the length of the longest IPv6 address without a zone.
const maxAddressText = len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")

// unknownClient is the text of an unknown client, as in Forwarded (RFC 7239, section 6.2).
const unknownClient = "unknown"

// addressText returns the text of the address of who has connected; the zero value: by a unix
// socket.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return unknownClient
	}
	return a.String()
}

// decide sets the identity of the client. Without a head, the client is who has connected.
func (x *request) decide() {
	c, s := x.client, &x.identity
	s.trusted = c.proxied
	s.grpc = x.asksForGRPC()
	s.secure = c.listener.TLS != nil
	s.certificate, s.revoked = nil, false
	if c.certificate != nil {
		s.certificate, s.revoked = c.certificate.Certificate, c.isRevoked()
	}
	s.client, s.length = c.remote, 0
	if s.trusted && x.headLength > 0 {
		believe(x, x.in[x.start:x.end])
	}
}

// believe takes over what the head b of a trusted proxy tells about its client.
func believe(x *request, b []byte) {
	s := &x.identity
	for scheme := range x.head.Elements(b, http1.NameXForwardedProto) { // who adds to it, adds at its end
		s.secure = http1.EqualFold(scheme, "https")
		break
	}
	s.client = forwardedClient(x, b)
	switch {
	case !s.client.IsValid():
		s.length = uint8(copy(s.text[:], unknownClient))
	case s.client != x.client.remote:
		s.length = uint8(len(s.client.AppendTo(s.text[:0])))
	}
}

// forwardedClient returns the client of a trusted proxy: the last address in X-Forwarded-For
// that is not trusted, or the first one if all are; without X-Forwarded-For the one in
// X-Real-IP; without both the proxy. The zero value: an element before the last that counts
// is no address.
func forwardedClient(x *request, b []byte) netip.Addr {
	client := x.client.remote
	if !x.head.Has(http1.NameXForwardedFor) {
		if !x.head.Has(http1.NameXRealIP) {
			return client
		}
		client, _ = parseHop(x.sentOnce(http1.NameXRealIP))
		return client
	}
	fields := x.head.Fields()
	for i := len(fields) - 1; i >= 0; i-- {
		if fields[i].Name != http1.NameXForwardedFor {
			continue
		}
		for list := fields[i].Value(b); len(list) > 0; {
			comma := bytes.LastIndexByte(list, ',')
			hop := bytes.Trim(list[comma+1:], " \t")
			if list = list[:max(comma, 0)]; len(hop) == 0 {
				continue
			}
			ok := false
			if client, ok = parseHop(hop); !ok || !contains(x.client.options.TrustedProxies, client) {
				return client
			}
		}
	}
	return client
}

// parseHop parses an address as proxies write it: with or without a port, in quotes, IPv6
// with or without brackets.
func parseHop(hop []byte) (netip.Addr, bool) {
	text := unsafe.String(unsafe.SliceData(hop), len(hop)) // not retained
	if len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	port := ""
	switch end := strings.IndexByte(text, ']'); {
	case strings.HasPrefix(text, "[") && end > 0:
		text, port = text[1:end], text[end+1:]
		if !strings.Contains(text, ":") {
			return netip.Addr{}, false
		}
	case strings.Count(text, ":") == 1:
		colon := strings.IndexByte(text, ':')
		text, port = text[:colon], text[colon:]
	}
	if port != "" && (len(port) < len(":0") || port[0] != ':' || len(port) > len(":65535") || strings.Trim(port[1:], "0123456789") != "") {
		return netip.Addr{}, false
	}
	text, _, _ = strings.Cut(text, "%") // the zone is another machine's
	address, err := netip.ParseAddr(text)
	return address.Unmap(), err == nil
}

// block returns the address block of the client, which has a share of what requests share: behind
// trusted proxies, of the client that they forward. A connection has a block of its own.
func (x *request) block() places.Block {
	return blockOf(x.identity.client, x.client.options.TrustedProxies)
}

// clientAddress returns the address of who sent the request, as text.
func (x *request) clientAddress() []byte {
	if s := &x.identity; s.length > 0 {
		return s.text[:s.length]
	}
	return unsafe.Slice(unsafe.StringData(x.client.address), len(x.client.address)) // only read
}

// maxRequestIDBytes is the maximum length of a request id that is taken over.
const maxRequestIDBytes = 128

// requestIDBytes is the length of one that sluice makes: a UUID.
const requestIDBytes = 36

// chooseRequestID sets the id of the request: the one of a trusted client if it is well-formed,
// or a new one. Without Options.RequestID there is none.
func (x *request) chooseRequestID() {
	x.requestID = nil
	if !x.client.options.RequestID {
		return
	}
	if x.identity.trusted && x.headLength > 0 && x.head.Has(http1.NameXRequestID) {
		if id := x.sentOnce(http1.NameXRequestID); isRequestID(id) {
			x.requestID = id
			return
		}
	}
	x.requestID = appendRequestID(x.ownRequestID[:0], x.startTime, rand.Uint64(), rand.Uint64())
}

// isRequestID reports whether an id is taken over: its characters are from UUIDs, from
// base64 and of paths.
func isRequestID(id []byte) bool {
	return len(id) > 0 && len(id) <= maxRequestIDBytes && !slices.ContainsFunc(id, func(c byte) bool { return !requestIDCharacters[c] })
}

var requestIDCharacters = func() (table [256]bool) {
	for _, c := range []byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~:+/=@") {
		table[c] = true
	}
	return table
}()

// appendRequestID appends a UUID of version 7 (RFC 9562, section 5.7): ids sort by time.
// The generator of math/rand/v2 is seeded by the kernel once for each thread, so an id
// takes no system call.
func appendRequestID(out []byte, now time.Time, random1, random2 uint64) []byte {
	const variant = 0b10 << 62
	var id [16]byte
	binary.BigEndian.PutUint64(id[:], uint64(now.UnixMilli())<<16|7<<12|random1&(1<<12-1))
	binary.BigEndian.PutUint64(id[8:], variant|random2&(1<<62-1))
	out = hex.AppendEncode(out, id[:4])
	for _, end := range [...]int{6, 8, 10} {
		out = hex.AppendEncode(append(out, '-'), id[end-2:end])
	}
	return hex.AppendEncode(append(out, '-'), id[10:])
}

// appendRequestIDLine appends the X-Request-Id line of the request, if it has an id.
func (x *request) appendRequestIDLine(out []byte) []byte {
	if len(x.requestID) == 0 {
		return out
	}
	return http1.AppendLine(out, "X-Request-Id: ", x.requestID)
}

// beginTrace sets the span of the request. Without Options.Tracer it has none, but the
// access log still names the trace of a traceparent field.
func (x *request) beginTrace() {
	t := x.client.options.Tracer
	known := x.headLength > 0 && x.head.Has(http1.NameTraceparent)
	if t == nil && !known {
		if !x.span.Trace.IsZero() {
			x.span = tracing.Span{}
		}
		return
	}
	var parent tracing.Parent
	if known {
		parent, known = tracing.ParseTraceparent(x.sentOnce(http1.NameTraceparent))
	}
	if t == nil {
		x.span = tracing.Span{Trace: parent.Trace}
		return
	}
	x.span = t.Begin(parent, known, x.identity.trusted)
}
