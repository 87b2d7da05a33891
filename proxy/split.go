package proxy

import (
	"math/rand/v2"
	"strconv"

	"sluice/route"
)

// chooseTarget returns what the request whose head is b gets of a route with targets.
func (x *httpExchange) chooseTarget(w *route.Weighted, b []byte) *route.Route {
	var memory [16]byte
	return w.Choose(x.clientKey(w.Key, b, memory[:0])).Route
}

// chooseGroup sets the group of the service's peers for the request whose head is b.
func (x *httpExchange) chooseGroup(s *route.Split, b []byte) {
	var memory [16]byte
	group, id := s.Assign(x.clientKey(s.Key, b, memory[:0]))
	if x.query.Group = group.ID(); s.Judged {
		x.query.Client = max(1, uint32(id))
	}
	if s.Fallback != nil {
		x.query.Fallback = s.Fallback.ID()
	}
}

// clientKey returns what identifies the client of the request whose head is b, or nothing. It
// may append to memory. A client without the cookie that does gets one.
func (x *httpExchange) clientKey(k route.SplitKey, b, memory []byte) []byte {
	switch k.Source {
	case route.SplitCookie:
		if client := x.cookie(route.SplitCookieName, b); len(client) > 0 {
			return client
		}
		if x.newClient == 0 {
			x.newClient = max(1, rand.Uint64())
		}
		return x.appendClientID(memory)
	case route.SplitHeader:
		return x.head.FindOther(b, k.Header)
	case route.SplitClientAddress:
		return x.clientAddress()
	}
	return nil
}

func (x *httpExchange) appendClientID(out []byte) []byte {
	return strconv.AppendUint(out, x.newClient, 36)
}

// appendSplitCookie appends the value of a Set-Cookie field with the new id of the
// client. A browser drops it when it closes.
func (x *httpExchange) appendSplitCookie(out []byte) []byte {
	out = append(out, route.SplitCookieName+"="...)
	out = append(x.appendClientID(out), "; Path=/; HttpOnly; SameSite=Lax"...)
	if x.standing.secure {
		out = append(out, "; Secure"...)
	}
	return out
}
