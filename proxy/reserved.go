package proxy

import (
	"bytes"

	"sluice/proxy/http1"
	"sluice/route"
)

// Every name that sluice itself writes or removes is reserved: what others have written under
// it does not pass, in heads and trailer sections, towards peers, mirrors and authentication
// servers, and from them. reservations is the table, and reserves decides.

// A reservation says when a field with a name that others have written does not pass.
type reservation uint8

const (
	free         reservation = iota
	ofMessage                // in a trailer section: it frames, names or describes the message. The writer of a head decides
	ofConnection             // never: it is for one connection
	ofSluice                 // never
	ofProxies                // to peers: unless the client is a trusted proxy
	ofRequestID              // if the exchange has an id
	ofTrace                  // to peers: if the exchange has a span
	ofDeadline               // to peers: if the exchange has a deadline
	ofListener               // to clients: if the listener sets it
	likeAnother              // if that one is reserved, or for its underscore
)

var reservations = [http1.NumNames]reservation{
	http1.NameAccept:                  free,
	http1.NameConnection:              ofConnection,
	http1.NameContentLength:           ofMessage,
	http1.NameContentType:             free,
	http1.NameCookie:                  free,
	http1.NameExpect:                  ofMessage,
	http1.NameForwarded:               ofProxies,
	http1.NameGRPCTimeout:             ofDeadline,
	http1.NameHost:                    ofMessage,
	http1.NameHTTP2Settings:           ofConnection,
	http1.NameKeepAlive:               ofConnection,
	http1.NameMaxForwards:             ofMessage,
	http1.NameProxyAuthenticate:       free, // towards clients: of the proxy that they use
	http1.NameProxyAuthorization:      ofConnection,
	http1.NameProxyConnection:         ofConnection,
	http1.NameReferer:                 free,
	http1.NameSecWebSocketKey:         ofMessage,
	http1.NameStrictTransportSecurity: ofListener,
	http1.NameTE:                      ofConnection,
	http1.NameTrailer:                 ofMessage,
	http1.NameTraceparent:             ofTrace,
	http1.NameTransferEncoding:        ofConnection,
	http1.NameUpgrade:                 ofConnection,
	http1.NameUserAgent:               free,
	http1.NameVia:                     ofMessage,
	http1.NameXForwardedClientCert:    ofSluice, // of trusted proxies too
	http1.NameXForwardedFor:           ofProxies,
	http1.NameXForwardedHost:          ofProxies,
	http1.NameXForwardedPort:          ofProxies,
	http1.NameXForwardedProto:         ofProxies,
	http1.NameXRealIP:                 ofProxies,
	http1.NameXRequestID:              ofRequestID,
	http1.NameXSluiceMirror:           ofProxies,
	http1.NameXSluice:                 ofSluice,
	http1.NameClaim:                   ofProxies,
	http1.NameMarked:                  likeAnother,
}

// A direction is where a field is going.
type direction uint8

const (
	toPeers direction = iota // or to mirrors and authentication servers
	toClients
)

// reserves reports whether a field that others have written does not pass in that direction.
// n is the Name of its name.
func (x *request) reserves(n http1.Name, name []byte, to direction) bool {
	switch reservations[n] {
	case ofConnection, ofSluice:
		return true
	case ofProxies:
		return to == toPeers && !x.standing.trusted
	case ofRequestID:
		return len(x.requestID) > 0
	case ofTrace:
		return to == toPeers && !x.span.ID.IsZero()
	case ofDeadline:
		return to == toPeers && !x.deadline.IsZero()
	case ofListener:
		return to == toClients && x.client.listener.strictTransportSecurity != ""
	case likeAnother:
		return x.reservesMarked(name, to)
	}
	return false
}

// reservesMarked is reserves for names with marks, which some servers read as hyphens. gRPC's
// metadata often has underscores, and its servers do not.
func (x *request) reservesMarked(name []byte, to direction) bool {
	like := http1.NameLike(name)
	switch reservations[like] {
	case free:
	case ofRequestID, ofTrace:
		if x.reserves(like, name, to) {
			return true
		}
	default: // those of trusted proxies too: they know how to spell it
		return true
	}
	return to == toPeers && x.dropsUnderscores() && bytes.IndexByte(name, '_') >= 0
}

// dropsUnderscores reports whether names with underscores do not pass.
func (x *request) dropsUnderscores() bool {
	return !x.standing.grpc && !x.client.options.KeepUnderscores
}

// reservesInTrailer is reserves for a trailer section, of which the route edits the same names
// as of the head.
func (x *routedRequest) reservesInTrailer(line []byte, to direction) bool {
	name := http1.LineName(line)
	if http1.ForbiddenInTrailer(name) || x.reserves(http1.NameOf(name), name, to) || x.dropsUnderscores() && bytes.IndexByte(name, '_') >= 0 {
		return true
	}
	a := x.actions
	switch {
	case a == nil:
		return false
	case to == toClients:
		return drops(&a.ResponseHeaders, line)
	}
	return drops(&a.RequestHeaders, line) || a.ForwardAuth != nil && drops(&a.ForwardAuth.Copied, line)
}

// filterTrailer returns a trailer section without reserved fields. It does not change section,
// which is sent again with a request that is sent again.
func (x *routedRequest) filterTrailer(section []byte, to direction) []byte {
	if len(section) == 0 {
		return section
	}
	reserved := func(line []byte) bool { return x.reservesInTrailer(line, to) }
	if !anyLine(section, reserved) {
		return section
	}
	var kept []byte
	for line := range http1.TrailerLines(section) {
		if !reserved(line) {
			kept = append(kept, line...)
		}
	}
	return kept
}

// anyLine reports whether a trailer section has such a line.
func anyLine(section []byte, is func(line []byte) bool) bool {
	for line := range http1.TrailerLines(section) {
		if is(line) {
			return true
		}
	}
	return false
}

// drops reports whether e removes a field line. A name with marks counts as that with hyphens.
func drops(e *route.HeaderEdits, line []byte) bool {
	for _, name := range e.Dropped {
		if len(line) > len(name) && line[len(name)] == ':' && http1.Alike(line[:len(name)], name) {
			return true
		}
	}
	return false
}
