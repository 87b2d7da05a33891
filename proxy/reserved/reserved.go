// Package reserved knows the names of fields that sluice itself writes or removes: what others have
// written under such a name does not pass, in heads and trailer sections, towards peers, mirrors
// and authentication servers, and from them. Names is the table, and [Rules.Drop] decides.
package reserved

import (
	"bytes"

	"sluice/proxy/http1"
)

// A Reservation says when a field with a name that others have written does not pass.
type Reservation uint8

const (
	Free         Reservation = iota
	OfMessage                // in a trailer section: it frames, names or describes the message. The writer of a head decides
	OfConnection             // never: it is for one connection
	OfSluice                 // never
	OfProxies                // to peers: unless the client is a trusted proxy
	OfRequestID              // if the exchange has an id
	OfTrace                  // to peers: if the exchange has a span
	OfTraceState             // to peers: if the exchange begins a trace
	OfDeadline               // to peers: if the exchange has a deadline
	OfListener               // to clients: if the listener sets it
	LikeAnother              // if that one is reserved, or for its underscore
)

// Names has the reservation of each name.
var Names = [http1.NumNames]Reservation{
	http1.NameAccept:                  Free,
	http1.NameAltSvc:                  OfListener,
	http1.NameAuthorization:           Free,
	http1.NameConnection:              OfConnection,
	http1.NameContentLength:           OfMessage,
	http1.NameContentType:             Free,
	http1.NameCookie:                  Free,
	http1.NameExpect:                  OfMessage,
	http1.NameForwarded:               OfProxies,
	http1.NameGRPCTimeout:             OfDeadline,
	http1.NameHost:                    OfMessage,
	http1.NameHTTP2Settings:           OfConnection,
	http1.NameKeepAlive:               OfConnection,
	http1.NameMaxForwards:             OfMessage,
	http1.NameProxyAuthenticate:       Free, // towards clients: of the proxy that they use
	http1.NameProxyAuthorization:      OfConnection,
	http1.NameProxyConnection:         OfConnection,
	http1.NameReferer:                 Free,
	http1.NameSecWebSocketKey:         OfMessage,
	http1.NameStrictTransportSecurity: OfListener,
	http1.NameTE:                      OfConnection,
	http1.NameTrailer:                 OfMessage,
	http1.NameTraceparent:             OfTrace,
	http1.NameTracestate:              OfTraceState,
	http1.NameTransferEncoding:        OfConnection,
	http1.NameUpgrade:                 OfConnection,
	http1.NameUserAgent:               Free,
	http1.NameVia:                     OfMessage,
	http1.NameWWWAuthenticate:         Free,
	http1.NameXForwardedClientCert:    OfSluice, // of trusted proxies too
	http1.NameXForwardedFor:           OfProxies,
	http1.NameXForwardedHost:          OfProxies,
	http1.NameXForwardedPort:          OfProxies,
	http1.NameXForwardedProto:         OfProxies,
	http1.NameXRealIP:                 OfProxies,
	http1.NameXRequestID:              OfRequestID,
	http1.NameXSluiceMirror:           OfProxies,
	http1.NameXSluice:                 OfSluice,
	http1.NameClaim:                   OfProxies,
	http1.NameMarked:                  LikeAnother,
}

// A Direction is where a field is going.
type Direction uint8

const (
	ToPeers Direction = iota // or to mirrors and authentication servers
	ToClients
)

// Rules are what an exchange adds to the table.
type Rules struct {
	Trusted         bool // the client is a trusted proxy
	RequestID       bool // the exchange has an id
	Span            bool // the exchange has a span
	NewTrace        bool // the span begins a trace, of which there is no state yet
	Deadline        bool // the exchange has a deadline
	HSTS            bool // the listener sets Strict-Transport-Security
	AltSvc          bool // the listener sets Alt-Svc
	DropUnderscores bool // names with underscores do not pass to peers
}

// Drop reports whether a field that others have written does not pass in that direction. n is the
// Name of its name.
func (r Rules) Drop(n http1.Name, name []byte, to Direction) bool {
	switch Names[n] {
	case OfConnection, OfSluice:
		return true
	case OfProxies:
		return to == ToPeers && !r.Trusted
	case OfRequestID:
		return r.RequestID
	case OfTrace:
		return to == ToPeers && r.Span
	case OfTraceState:
		return to == ToPeers && r.NewTrace
	case OfDeadline:
		return to == ToPeers && r.Deadline
	case OfListener:
		return to == ToClients && (r.AltSvc && n == http1.NameAltSvc || r.HSTS && n == http1.NameStrictTransportSecurity)
	case LikeAnother:
		return r.dropMarked(name, to)
	}
	return false
}

// dropMarked is Drop for names with marks, which some servers read as hyphens. gRPC's metadata
// often has underscores, and its servers do not.
func (r Rules) dropMarked(name []byte, to Direction) bool {
	like := http1.NameLike(name)
	switch Names[like] {
	case Free:
	case OfRequestID, OfTrace:
		if r.Drop(like, name, to) {
			return true
		}
	default: // from trusted proxies too: they know how to spell it
		return true
	}
	return to == ToPeers && r.DropUnderscores && bytes.IndexByte(name, '_') >= 0
}

// DropFromTrailer is Drop for a line of a trailer section.
func (r Rules) DropFromTrailer(line []byte, to Direction) bool {
	name := http1.LineName(line)
	return http1.ForbiddenInTrailer(name) || r.Drop(http1.NameOf(name), name, to)
}
