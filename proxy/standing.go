package proxy

import (
	"bytes"
	"net/netip"
	"strings"
	"unsafe"

	"sluice/proxy/http1"
	"sluice/route"
)

// A standing is what a request is, and whom sluice believes about it. It is decided once,
// before anything else is done with the request, from its listener, its connection and its
// head. Nothing else reads these to decide such a thing. A copy for a mirror has the standing
// of its request.
type standing struct {
	// trusted: the client is one of TrustedProxies, so that its fields about its own client
	// count.
	trusted bool
	// grpc: the request is a call of gRPC: a POST request with gRPC's content type over
	// HTTP/2, and, as soon as its service is known, to peers with HTTP/2. An extended CONNECT
	// is none: the status of gRPC's errors, 200, would open a tunnel.
	grpc bool
	// secure: who sent the request used HTTPS, behind trusted proxies to the first of them.
	secure bool
	// certified: the client has a certificate that the listener has verified.
	certified bool
	// client is who sent the request, behind trusted proxies according to them, without zone,
	// and IPv4 not mapped to IPv6. The zero value: they say it in a way that cannot be
	// understood. Then nobody is known, which no list of addresses allows.
	client netip.Addr
	length uint8 // of text
	text   [maxAddressText]byte
}

// maxAddressText is the length of the longest IPv6 address without a zone.
const maxAddressText = len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")

// unknownClient is the text of an unknown client, as in Forwarded (RFC 7239, section 6.2).
const unknownClient = "unknown"

// decide sets the standing of the request. Without a head, the client is who has connected.
func (x *httpExchange) decide() {
	c, s := x.client, &x.standing
	s.trusted = c.proxied
	s.grpc = x.asksForGRPC()
	s.secure = c.listener.tls != nil
	s.certified = c.certificate != ""
	s.client, s.length = c.remote, 0
	if s.trusted && x.headLength > 0 {
		x.believe(x.in[x.start:x.end])
	}
}

// decideFor completes the standing of a request to a service, which may be nil.
func (x *httpExchange) decideFor(service *route.Service) {
	if service != nil && !service.HTTP2 {
		x.standing.grpc = false
	}
}

// believe sets what a trusted proxy says about its client in the head b.
func (x *httpExchange) believe(b []byte) {
	s := &x.standing
	for scheme := range x.head.Elements(b, http1.NameXForwardedProto) { // who adds to it, adds at its end
		s.secure = http1.EqualFold(scheme, "https")
		break
	}
	s.client = x.forwardedClient(b)
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
func (x *httpExchange) forwardedClient(b []byte) netip.Addr {
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
	text, _, _ = strings.Cut(text, "%") // the zone is that of another machine
	address, err := netip.ParseAddr(text)
	return address.Unmap(), err == nil
}

// clientAddress returns the address of who sent the request, as text.
func (x *httpExchange) clientAddress() []byte {
	if s := &x.standing; s.length > 0 {
		return s.text[:s.length]
	}
	return unsafe.Slice(unsafe.StringData(x.client.address), len(x.client.address)) // only read
}

// scheme returns what who sent the request used: http or https.
func (x *httpExchange) scheme() string {
	if x.standing.secure {
		return "https"
	}
	return "http"
}
