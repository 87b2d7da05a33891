package proxy

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"time"

	"sluice/proxy/fields"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/reserved"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
)

// What requests of HTTP/2 and HTTP/3 have in common, each of which has a stream of its own.

var streamExchanges = sync.Pool{New: func() any { return newExchange() }}

// streamListBytes is the limit of a field list, unless that of heads is higher.
const streamListBytes = 32 << 10

// listBytes returns the limit of field lists of HTTP/2 and HTTP/3, by the size of
// SETTINGS_MAX_HEADER_LIST_SIZE and SETTINGS_MAX_FIELD_SECTION_SIZE.
func (l *Limits) listBytes() int {
	return max(streamListBytes, fields.ListBytes(int(l.HeadBytes), l.Fields))
}

// A streamBody is the body of the request of a stream.
type streamBody interface {
	// awaitBody waits for a part of the body, or its end. While it waits, b is given back.
	awaitBody(b *socket.Buffers, timeout time.Duration) error
	// takeBody moves bytes of the body that have arrived to b, and returns their number. At the
	// end it also returns the trailer section.
	takeBody(b []byte) (n int, last bool, trailer []byte, err error)
	// wholeBody returns the length of the body if all of it arrives soon, without a trailer
	// section; else -1.
	wholeBody() int64
}

// A streamSide has the methods that are the same in all downstreams that are no connection: their
// end does what is necessary, such as to reset a stream whose response has no end, and nothing is
// spliced. It implements downstream and sweepOwner of package socket in part.
type streamSide struct{}

func (streamSide) begin()                                        {}
func (streamSide) keepsOpen() bool                               { return true }
func (streamSide) closeAfterAnswer()                             {}
func (streamSide) cut(int64)                                     {}
func (streamSide) SourceSocket() (socket.Side, *transfer.Reader) { return socket.Side{}, nil }
func (streamSide) SinkSocket() (socket.Side, *socket.Pace)       { return socket.Side{}, nil }
func (streamSide) OnSweep(int64) int64                           { return socket.Never }

// scanStream scans the head whose text is in x, and reads a body that fits the buffer. opens: the
// request is an extended CONNECT.
func scanStream(x *exchange, from streamBody, opens bool) error {
	x.request.upgrade = opens
	n, err := x.request.head.Scan(x.request.in[:x.request.end])
	if err != nil {
		text := x.request.in[:x.request.end]
		method, _, _ := bytes.Cut(text, space)
		// The scan has not seen all fields.
		x.request.setKind(method, http1.TrailerField(text, "content-type"))
		return err
	}
	x.request.headLength = n
	if x.request.upgrade {
		return offerWebSocket(&x.request)
	}
	if !x.request.head.HasBody() {
		return nil
	}
	length := x.request.head.ContentLength
	if length < 0 && x.request.asksForGRPC() {
		length = from.wholeBody()
	}
	options := x.request.client.options
	if most := int64(options.Limits.BodyBytes); most > 0 && length > most {
		return http1.ErrBodyTooLong
	}
	if x.request.streaming = true; length < 0 || x.request.head.ExpectContinue || length > int64(socket.RequestBufferBytes-n) {
		return nil
	}
	end := n + int(length)
	for last := false; !last; {
		if err := from.awaitBody(&x.body.buffers, options.Timeouts.Body); err != nil {
			return err
		}
		// Not before there are bytes.
		if x.request.end == len(x.request.in) && x.request.end < end {
			x.request.growTo(x.request.end + 1)
		}
		var read int
		read, last, x.body.trailer, err = from.takeBody(x.request.in[x.request.end:min(end, len(x.request.in))])
		if err != nil {
			return err
		}
		x.request.end += read
	}
	x.request.bodyLength, x.request.streaming = int(length), false
	return nil
}

// refuseUnscanned answers a request that scanStream has refused with err, unless its client is
// gone. late is the refusal of one that did not arrive in time.
func (x *exchange) refuseUnscanned(err error, late *refusal.Refusal) {
	if err == socket.ErrClosedEarly {
		return
	}
	x.begin()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		x.refuse(late)
	} else {
		x.refuse(ofMalformed(err))
	}
}

// readStreamBody implements ReadBody of a source for a stream.
func readStreamBody(x *exchange, from streamBody, b *socket.Buffers) (transfer.Piece, error) {
	if err := from.awaitBody(b, x.bodyTimeout()); err != nil {
		return transfer.Piece{}, err
	}
	b.Borrow()
	n, last, trailer, err := from.takeBody(b.From)
	if err != nil {
		return transfer.Piece{}, err
	}
	return transfer.Piece{Text: b.From[:n], Length: int64(n), Last: last, Trailer: trailer}, nil
}

// writePatience is how long a write to a stream may wait from now on; 0: no longer. moved: the
// client has taken bytes since the last call. A tunnel waits as long as bytes move in the other
// direction; nil: there is none.
func (c *client) writePatience(t *socket.Tunnel, moved bool) time.Duration {
	switch {
	case t != nil:
		if moved {
			t.Touch()
		}
		return t.Left(c.server.sweeper.Exact())
	case moved:
		return c.options.Timeouts.Write
	}
	return 0
}

// bodyTimeout is how long the client may pause within the body of its request. A stream of gRPC may
// be silent as long as a tunnel.
func (x *exchange) bodyTimeout() time.Duration {
	timeout := x.request.client.options.Timeouts.Body
	if x.request.identity.grpc && x.route.service != nil {
		return max(timeout, x.route.service.Timeouts.Tunnel)
	}
	return timeout
}

// A fieldCoding is how fields are encoded: [hpackCoding] or [qpackCoding].
type fieldCoding bool

const (
	hpackCoding fieldCoding = false // of HTTP/2
	qpackCoding fieldCoding = true  // of HTTP/3
)

func (c fieldCoding) appendStatus(out []byte, status int) []byte {
	if c == qpackCoding {
		return fields.AppendQPACKStatus(out, status)
	}
	return fields.AppendHPACKStatus(out, status)
}

func (c fieldCoding) appendField(out, name, value []byte) []byte {
	if c == qpackCoding {
		return fields.AppendQPACKField(out, name, value)
	}
	return fields.AppendHPACKField(out, name, value)
}

var (
	hstsName      = []byte("strict-transport-security")
	altSvcName    = []byte("alt-svc")
	requestIDName = []byte("x-request-id")
)

// appendHeadFields appends the fields of the response of a peer, whose head is text, and those that
// sluice adds.
func (x *exchange) appendHeadFields(out, text []byte, c fieldCoding) []byte {
	out = x.appendFields(out, text, false, c)
	if x.answer.response.Interim() { // a route that asks for a body may have no service
		return out
	}
	if x.route.service.Affinity != nil || x.route.newClient != 0 {
		var memory [640]byte
		for line := range http1.Lines(x.tries.appendCookies(memory[:0])) {
			out = c.appendField(out, http1.LineName(line), http1.LineValue(line))
		}
	}
	return out
}

// appendFields appends the fields of the response whose head is text. own: sluice has written it,
// with X-Sluice-Reason.
func (x *exchange) appendFields(out, text []byte, own bool, c fieldCoding) []byte {
	head := &x.answer.response
	status := head.Status
	if status == 101 {
		status = 200 // RFC 8441, section 5, and RFC 9220
	}
	out = c.appendStatus(out, status)
	for _, f := range head.Fields() {
		if reserved.Names[f.Name] != reserved.Free && x.answer.dropsField(f, text, x.request.head.TETrailers) && !(own && f.Name == http1.NameXSluice) || f.Nominated || head.Status == 101 && http1.EqualFold(f.FieldName(text), webSocketAccept) {
			continue
		}
		out = c.appendField(out, f.FieldName(text), f.Value(text))
	}
	if head.Interim() {
		return out
	}
	var memory [128]byte
	listener := x.request.client.listener
	if hsts := listener.StrictTransportSecurity; hsts != "" {
		out = c.appendField(out, hstsName, append(memory[:0], hsts...))
	}
	if services := listener.alternativeServices(); services != "" {
		out = c.appendField(out, altSvcName, append(memory[:0], services...))
	}
	if id := x.request.requestID; len(id) > 0 {
		out = c.appendField(out, requestIDName, id)
	}
	return out
}

// isWhole implements downstream for both. A trailer section may follow, for a client that accepts
// one.
func (x *exchange) isWhole(sent int64) bool {
	head, response := &x.request.head, &x.answer.response
	return !head.TETrailers && (sent == response.ContentLength || sent == 0 && response.Bodiless(head.Method == http1.MethodHead))
}
