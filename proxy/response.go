package proxy

import (
	"errors"
	"io"
	"os"
	"time"

	"sluice/balancer"
	"sluice/http1"
)

// framing is how the client learns where the body of a response ends, and what
// has to be done to it on the way.
type framing uint8

const (
	framingNone        framing = iota // there is no body
	framingLength                     // Content-Length
	framingChunked                    // chunked by the peer, passed on as it is
	framingDechunked                  // chunked by the peer, for a client that knows no chunks: ended by closing
	framingChunkedAnew                // ended by closing, chunked for the client
	framingClose                      // ended by closing, both sides
)

// receive reads the rest of the response, whose first n bytes are in x.from,
// and passes it on. It hands u back to its transport, or closes it.
func (x *httpExchange) receive(u *upstreamConn, n int) balancer.Outcome {
	for {
		x.response.Reset()
		headLength, err := 0, error(nil)
		for {
			if headLength, err = x.response.Scan(x.from[:n]); err != nil || headLength > 0 {
				break
			}
			if n == len(x.from) {
				err = errHeadTooLong
				break
			}
			var more int
			if more, err = u.read(x.from[n:]); more == 0 {
				break
			}
			n += more
		}
		if headLength == 0 || err != nil {
			return x.receiveFailed(u, err)
		}
		if x.response.Interim() {
			if err := x.passInterim(x.from[:headLength]); err != nil {
				u.transport.discard(u)
				return balancer.Outcome{Class: balancer.OutcomeClientGone}
			}
			n = copy(x.from[:], x.from[headLength:n])
			continue
		}
		return x.receiveFinal(u, headLength, n)
	}
}

// receiveFailed classes an error before anything of the final response was
// passed on.
func (x *httpExchange) receiveFailed(u *upstreamConn, err error) balancer.Outcome {
	u.transport.discard(u)
	switch {
	case x.upload.failed():
		return x.uploadOutcome()
	case x.client.gone.Load():
		return balancer.Outcome{Class: balancer.OutcomeClientGone}
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.lastRefusal = refusalTimeout
		return balancer.Outcome{Class: balancer.OutcomeTimeout, Latency: x.latency(time.Now())}
	case isMalformed(err), err == errHeadTooLong, err == errOtherProtocol:
		x.lastRefusal = refusalBadResponse
		x.mayReplaySent = false // another peer would send no better one
		if !isMalformed(err) {
			return balancer.Outcome{Class: balancer.OutcomeClientGone}
		}
		return balancer.Outcome{Class: balancer.OutcomeReset, Latency: x.latency(time.Now())}
	}
	x.lastRefusal = refusalReset
	return x.brokenOff()
}

// isMalformed reports whether err is what http1 has to say of a message.
func isMalformed(err error) bool {
	var malformed *http1.Error
	return errors.As(err, &malformed)
}

// passInterim passes a 1xx response on (RFC 9110, section 15.2), unless the
// client would not understand it.
func (x *httpExchange) passInterim(head []byte) error {
	if x.head.HTTP10 || x.response.Status == 100 && !x.head.ExpectContinue {
		return nil
	}
	x.begun = true
	x.out = x.appendResponseHead(x.out[:0], head)
	return x.client.write(x.out)
}

// receiveFinal passes on a response whose head is complete: x.from[:n] is the
// head and the start of the body.
func (x *httpExchange) receiveFinal(u *upstreamConn, headLength, n int) balancer.Outcome {
	x.upstreamTime = time.Since(x.startTime)
	if x.response.Status == 101 {
		switch {
		case x.switches(x.from[:headLength]):
			return x.receiveTunnel(u, headLength, n)
		case x.upgrade:
			return x.receiveFailed(u, errOtherProtocol)
		}
		return x.receiveFailed(u, http1.ErrResponse)
	}
	outcome := balancer.Outcome{Class: balancer.OutcomeOK, Status: x.response.Status, Latency: x.latency(x.startTime.Add(x.upstreamTime))}
	if x.response.Status >= 500 {
		outcome.Class = balancer.OutcomeServerError
	}
	x.status = x.response.Status
	x.chooseFraming()
	switch {
	case x.framing == framingLength:
		var err error
		if n, err = x.hold(u, headLength, n); err != nil {
			return x.receiveFailed(u, err)
		}
	case x.framing != framingNone && n == headLength:
		u.acknowledge()
	}
	if x.streaming && !x.upload.read.Load() {
		x.keepClient = false // it would be a guess where the next request starts
	}
	x.out = x.appendResponseHead(x.out[:0], x.from[:headLength])
	x.setIdleTimeout(u) // before the body takes the place of the head

	clean, err := x.relay(u, x.from[headLength:n])
	if err != nil && !x.answered {
		x.bytesOut = 0
		return x.receiveFailed(u, err)
	}
	if clean && x.response.Persistent() && (!x.streaming || x.upload.complete()) && u.allSent() {
		u.transport.release(u)
	} else {
		u.transport.discard(u)
	}
	if err == nil {
		return outcome
	}
	x.keepClient = false
	if errors.Is(err, errClientWrite) || x.client.gone.Load() {
		x.interrupted = "client_gone"
		return outcome
	}
	// The client must not take what it has got for the whole response.
	x.client.reset = x.framing == framingDechunked || x.framing == framingClose
	switch {
	case x.upload.failed():
		x.interrupted = x.upload.reason()
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.interrupted, outcome.Class = "upstream_stalled", balancer.OutcomeTimeout
	case isMalformed(err):
		x.interrupted, outcome.Class = "upstream_cut", balancer.OutcomeReset
	default:
		x.interrupted, outcome.Class = "upstream_cut", x.brokenOff().Class
	}
	return outcome
}

// chooseFraming decides on x.framing and on whether that lets the client's
// connection go on.
func (x *httpExchange) chooseFraming() {
	head := &x.response
	x.keepClient = x.keepClient && !x.client.server.draining.Load()
	switch {
	case head.Bodiless(x.head.Method == http1.MethodHead):
		x.framing = framingNone
	case head.Chunked && x.head.HTTP10:
		x.framing, x.keepClient = framingDechunked, false
	case head.Chunked:
		x.framing = framingChunked
	case head.ContentLength >= 0:
		x.framing = framingLength
	case x.head.HTTP10:
		x.framing, x.keepClient = framingClose, false
	default:
		x.framing = framingChunkedAnew
	}
}

// setIdleTimeout honours the time after which the peer says it closes the
// connection (Keep-Alive: timeout=5), less a second on the way.
func (x *httpExchange) setIdleTimeout(u *upstreamConn) {
	if !x.response.KeepAlive {
		return
	}
	value := x.response.Find(x.from[:], http1.NameKeepAlive)
	if seconds, ok := keepAliveTimeout(value); ok {
		u.idleTimeout = min(u.transport.options.IdleTimeout, max(time.Duration(seconds-1)*time.Second, time.Second/2))
	}
}

// errClientWrite: the response could not be written to the client.
var errClientWrite = errors.New("write to client")

// toClient writes some of the final response to the client.
func (x *httpExchange) toClient(b []byte) error {
	x.begun, x.answered = true, true
	if err := x.client.write(b); err != nil {
		return errClientWrite
	}
	return nil
}

// relay sends x.out, the head, and the body, of which first has arrived; it
// scans what there is of the body before it sends anything. clean reports whether the body ended where it should and nothing came after it, so
// that the connection can be used again. An error is errClientWrite or that of
// the peer.
func (x *httpExchange) relay(u *upstreamConn, first []byte) (clean bool, err error) {
	switch x.framing {
	case framingNone:
		return len(first) == 0, x.toClient(x.out)
	case framingLength:
		return x.relayLength(u, first)
	case framingChunked:
		return x.relayChunked(u, first)
	case framingDechunked:
		return x.relayDechunked(u, first)
	}
	return false, x.relayUntilClose(u, first)
}

func (x *httpExchange) relayLength(u *upstreamConn, first []byte) (clean bool, err error) {
	left := x.response.ContentLength
	surplus := int64(len(first)) > left
	if surplus {
		first = first[:left]
	}
	x.out = append(x.out, first...)
	x.bytesOut += int64(len(first))
	left -= int64(len(first))
	if err := x.toClient(x.out); err != nil || left == 0 {
		return !surplus && err == nil, err
	}
	if left >= spliceMinBytes && (!x.streaming || x.upload.complete()) {
		client := x.client.side(x.client.server.options.Timeouts.Write)
		ok, sourceFailed, err := x.splicer.splice(client, x.peerSide(u), &x.clientWriter.pace, left, &x.bytesOut, nil)
		if err != nil && !sourceFailed {
			err = errClientWrite
		}
		if ok {
			return err == nil, err
		}
	}
	b := relayBuffers.Get().(*buffer)
	defer relayBuffers.Put(b)
	for left > 0 {
		n, err := x.readBody(u, b.bytes[:min(left, int64(len(b.bytes)))])
		if err != nil {
			return false, err
		}
		left -= int64(n)
		x.bytesOut += int64(n)
		if err := x.toClient(b.bytes[:n]); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (x *httpExchange) relayUntilClose(u *upstreamConn, first []byte) error {
	const sizeLine = 10 // room for the size of a chunk and its CRLF
	b := relayBuffers.Get().(*buffer)
	defer relayBuffers.Put(b)
	chunked := x.framing == framingChunkedAnew
	if len(first) > 0 {
		if chunked {
			x.out = appendChunkSize(x.out, len(first))
		}
		x.out = append(x.out, first...)
		if chunked {
			x.out = append(x.out, "\r\n"...)
		}
		x.bytesOut += int64(len(first))
	}
	if err := x.toClient(x.out); err != nil {
		return err
	}
	for {
		n, err := x.readBody(u, b.bytes[sizeLine:len(b.bytes)-2])
		if err == errClosedEarly {
			if chunked {
				return x.toClient([]byte("0\r\n\r\n"))
			}
			return nil
		}
		if err != nil {
			return err
		}
		x.bytesOut += int64(n)
		data := b.bytes[sizeLine : sizeLine+n]
		if chunked {
			var line [sizeLine]byte
			size := appendChunkSize(line[:0], n)
			start := sizeLine - len(size)
			copy(b.bytes[start:], size)
			data = append(b.bytes[start:sizeLine+n], "\r\n"...)
		}
		if err := x.toClient(data); err != nil {
			return err
		}
	}
}

func appendChunkSize(b []byte, n int) []byte {
	const hex = "0123456789abcdef"
	shift := 28
	for shift > 0 && n>>shift == 0 {
		shift -= 4
	}
	for ; shift >= 0; shift -= 4 {
		b = append(b, hex[n>>shift&15])
	}
	return append(b, "\r\n"...)
}

// readBody reads more of a response's body. The end of the stream is
// errClosedEarly.
func (x *httpExchange) readBody(u *upstreamConn, b []byte) (int, error) {
	x.awaitBody(u)
	n, err := u.read(b)
	if n > 0 {
		return n, nil
	}
	if err == io.EOF {
		err = errClosedEarly
	}
	return 0, err
}

// awaitBody sets the time that the peer has for the next piece of the response's
// body. It has all the time in the world as long as it has not got all of the
// request: then it may be waiting for the client itself.
func (x *httpExchange) awaitBody(u *upstreamConn) {
	if !x.streaming || x.upload.answering() {
		u.arm(u.transport.sweeper, x.service.Timeouts.Idle)
	}
}

// keepAliveTimeout reads the timeout parameter of a Keep-Alive field.
func keepAliveTimeout(value []byte) (seconds int, ok bool) {
	const parameter = "timeout="
	for i := 0; i+len(parameter) < len(value); i++ {
		if !http1.EqualFold(value[i:i+len(parameter)], parameter) {
			continue
		}
		for _, c := range value[i+len(parameter):] {
			if c < '0' || c > '9' || seconds > 1e6 {
				break
			}
			seconds, ok = seconds*10+int(c-'0'), true
		}
		return seconds, ok
	}
	return 0, false
}
