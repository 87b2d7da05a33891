package proxy

import (
	"bytes"
	"net/netip"
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
		return x.clientAddress(b)
	case route.HashPath:
		return x.head.Path(b)
	case route.HashHeader:
		return x.head.FindOther(b, k.Name)
	case route.HashCookie:
		return x.cookie(k.Name, b)
	case route.HashQuery:
		return queryParameter(x.head.OriginTarget(b), k.Name)
	}
	return nil
}

// clientAddress returns the client's IP address as text. If the client is a trusted
// proxy, it is the last address in X-Forwarded-For that is not trusted, or without that
// field the one in X-Real-IP.
func (x *httpExchange) clientAddress(b []byte) []byte {
	c := x.client
	address := unsafe.Slice(unsafe.StringData(c.address), len(c.address)) // only read
	if !c.trusted {
		return address
	}
	if !x.head.Has(http1.NameXForwardedFor) && x.head.Has(http1.NameXRealIP) {
		if ip := x.head.Find(b, http1.NameXRealIP); isAddress(ip) {
			return ip
		}
	}
	fields := x.head.Fields()
	for i := len(fields) - 1; i >= 0; i-- {
		if fields[i].Name != http1.NameXForwardedFor {
			continue
		}
		for list := fields[i].Value(b); len(list) > 0; {
			comma := bytes.LastIndexByte(list, ',')
			hop := bytes.Trim(list[comma+1:], " \t")
			list = list[:max(comma, 0)]
			ip, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(hop), len(hop))) // does not retain hop
			if err != nil {
				return address // the addresses before it are unknown
			}
			address = hop
			if !contains(c.options.TrustedProxies, ip.Unmap().WithZone("")) {
				return address
			}
		}
	}
	return address
}

// isAddress reports whether text is an IP address.
func isAddress(text []byte) bool {
	_, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(text), len(text))) // does not retain text
	return err == nil
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
	return append(out, "\r\n"...)
}

// parseStickyID reads what appendStickyCookie writes.
func parseStickyID(value []byte) (uint64, error) {
	return strconv.ParseUint(unsafe.String(unsafe.SliceData(value), len(value)), 36, 64)
}
