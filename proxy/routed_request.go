package proxy

import (
	"bytes"
	"net/netip"
	"unsafe"

	"sluice/proxy/http1"
)

// routedRequest is the request of an exchange as the conditions of routes see it. It
// implements [route.Request].
type routedRequest httpExchange

func (r *routedRequest) bytes() []byte { return r.in[r.start:r.end] }

func (r *routedRequest) Method() []byte { return r.head.MethodName(r.bytes()) }

// Field does not return fields that are not forwarded because the client is not trusted
// to send them: those of proxies, and those with an underscore, which a peer may take for
// another one.
func (r *routedRequest) Field(name string, from int) (value []byte, next int) {
	b, fields := r.bytes(), r.head.Fields()
	for i := from; i < len(fields); i++ {
		f := &fields[i]
		if http1.EqualFold(f.FieldName(b), name) && !r.ignores(f) {
			return f.Value(b), i + 1
		}
	}
	return nil, -1
}

func (r *routedRequest) ignores(f *http1.Field) bool {
	switch f.Name {
	case http1.NameXForwardedClientCert:
		return true
	case http1.NameXForwardedFor, http1.NameXForwardedHost, http1.NameXForwardedProto, http1.NameXForwardedPort,
		http1.NameXRealIP, http1.NameForwarded, http1.NameXSluiceMirror:
		return !r.client.trusted
	case http1.NameUnderscore:
		return !r.client.options.KeepUnderscores
	}
	return false
}

func (r *routedRequest) Query() []byte {
	_, query, _ := bytes.Cut(r.head.OriginTarget(r.bytes()), questionMark)
	return query
}

var questionMark = []byte("?")

// Scheme returns what the client used, to the proxy before this one if that is trusted.
func (r *routedRequest) Scheme() string {
	if x := (*httpExchange)(r); r.client.trusted && r.head.Has(http1.NameXForwardedProto) {
		if x.cameByHTTPS(r.bytes()) {
			return "https"
		}
		return "http"
	}
	return r.client.scheme()
}

func (r *routedRequest) Client() netip.Addr {
	if !r.client.trusted {
		return r.client.remote
	}
	text := (*httpExchange)(r).clientAddress(r.bytes())
	address, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(text), len(text))) // does not retain text
	if err != nil {
		return r.client.remote
	}
	return address.Unmap().WithZone("")
}

func (r *routedRequest) Listener() string { return r.client.listener.name }
