package proxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"sluice/accesslog"
	"sluice/balancer"
	"sluice/http1"
	"sluice/route"
)

var timeNow = time.Now

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
	bodyLength int  // of a body that is in the buffer as a whole
	streaming  bool // the body is not in the buffer as a whole
	upgrade    bool // the client asks for another protocol

	service *route.Service
	query   balancer.Query
	token   balancer.Token
	tries   int
	upload  upload

	uploadSplicer splicer

	// The response.
	response   http1.ResponseHead
	from       [responseBufferBytes]byte
	framing    framing
	splicer    splicer
	keepClient bool // the client's connection is kept after this exchange
	begun      bool // the client has got a byte of the response
	out        []byte

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
		x.start, x.end = 0, 0
	}
	x.resetRequest()
}

// space returns the room for more bytes of the client, never none.
func (x *httpExchange) space() []byte {
	if x.start > 0 && (x.end == len(x.in) || x.headLength > 0) {
		x.end = copy(x.in[:], x.in[x.start:x.end])
		x.start = 0
	}
	return x.in[x.end:]
}

type scanResult uint8

const (
	scanIncomplete scanResult = iota // more bytes are needed
	scanWhole                        // a request is in the buffer, with its body
	scanStreaming                    // a head is in the buffer, and what follows is to be read while it is sent on
	scanRefused                      // the client has got its answer, and there is nothing more to read
)

// scan looks how much of a request is in the buffer.
func (x *httpExchange) scan() scanResult {
	if x.start == x.end {
		return scanIncomplete
	}
	limits := &x.client.server.options.Limits
	if x.headLength == 0 {
		n, err := x.head.Scan(x.in[x.start:x.end])
		if err == nil && n == 0 && x.end-x.start == len(x.in) {
			err = http1.ErrHeadTooLong
		}
		if err != nil {
			return x.scanFailed(err)
		}
		if n == 0 {
			return scanIncomplete
		}
		x.headLength = n
	}
	if !x.head.HasBody() {
		if x.upgrade = x.asksForUpgrade(); x.upgrade {
			return scanStreaming
		}
		return scanWhole
	}
	if limits.BodyBytes > 0 && x.head.ContentLength > limits.BodyBytes {
		return x.scanFailed(http1.ErrBodyTooLong)
	}
	here := x.end - x.start - x.headLength
	switch {
	case x.head.ExpectContinue:
	case x.head.Chunked:
	case x.head.ContentLength > int64(len(x.in)-x.headLength):
	case int64(here) < x.head.ContentLength:
		return scanIncomplete
	default:
		x.bodyLength = int(x.head.ContentLength)
		return scanWhole
	}
	x.streaming = true
	return scanStreaming
}

// asksForUpgrade reports whether the peer is to be asked for another protocol.
// HTTP/2 over an upgrade is obsolete (RFC 9113, section 3.1) and would hide
// requests from sluice.
func (x *httpExchange) asksForUpgrade() bool {
	return x.head.Upgrade && !x.head.HTTP10 &&
		!http1.EqualFold(x.head.Find(x.in[x.start:x.end], http1.NameUpgrade), "h2c")
}

func (x *httpExchange) scanFailed(err error) scanResult {
	x.begin()
	x.refuseMalformed(err)
	return scanRefused
}

// begin starts the clock of a request and forgets the one before.
func (x *httpExchange) begin() {
	c := x.client
	c.phase = phaseRequest
	c.disarm()
	x.startTime = timeNow()
	x.service, x.token = nil, balancer.Token{}
	x.query = balancer.Query{}
	x.tries, x.status, x.bytesIn, x.bytesOut = 0, 0, int64(x.bodyLength), 0
	x.connectTime, x.upstreamTime = 0, 0
	x.refused, x.interrupted, x.lastRefusal = "", "", nil
	x.begun, x.touched = false, false
	x.mayReplaySent = x.head.Method.Idempotent()
	x.upload.reset(x)
}

// serve handles the request and reports whether the connection goes on.
func (x *httpExchange) serve() bool {
	x.begin()
	c := x.client
	b := x.in[x.start:x.end]
	x.keepClient = x.head.Persistent() && !c.server.draining.Load()
	matched := c.listener.table().Match(x.head.Authority(b), x.head.Path(b))
	if matched == nil {
		return x.refuse(refusalNoRoute)
	}
	x.service = matched.Service
	if x.head.Method == http1.MethodOptions && x.maxForwards() == 0 {
		return x.refuse(refusalMaxForwards)
	}
	outcome, tries, err := attempts(x.service, &x.query, x)
	for range tries - 1 {
		x.service.Pool.Requests().Retry(c.shard)
	}
	x.upload.wait()
	switch {
	case x.begun:
	case x.lastRefusal != nil:
		return x.refuse(x.lastRefusal)
	case outcome.Class == balancer.OutcomeClientGone:
		x.status, x.interrupted, x.keepClient = statusClientGone, "client_gone", false
	case err != nil:
		return x.refuse(pickRefusal(err))
	}
	x.account()
	return x.keepClient
}

// try implements exchange.
func (x *httpExchange) try(t balancer.Token) balancer.Outcome {
	x.token = t
	x.lastRefusal = nil
	transport := t.Peer.Transport.(*Transport)
	u, n, outcome, ok := x.send(transport)
	x.tries++
	if !ok {
		return outcome
	}
	return x.receive(u, n)
}

// send sends the request on a connection to the peer and reads the first bytes
// of the response, n of them, into x.from. A connection that proves stale is
// replaced by a new one, once: the peer is not to blame.
func (x *httpExchange) send(transport *Transport) (u *upstreamConn, n int, o balancer.Outcome, ok bool) {
	fresh := false
	for {
		if !fresh {
			u = transport.acquire()
		}
		if fresh = fresh || u == nil; fresh {
			dialStart := time.Now()
			var err error
			if u, err = transport.dial(x.client.server.ctx, x.client.shard); err != nil {
				return nil, 0, x.dialFailed(err), false
			}
			x.connectTime = time.Since(dialStart)
		}
		n, sent, err := x.sendOn(u)
		if err == nil {
			return u, n, o, true
		}
		x.touched = x.touched || sent
		transport.discard(u)
		if o, retry := x.sendFailed(u, err); !retry || fresh {
			return nil, 0, o, false
		}
		fresh = true
	}
}

// dialFailed classes an error of opening a connection.
func (x *httpExchange) dialFailed(err error) balancer.Outcome {
	x.lastRefusal = refusalConnect
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EADDRNOTAVAIL):
		x.lastRefusal = refusalNoDescriptors
		return balancer.Outcome{Class: balancer.OutcomeLocal}
	case errors.Is(err, net.ErrClosed): // the peer's time to drain is over
		return balancer.Outcome{Class: balancer.OutcomeLocal}
	}
	return balancer.Outcome{Class: balancer.OutcomeConnectFailure}
}

// sendOn does the part of send that needs a connection.
func (x *httpExchange) sendOn(u *upstreamConn) (n int, sent bool, err error) {
	b := x.in[x.start:x.end]
	x.out = x.appendRequestHead(x.out[:0])
	if !x.client.server.options.KeepForGoneClients {
		u.client.Store(x.client)
	}
	if x.streaming {
		return x.upload.start(u, x.out, x.from[:])
	}
	x.out = append(x.out, b[x.headLength:x.headLength+x.bodyLength]...)
	u.arm(u.transport.sweeper, x.service.Timeouts.ResponseHeader)
	return u.roundTrip(x.out, x.from[:])
}

// sendFailed classes an error before the first byte of a response. again: the
// request may be sent on a new connection to the same peer.
func (x *httpExchange) sendFailed(u *upstreamConn, err error) (o balancer.Outcome, again bool) {
	switch {
	case x.upload.failed():
		return x.uploadOutcome(), false
	case x.client.gone.Load():
		return balancer.Outcome{Class: balancer.OutcomeClientGone}, false
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.lastRefusal = refusalTimeout
		return balancer.Outcome{Class: balancer.OutcomeTimeout, Latency: time.Since(x.startTime)}, false
	case u.used:
		x.lastRefusal = refusalReset
		return balancer.Outcome{Class: balancer.OutcomeStale}, x.replayable()
	}
	x.lastRefusal = refusalReset
	return balancer.Outcome{Class: balancer.OutcomeReset}, false
}

// uploadOutcome is the outcome where the request's body, not the peer, is why
// there is no response.
func (x *httpExchange) uploadOutcome() balancer.Outcome {
	var malformed *http1.Error
	switch err := x.upload.err; {
	case errors.As(err, &malformed):
		x.lastRefusal = refusalOf(malformed)
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.lastRefusal = refusalBodyTimeout
	}
	return balancer.Outcome{Class: balancer.OutcomeClientGone}
}

// replayable implements exchange.
func (x *httpExchange) replayable() bool {
	if x.upload.started {
		return false
	}
	return !x.touched || x.mayReplaySent
}

// started implements exchange.
func (x *httpExchange) started() bool { return x.begun }

// refuse gives an answer of sluice's own and reports whether the connection
// goes on.
func (x *httpExchange) refuse(r *refusal) bool {
	c := x.client
	b := x.in[x.start:x.end]
	keep := x.headLength > 0 && !x.streaming && x.head.Persistent() && r.status != 413 && r.status != 408 && !c.server.draining.Load()
	x.status, x.refused = r.status, r.reason
	service := ""
	if x.service != nil {
		service = x.service.Name
	}
	x.out = appendAnswer(x.out[:0], r, service, keep,
		x.headLength > 0 && wantsJSON(x.head.Find(b, http1.NameAccept)), x.head.Method == http1.MethodHead)
	if c.write(x.out) != nil {
		keep = false
	}
	c.linger = !keep
	x.account()
	return keep
}

// account writes the finished exchange to the metrics and the access log.
func (x *httpExchange) account() {
	c := x.client
	duration := time.Since(x.startTime)
	requests := c.server.requests
	if x.service != nil {
		requests = x.service.Pool.Requests()
	}
	requests.Observe(c.shard, x.status, duration, x.bytesIn, x.bytesOut)
	log := c.server.options.AccessLog
	if !log.Enabled() {
		return
	}
	b := x.in[x.start:x.end]
	entry := accesslog.Entry{
		Time: x.startTime, Client: c.clientAddress,
		Status: x.status, BytesIn: x.bytesIn, BytesOut: x.bytesOut,
		Duration: duration, Upstream: x.upstreamTime, Connect: x.connectTime,
		Attempts: x.tries, Reason: x.refused, Proto: "HTTP/1.1",
	}
	if x.interrupted != "" {
		entry.Reason = x.interrupted
	}
	if x.head.HTTP10 {
		entry.Proto = "HTTP/1.0"
	}
	if x.headLength > 0 {
		entry.Method, entry.Target, entry.Host = x.head.MethodName(b), x.head.Target(b), x.head.Authority(b)
		entry.UserAgent = x.head.Find(b, http1.NameUserAgent)
		entry.Referer = x.head.Find(b, http1.NameReferer)
	}
	if x.service != nil {
		entry.Service = x.service.Name
	}
	if x.token.Peer != nil {
		entry.Peer = x.token.Peer.Address()
	}
	log.Log(c.shard, &entry)
}
