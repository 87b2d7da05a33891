package proxy

import "sluice/http1"

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

func (x *httpExchange) scanFailed(err error) scanResult {
	x.begin()
	x.refuseMalformed(err)
	return scanRefused
}
