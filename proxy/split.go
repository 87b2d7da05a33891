package proxy

import (
	"math/rand/v2"
	"strconv"

	"sluice/route"
)

// chooseGroup sets the group of the service's peers for the request whose head is b.
func (x *httpExchange) chooseGroup(s *route.Split, b []byte) {
	var client []byte
	var memory [16]byte
	switch s.Key.Source {
	case route.SplitCookie:
		if client = x.cookie(route.SplitCookieName, b); len(client) == 0 {
			x.newClient = max(1, rand.Uint64())
			client = x.appendClientID(memory[:0])
		}
	case route.SplitHeader:
		client = x.head.FindOther(b, s.Key.Header)
	case route.SplitClientAddress:
		client = x.clientAddress(b)
	}
	group, id := s.Assign(client)
	if x.query.Group = group.ID(); s.Judged {
		x.query.Client = max(1, uint32(id))
	}
	if s.Fallback != nil {
		x.query.Fallback = s.Fallback.ID()
	}
}

func (x *httpExchange) appendClientID(out []byte) []byte {
	return strconv.AppendUint(out, x.newClient, 36)
}

// appendSplitCookie appends the value of a Set-Cookie field with the new id of the
// client. A browser drops it when it closes.
func (x *httpExchange) appendSplitCookie(out []byte) []byte {
	out = append(out, route.SplitCookieName+"="...)
	return append(x.appendClientID(out), "; Path=/; HttpOnly; SameSite=Lax"...)
}
