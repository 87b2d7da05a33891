package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/balancer"
	"sluice/observe/tracing"
	"sluice/proxy/grpc"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/route/compression"
)

// An httpExchange is a request and its response, between a downstream and upstreams. The
// fields without pointers come last: the garbage collector does not scan them.
type httpExchange struct {
	client *client
	socket.Buffers

	// The request: in[start:end] begins with its head. It does not move while the
	// request is served.
	in         []byte         // small, or the bytes of large
	large      *socket.Buffer // see growTo; nil: none
	start, end int
	headLength int            // 0: the head is incomplete
	bodyLength int            // of the part of the body that is in the buffer
	body       []byte         // the whole body, in the buffer or in bodyBuffer; of a streamed one, what was kept
	bodyBuffer *socket.Buffer // for a body that does not fit the buffer; else nil
	streaming  bool           // the body is not in body, or only its start
	upgrade    bool           // the client asks for another protocol; of HTTP/2: by an extended CONNECT
	// bodyTrailer is the trailer section after body, in tries without its reserved fields.
	bodyTrailer []byte

	standing   standing
	matched    *route.Route // nil: none
	service    *route.Service
	actions    *route.Actions // of the route; nil: none
	target     []byte         // after the edits of the path; empty: as the client sent it
	authorized []byte         // field lines of the authentication server
	user       string         // who sent the request, if the route authenticates
	query      balancer.Query
	newClient  uint64 // the id that the client gets in route.SplitCookieName; 0: none
	token      balancer.Token
	tries      int
	tried      triedPeers
	held       upstream             // of the present try; nil: none, or it is finished
	contenders []*contender         // of a try that returned before the peer answered
	encoder    *compression.Encoder // of the response that is relayed; nil: it is not compressed
	flushDelay time.Duration        // see maxFlushDelay
	picked     time.Time            // when the peer of token was picked
	// firstPicked is when the first peer was picked, after the body was buffered.
	firstPicked time.Time
	upload      upload
	// deadline is when the client of a gRPC call no longer waits; zero: unknown.
	deadline time.Time
	// deadlineFirst: the timeout that runs is that of the client.
	deadlineFirst atomic.Bool

	serving  bool // begin was called, and account was not
	begun    bool // a byte of a response was sent
	answered bool // a byte of the final response was sent
	stripped bool // the route has removed its prefix from the path

	// For the access log and the metrics.
	startTime      time.Time
	requestID      []byte // in ownRequestID or in the head; empty: none
	status         int
	bytesIn        int64 // of the request's body
	bytesOut       int64 // of the response's body
	connectTime    time.Duration
	upstreamTime   time.Duration // from the start to the end of the response head
	upstreamStatus int           // of the peer's response; 0: none
	refused        string        // the reason of the refusal that was sent
	interrupted    string        // why the response is incomplete
	lastRefusal    *refusal.Refusal
	grpcCode       grpc.Code // of the response to a gRPC call; else grpc.Unset
	mayReplaySent  bool      // the method is idempotent
	touched        bool      // a peer may have received a part of the request
	counted        bool      // a tunnel has counted bytesIn and bytesOut in the metrics

	// Without pointers, except those to unusually many fields.
	head     http1.RequestHead
	response http1.ResponseHead
	// webSocketKey is valid if upgrade is set and the client uses HTTP/2.
	webSocketKey webSocketKey
	ownRequestID [requestIDBytes]byte
	span         tracing.Span
	small        [socket.SmallRequestBytes]byte
}

// open prepares a new exchange for requests of c.
func (x *httpExchange) open(c *client) {
	x.client = c
	x.in, x.start, x.end = x.small[:], 0, 0
	x.resetRequest()
}

// close releases what the exchange holds.
func (x *httpExchange) close() {
	x.dropBody()
	x.client, x.matched, x.service, x.actions, x.token = nil, nil, nil, nil, balancer.Token{}
	x.requestID, x.held, x.contenders = nil, nil, nil
	x.tried.clear()
	x.dropLarge()
	x.GiveBack()
	x.query = balancer.Query{}
}

// bodyRead reports whether the whole request was read.
func (x *httpExchange) bodyRead() bool { return !x.streaming || x.upload.read.Load() }

func (x *httpExchange) resetRequest() {
	x.client.takeOptions()
	x.head.Reset(x.client.options.Limits.TargetBytes, x.client.options.Limits.Fields)
	x.headLength, x.bodyLength, x.streaming, x.upgrade = 0, 0, false, false
}

// next prepares the exchange for the next request.
func (x *http1Exchange) next() {
	x.start += x.headLength + x.bodyLength
	if x.start == x.end {
		x.dropLarge()
		x.start, x.end = 0, 0
		if len(x.surplus) > len(x.in) {
			x.growTo(len(x.surplus))
		}
		x.end = copy(x.in, x.surplus)
		x.surplus = nil
	}
	x.dropBody()
	x.resetRequest()
}

// growTo moves the request to a buffer of at least that many bytes, up to socket.RelayBufferBytes.
func (x *httpExchange) growTo(bytes int) {
	larger := poolOfRequests(bytes).Get().(*socket.Buffer)
	copy(larger.Bytes, x.in[:x.end])
	x.dropLarge()
	x.large, x.in = larger, larger.Bytes
}

func (x *httpExchange) dropLarge() {
	if x.large != nil {
		poolOfRequests(len(x.large.Bytes)).Put(x.large)
		x.large, x.in = nil, x.small[:]
	}
}

// poolOfRequests returns the pool of buffers for requests of that many bytes.
func poolOfRequests(bytes int) *sync.Pool {
	if bytes > socket.RequestBufferBytes {
		return socket.BodyBuffers
	}
	return socket.RequestBuffers
}

// space returns the free part of the buffer, which is never empty.
func (x *httpExchange) space() []byte {
	if x.start > 0 && (x.end == len(x.in) || x.headLength > 0) {
		x.end = copy(x.in, x.in[x.start:x.end])
		x.start = 0
	}
	if x.end == len(x.in) {
		x.growTo(len(x.in) + 1)
	}
	return x.in[x.end:]
}
