package proxy

import (
	"sync"
	"time"

	"sluice/balancer"
	"sluice/http1"
	"sluice/route"
)

// statusClientGone stands in the access log and the metrics where the client
// went away before there was an answer, as in nginx.
const statusClientGone = 499

// An httpExchange is one HTTP/1 request on its way through and its response,
// with the memory that takes. A connection has one while something of a request
// is there.
type httpExchange struct {
	client *clientConn

	// The request, as it stands in the buffer: in[start:end] begins with its
	// head, of headLength bytes once the head is complete.
	in         [requestBufferBytes]byte
	start, end int
	head       http1.RequestHead
	headLength int
	bodyLength int     // how much of the body is in the buffer
	body       []byte  // as a whole, in the buffer or in kept
	kept       *buffer // holds a body that does not fit the buffer; else nil
	streaming  bool    // the body is not in body
	upgrade    bool    // the client asks for another protocol

	service  *route.Service
	query    balancer.Query
	token    balancer.Token
	tries    int
	pending  *upstreamConn // of a try that returned without an outcome
	suspects bool          // …because checks say that the peer does not work
	picked   time.Time     // when token was
	// firstPicked is when the first peer was: what came before, such as a body that
	// is kept, took the client's time.
	firstPicked time.Time
	upload      upload

	uploadSplicer splicer
	peerWriter    writer // of a body that is not in body, and its head

	// The response.
	response http1.ResponseHead
	from     [responseBufferBytes]byte
	framing  framing
	splicer  splicer
	// clientWriter notes in its pace whether the client has been waited for to
	// take something of this exchange.
	clientWriter writer
	keepClient   bool // the client's connection is kept after this exchange
	begun        bool // the client has got a byte of a response
	answered     bool // that of a final one, not only of an interim one
	out          []byte

	// For the access log and the metrics.
	startTime     time.Time
	status        int
	bytesIn       int64 // of the request's body
	bytesOut      int64 // of the response's body
	connectTime   time.Duration
	upstreamTime  time.Duration
	refused       string // the reason of an answer of sluice's own
	interrupted   string // why a response ended before its end
	lastRefusal   *refusal
	mayReplaySent bool // the method allows sending the request twice
	touched       bool // a peer may have seen some of the request
}

var exchanges = sync.Pool{New: func() any {
	return &httpExchange{out: make([]byte, 0, outputBufferBytes)}
}}

func acquireExchange(c *clientConn) *httpExchange {
	x := exchanges.Get().(*httpExchange)
	x.client = c
	x.start, x.end = 0, 0
	x.resetRequest()
	return x
}

func releaseExchange(x *httpExchange) {
	x.client, x.service, x.token = nil, nil, balancer.Token{}
	x.upload.behind = nil
	x.dropBody()
	x.query = balancer.Query{}
	if cap(x.out) > 2*outputBufferBytes {
		x.out = make([]byte, 0, outputBufferBytes)
	}
	exchanges.Put(x)
}

func (x *httpExchange) resetRequest() {
	x.head.Reset(x.client.server.options.Limits.TargetBytes)
	x.headLength, x.bodyLength, x.streaming, x.upgrade = 0, 0, false, false
}

// next goes on to the bytes after a request that has been served.
func (x *httpExchange) next() {
	x.start += x.headLength + x.bodyLength
	if x.start == x.end {
		x.start, x.end = 0, copy(x.in[:], x.upload.behind)
		x.upload.behind = nil
	}
	x.dropBody()
	x.resetRequest()
}

func (x *httpExchange) dropBody() {
	x.body = nil
	if x.kept == nil {
		return
	}
	if len(x.kept.bytes) == relayBufferBytes {
		relayBuffers.Put(x.kept)
	}
	x.kept = nil
}

// space returns the room for more bytes of the client, never none.
func (x *httpExchange) space() []byte {
	if x.start > 0 && (x.end == len(x.in) || x.headLength > 0) {
		x.end = copy(x.in[:], x.in[x.start:x.end])
		x.start = 0
	}
	return x.in[x.end:]
}
