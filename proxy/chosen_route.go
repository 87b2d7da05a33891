package proxy

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"sluice/balancer"
	"sluice/route"
	"sluice/route/ratelimit"
)

// A chosenRoute is the route of a request, and what it has decided: the second part of an exchange.
type chosenRoute struct {
	request      *request
	sent         sentFields      // the request, as the discovery chain sees it
	matched      *route.Route    // nil: none
	divided      *route.Weighted // what has chosen matched; nil: the route has no targets
	way          *route.Route    // where its discovery chain leads; without, matched
	splitter     *route.Weighted // what has chosen way; nil: it is not one of several
	service      *route.Service
	actions      *route.Actions // of way
	target       []byte         // after the edits of the path; empty: as the client sent it
	authorized   []byte         // field lines from the token and the server
	clientFields []byte         // field lines of the authentication server, for the client
	group        string         // that the authentication server has chosen; "": none
	user         string         // who sent the request, if the route authenticates
	query        balancer.Query
	charged      []*ratelimit.Limiter // that have counted the request
	newClient    uint64               // its id in route.SplitCookieName; 0: none
	chances      *chances             // of a request that nobody sends; nil: chance decides
	stripped     bool                 // the route has removed its prefix from the path
	targetChosen bool                 // the authentication server has chosen of divided
}

// appendStickyCookie appends the Set-Cookie field with the id of the peer, unless
// the client has this cookie already.
func (x *chosenRoute) appendStickyCookie(out []byte, peer *balancer.Peer) []byte {
	a := x.service.Affinity
	id := peer.StickyID()
	if a.Cookie == "" || id == x.query.Hash && !a.RefreshCookie {
		return out
	}
	out = append(out, "Set-Cookie: "...)
	out = append(out, a.Cookie...)
	out = append(out, '=')
	out = strconv.AppendUint(out, id, 36)
	out = append(out, a.CookieAttributes...)
	if a.SecureCookie || x.request.identity.secure {
		out = append(out, "; Secure"...)
	}
	return append(out, "\r\n"...)
}

// parseStickyID reads what appendStickyCookie writes.
func parseStickyID(value []byte) (uint64, error) {
	return strconv.ParseUint(unsafe.String(unsafe.SliceData(value), len(value)), 36, 64)
}

// chooseTarget returns what the request whose head is b gets of a route with targets.
func (x *chosenRoute) chooseTarget(w *route.Weighted, b []byte) *route.Route {
	if x.chances.decide(x, w.Key) {
		return x.chances.target(w)
	}
	var memory [16]byte
	return w.Choose(x.clientKey(w.Key, b, memory[:0])).Route
}

// chooseGroup sets the group of the service's peers for the request whose head is b.
func (x *chosenRoute) chooseGroup(s *route.Split, b []byte) {
	var memory [16]byte
	group, id := s.Assign(x.clientKey(s.Key, b, memory[:0]))
	if x.chances.decide(x, s.Key) {
		group = x.chances.group(s)
	}
	x.query.Group, x.query.Client = group.ID(), s.JudgedClient(id)
	if s.Fallback != nil {
		x.query.Fallback = s.Fallback.ID()
	}
}

// takeGroup takes the group that the authentication server has chosen, and reports whether s, which
// may be nil, has it.
func (x *chosenRoute) takeGroup(s *route.Split) bool {
	if s == nil {
		return false
	}
	all := s.All()
	i := slices.IndexFunc(all, func(share route.Share) bool { return share.Group.Name() == x.group })
	if i < 0 {
		return false
	}
	x.query.Group = all[i].Group.ID()
	if s.Fallback != nil {
		x.query.Fallback = s.Fallback.ID()
	}
	return true
}

// clientKey returns what identifies the client of the request whose head is b, or nothing. It
// may append to memory. A client without the cookie that does gets one.
func (x *chosenRoute) clientKey(k route.SplitKey, b, memory []byte) []byte {
	switch k.Source {
	case route.SplitCookie:
		if client := cookie(x.request, route.SplitCookieName, b); len(client) > 0 {
			return client
		}
		if x.newClient == 0 {
			x.newClient = max(1, rand.Uint64())
		}
		return x.appendClientID(memory)
	case route.SplitHeader:
		return x.request.head.FindOther(b, k.Header)
	case route.SplitClientAddress:
		return x.request.clientAddress()
	}
	return nil
}

func (x *chosenRoute) appendClientID(out []byte) []byte {
	return strconv.AppendUint(out, x.newClient, 36)
}

// appendSplitCookie appends the Set-Cookie field with the new id of the client. A browser drops it
// when it closes.
func (x *chosenRoute) appendSplitCookie(out []byte) []byte {
	out = append(out, "Set-Cookie: "+route.SplitCookieName+"="...)
	out = append(x.appendClientID(out), "; Path=/; HttpOnly; SameSite=Lax"...)
	if x.request.identity.secure {
		out = append(out, "; Secure"...)
	}
	return append(out, "\r\n"...)
}

// decideFor completes the identity for a request to a service, which may be nil.
func (x *chosenRoute) decideFor(service *route.Service) {
	x.request.identity.grpc = x.request.asksForGRPC() && (service == nil || service.HTTP2)
}

// pause returns the longest pause in a body, for the peer. A stream of gRPC may be silent as long
// as a tunnel.
func (x *chosenRoute) pause() time.Duration {
	if x.request.identity.grpc {
		return max(x.service.Timeouts.Idle, x.service.Timeouts.Tunnel)
	}
	return x.service.Timeouts.Idle
}

// bodyPause returns the timeout of a pause in the response's body.
func (x *chosenRoute) bodyPause() time.Duration { return x.request.withinDeadline(x.pause()) }
