package proxy

import (
	"bytes"
	"strconv"

	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
)

// redirectToHTTPS answers the request with the same URL on the HTTPS port of the
// listener, and reports whether the client got the answer. The client must not change
// the method.
func (x *httpExchange) redirectToHTTPS() bool {
	b := x.in[x.start:x.end]
	host := withoutPort(x.head.Authority(b))
	if len(host) == 0 {
		return x.refuse(refusal.NoHost)
	}
	location := append([]byte("https://"), host...)
	if port := x.client.listener.httpsPort; port != 443 {
		location = append(location, ':')
		location = strconv.AppendInt(location, int64(port), 10)
	}
	target := x.head.OriginTarget(b)
	if len(target) == 0 || target[0] != '/' { // empty, a query only, or *
		location = append(location, '/')
	}
	if !bytes.Equal(target, []byte("*")) {
		location = append(location, target...)
	}
	if len(location) > socket.RequestBufferBytes {
		return x.refuse(refusal.Of(http1.ErrTargetTooLong))
	}
	return x.refuse(refusal.HTTPS, [2]string{"Location", string(location)})
}

// withoutPort returns the host of an authority.
func withoutPort(authority []byte) []byte {
	if i := bytes.LastIndexByte(authority, ':'); i > bytes.LastIndexByte(authority, ']') {
		return authority[:i]
	}
	return authority
}
