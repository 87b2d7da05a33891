package proxy

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"unsafe"

	"github.com/cespare/xxhash/v2"

	"sluice/proxy/http1"
	"sluice/route"
)

// affinity returns the Query.Hash of the request whose head is b: the id in its
// cookie, or a hash of the first key that the request has. 0: the request has none.
func (x *httpExchange) affinity(a *route.Affinity, b []byte) uint64 {
	if a.Cookie != "" {
		id, err := parseStickyID(x.cookie(a.Cookie, b))
		if err != nil {
			return 0
		}
		return id
	}
	for i := range a.Keys {
		if value := x.hashKey(&a.Keys[i], b); len(value) > 0 {
			return max(1, xxhash.Sum64(value))
		}
	}
	return 0
}

// hashKey returns the value of the key in the request, or an empty slice.
func (x *httpExchange) hashKey(k *route.HashKey, b []byte) []byte {
	switch k.Source {
	case route.HashClientAddress:
		if !x.standing.client.IsValid() {
			return nil
		}
		return x.clientAddress()
	case route.HashPath:
		return x.head.Path(b)
	case route.HashHeader:
		value, _ := (*routedRequest)(x).Field(k.Name, 0)
		return value
	case route.HashCookie:
		return x.cookie(k.Name, b)
	case route.HashQuery:
		return queryParameter(x.head.OriginTarget(b), k.Name)
	}
	return nil
}

// cookie returns the value of the first cookie with that name, or nil (RFC 6265,
// section 4.2.1).
func (x *httpExchange) cookie(name string, b []byte) []byte {
	fields := x.head.Fields()
	for i := range fields {
		if fields[i].Name != http1.NameCookie {
			continue
		}
		for pair := range bytes.SplitSeq(fields[i].Value(b), semicolon) {
			pair = bytes.TrimLeft(pair, " \t")
			if len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
				return bytes.TrimRight(pair[len(name)+1:], " \t")
			}
		}
	}
	return nil
}

var semicolon = []byte(";")

// queryParameter returns the undecoded value of the first parameter with that name
// in the query of target, or nil.
func queryParameter(target []byte, name string) []byte {
	_, query, _ := bytes.Cut(target, []byte("?"))
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte("&"))
		if len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
			return pair[len(name)+1:]
		}
	}
	return nil
}

// appendStickyCookie appends the Set-Cookie field with the id of the peer, unless
// the client has this cookie already.
func (x *httpExchange) appendStickyCookie(out []byte) []byte {
	a := x.service.Affinity
	id := x.token.Peer.StickyID()
	if a.Cookie == "" || id == x.query.Hash && !a.RefreshCookie {
		return out
	}
	out = append(out, "Set-Cookie: "...)
	out = append(out, a.Cookie...)
	out = append(out, '=')
	out = strconv.AppendUint(out, id, 36)
	out = append(out, a.CookieAttributes...)
	if a.SecureCookie || x.standing.secure {
		out = append(out, "; Secure"...)
	}
	return append(out, "\r\n"...)
}

// parseStickyID reads what appendStickyCookie writes.
func parseStickyID(value []byte) (uint64, error) {
	return strconv.ParseUint(unsafe.String(unsafe.SliceData(value), len(value)), 36, 64)
}

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
