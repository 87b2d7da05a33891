package proxy

import (
	"bytes"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"sluice/balancer"
	"sluice/observe/tracing"
	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/refusal"
	"sluice/proxy/reserved"
	"sluice/proxy/socket"
	"sluice/route"
)

// A request is what its client has sent, and what is known about it from that and from its
// connection: the first part of an exchange. What is large and has no pointers comes last.
type request struct {
	client  *client
	routing *routing // by which it has its route; nil: none yet

	// in[start:end] begins with the head. It does not move while the request is served.
	in         []byte         // small, or the bytes of large
	large      *socket.Buffer // see growTo; nil: none
	requestID  []byte         // in ownRequestID or in the head; empty: none
	startTime  time.Time
	deadline   time.Time // when the client of a gRPC call no longer waits; zero: unknown
	start, end int
	headLength int    // 0: the head is incomplete
	bodyLength int    // of the part of the body that is in the buffer
	streaming  bool   // the body is not in memory, or only its start
	endpoint   uint32 // by its route; see [route.Route.Endpoint]
	upgrade    bool   // the client asks for another protocol; of HTTP/2: by an extended CONNECT
	// deadlineFirst: the timeout that runs is the client's.
	deadlineFirst atomic.Bool

	identity clientIdentity
	steps    route.Steps
	// Without pointers, except the pointer to unusually many fields.
	head http1.RequestHead
	// webSocketKey is valid if upgrade is set and the client uses HTTP/2.
	webSocketKey webSocketKey
	ownRequestID [requestIDBytes]byte
	span         tracing.Span
	small        [socket.SmallRequestBytes]byte
}

// open prepares x for requests of c.
func (x *request) open(c *client) {
	x.client = c
	x.in, x.start, x.end = x.small[:], 0, 0
	x.reset()
}

// reset prepares x for the next request.
func (x *request) reset() {
	x.client.takeOptions()
	x.head.Reset(int(x.client.options.Limits.TargetBytes), x.client.options.Limits.Fields)
	x.headLength, x.bodyLength, x.streaming, x.upgrade = 0, 0, false, false
}

// bytes returns what has arrived. It begins with the head.
func (x *request) bytes() []byte { return x.in[x.start:x.end] }

// growTo moves the request to a buffer of at least that many bytes, up to socket.RelayBufferBytes.
func (x *request) growTo(bytes int) {
	larger := socket.NewBuffer(max(bytes, socket.RequestBufferBytes))
	copy(larger.Bytes, x.in[:x.end])
	x.dropLarge()
	x.large, x.in = larger, larger.Bytes
}

func (x *request) dropLarge() {
	if x.large != nil {
		x.large.Free()
		x.large, x.in = nil, x.small[:]
	}
}

// space returns the free part of the buffer, which is never empty.
func (x *request) space() []byte {
	if x.start > 0 && (x.end == len(x.in) || x.headLength > 0) {
		x.end = copy(x.in, x.in[x.start:x.end])
		x.start = 0
	}
	if x.end == len(x.in) {
		x.growTo(len(x.in) + 1)
	}
	return x.in[x.end:]
}

type scanResult uint8

const (
	scanIncomplete scanResult = iota // more bytes are needed
	scanWhole                        // a request with its body is in the buffer
	scanStreaming                    // a head is in the buffer; the body is forwarded while it is read
	scanRefused                      // the request is malformed
	scanHTTP2                        // the client uses HTTP/2
)

// scan scans the request in the buffer. The error belongs to scanRefused.
func (x *request) scan() (scanResult, error) {
	if x.start == x.end {
		return scanIncomplete, nil
	}
	limits := &x.client.options.Limits
	if x.headLength == 0 {
		n, err := x.head.Scan(x.in[x.start:min(x.end, x.start+int(limits.HeadBytes))])
		if err == nil && n == 0 && x.end-x.start >= int(limits.HeadBytes) {
			err = http1.ErrHeadTooLong
		}
		if err != nil {
			if x.client.mayPreface && err == http1.ErrMethodRefused {
				if result := x.scanPreface(); result != scanRefused {
					return result, nil
				}
			}
			return scanRefused, err
		}
		if n == 0 {
			return scanIncomplete, nil
		}
		x.headLength = n
	}
	x.upgrade = x.asksForUpgrade()
	if !x.head.HasBody() {
		return x.whole(), nil
	}
	if limits.BodyBytes > 0 && x.head.ContentLength > int64(limits.BodyBytes) {
		return scanRefused, http1.ErrBodyTooLong
	}
	arrived := x.end - x.start - x.headLength
	switch {
	case x.head.ExpectContinue:
	case x.head.Chunked:
	case x.head.ContentLength > int64(socket.RequestBufferBytes-x.headLength):
	case int64(arrived) < x.head.ContentLength:
		return scanIncomplete, nil
	default:
		x.bodyLength = int(x.head.ContentLength)
		return x.whole(), nil
	}
	x.streaming = true
	return scanStreaming, nil
}

// whole returns the result of scan for a request that is in the buffer. A tunnel may follow an
// upgrade: then more is read from the client, as for a body.
func (x *request) whole() scanResult {
	if x.upgrade {
		return scanStreaming
	}
	return scanWhole
}

// scanPreface scans the preface of HTTP/2, which is no valid request of HTTP/1.
func (x *request) scanPreface() scanResult {
	b, limits := x.in[x.start:x.end], &x.client.options.Limits
	n := min(len(b), len(http2.Preface))
	switch {
	case string(b[:n]) != http2.Preface[:n]:
		return scanRefused
	case n < len(http2.Preface):
		x.head.Reset(int(limits.TargetBytes), limits.Fields)
		return scanIncomplete
	}
	return scanHTTP2
}

// The conditions of routes see the request as a [route.Request].

func (x *request) Method() []byte { return x.head.MethodName(x.bytes()) }

// Field does not return fields that are not forwarded because the client is not trusted to
// send them, or because a peer may take them for another one.
func (x *request) Field(name string, from int) (value []byte, next int) {
	b, fields := x.bytes(), x.head.Fields()
	for i := from; i < len(fields); i++ {
		if f := fields[i]; http1.EqualFold(f.FieldName(b), name) && !x.ignores(f) {
			return f.Value(b), i + 1
		}
	}
	return nil, -1
}

func (x *request) ignores(f http1.Field) bool {
	switch reserved.Names[f.Name] {
	case reserved.OfProxies, reserved.OfSluice, reserved.LikeAnother:
		return x.reserved().Drop(f.Name, f.FieldName(x.bytes()), reserved.ToPeers)
	}
	return false
}

func (x *request) Query() []byte {
	_, query, _ := bytes.Cut(x.head.OriginTarget(x.bytes()), questionMark)
	return query
}

var questionMark, ampersand = []byte("?"), []byte("&")

// Scheme implements route.Request: what who sent the request used, http or https.
func (x *request) Scheme() string {
	if x.identity.secure {
		return "https"
	}
	return "http"
}

// Client implements route.Request.
func (x *request) Client() netip.Addr { return x.identity.client }

// Listener implements [route.Request]: the name that the listener has for the routes.
func (x *request) Listener() string {
	l := x.client.listener
	if name, ok := x.routing.names[l.Listener]; ok {
		return name
	}
	return l.Name
}

// Certificate implements route.Request.
func (x *request) Certificate() *route.Certificate { return x.identity.certificate }

// Steps implements [route.Request].
func (x *request) Steps() *route.Steps { return &x.steps }

// wantsJSON reports whether the client asks for JSON.
func (x *request) wantsJSON() bool {
	return x.headLength > 0 && refusal.WantsJSON(x.head.Find(x.bytes(), http1.NameAccept))
}

// sentOnce returns the value of the field with that name, or nil if there are several.
func (x *request) sentOnce(name http1.Name) (value []byte) {
	for _, f := range x.head.Fields() {
		if f.Name != name {
			continue
		}
		if value != nil {
			return nil
		}
		value = f.Value(x.bytes())
	}
	return value
}

// affinity returns the Query.Hash of the request whose head is b for one of peers: the id in its
// cookie, or a hash of the first key that the request has. 0: the request has none.
func affinity(x *request, a *route.Affinity, peers []*balancer.Peer, b []byte) uint64 {
	if a.Cookie != "" {
		return stickyID(x, a.Cookie, peers, b)
	}
	for i := range a.Keys {
		if value := hashKey(x, &a.Keys[i], b); len(value) > 0 {
			return max(1, xxhash.Sum64(value))
		}
	}
	return 0
}

// stickyCookies bounds the cookies of one name that are compared with the peers.
const stickyCookies = 8

// stickyID returns the id in the sticky cookie of that name, or 0. Of several, as a client has them
// from services at other paths, it is the first that names one of peers.
func stickyID(x *request, name string, peers []*balancer.Peer, b []byte) uint64 {
	var ids [stickyCookies]uint64
	n := 0
	eachCookie(x, name, b, func(value []byte) bool {
		if id, err := parseStickyID(value); err == nil {
			ids[n] = id
			n++
		}
		return n < len(ids)
	})
	for _, id := range ids[:n] {
		if n == 1 || slices.ContainsFunc(peers, func(p *balancer.Peer) bool { return p.StickyID() == id }) {
			return id
		}
	}
	return 0
}

// hashKey returns the value of the key in the request, or an empty slice.
func hashKey(x *request, k *route.HashKey, b []byte) []byte {
	switch k.Source {
	case route.HashClientAddress:
		if !x.identity.client.IsValid() {
			return nil
		}
		return x.clientAddress()
	case route.HashPath:
		return x.head.Path(b)
	case route.HashHeader:
		value, _ := x.Field(k.Name, 0)
		return value
	case route.HashCookie:
		return cookie(x, k.Name, b)
	case route.HashQuery:
		return queryParameter(x.head.OriginTarget(b), k.Name)
	}
	return nil
}

// cookie returns the value of the first cookie with that name, or nil (RFC 6265,
// section 4.2.1).
func cookie(x *request, name string, b []byte) (first []byte) {
	eachCookie(x, name, b, func(value []byte) bool {
		first = value
		return false
	})
	return first
}

// eachCookie calls do with the values of the cookies with that name, in order, until it returns
// false.
func eachCookie(x *request, name string, b []byte, do func(value []byte) bool) {
	for _, f := range x.head.Fields() {
		if f.Name != http1.NameCookie {
			continue
		}
		for pair := range bytes.SplitSeq(f.Value(b), semicolon) {
			pair = bytes.TrimLeft(pair, " \t")
			if len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
				if !do(bytes.TrimRight(pair[len(name)+1:], " \t")) {
					return
				}
			}
		}
	}
}

var semicolon = []byte(";")

// queryParameter returns the undecoded value of the first parameter with that name
// in the query of target, or nil.
func queryParameter(target []byte, name string) []byte {
	_, query, _ := bytes.Cut(target, questionMark)
	for pair := range bytes.SplitSeq(query, ampersand) {
		if len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
			return pair[len(name)+1:]
		}
	}
	return nil
}

// hops returns how many times the request has passed any sluice.
func hops(x *request, b []byte) int {
	n := 0
	for element := range x.head.Elements(b, http1.NameVia) {
		// RFC 9110, section 7.6.3: protocol, pseudonym, optional comment.
		_, by, _ := bytes.Cut(element, space)
		by, _, _ = bytes.Cut(by, space)
		if http1.EqualFold(by, "sluice") {
			n++
		}
	}
	return n
}

var space = []byte(" ")

// addresses returns the number of addresses in X-Forwarded-For.
func addresses(x *request, b []byte) int {
	n := 0
	for range x.head.Elements(b, http1.NameXForwardedFor) {
		n++
	}
	return n
}

// maxForwards returns the Max-Forwards field, or -1 (RFC 9110, section 7.6.2).
func maxForwards(x *request) int {
	value := x.head.Find(x.in[x.start:x.end], http1.NameMaxForwards)
	left, err := strconv.Atoi(string(value))
	if err != nil || left < 0 {
		return -1
	}
	return left
}

// reserved returns which fields of others do not pass.
func (x *request) reserved() reserved.Rules {
	return reserved.Rules{
		Trusted: x.identity.trusted, RequestID: len(x.requestID) > 0, Span: !x.span.ID.IsZero(),
		NewTrace: !x.span.ID.IsZero() && !x.span.Continues(), Deadline: !x.deadline.IsZero(),
		HSTS: x.client.listener.StrictTransportSecurity != "", AltSvc: x.client.listener.alternativeServices() != "",
		DropUnderscores: !x.identity.grpc && !x.client.options.KeepUnderscores,
	}
}
