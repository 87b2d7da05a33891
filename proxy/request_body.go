package proxy

import (
	"bytes"
	"cmp"
	"errors"
	"os"

	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/route/places"
)

// A requestBody is the body of a request on its way: the third part of an exchange. As far as it is
// in memory, it can be sent again.
type requestBody struct {
	request *request
	route   *chosenRoute

	buffers socket.Buffers // that heads and bodies of the exchange go through
	upload  upload
	bytesIn int64 // of the body

	bytes  []byte         // the whole body, in the buffer of the request or in buffer; of a streamed one, what was kept
	buffer *socket.Buffer // for a body that does not fit the buffer of the request; else nil
	owner  places.Block   // whose memory the buffer is
	// trailer is the trailer section after bytes, in tries without its reserved fields.
	trailer []byte
}

// bufferBody reads a body that is short enough, so that the request can be replayed. If the memory
// for that is used up, the rest of the body is streamed, also if it is called again. It returns
// false if reading failed.
func (x *tries) bufferBody() bool {
	length := x.request.head.ContentLength
	if x.body.bodyRead() || x.request.head.ExpectContinue || x.body.upload.unkept.Length > 0 || length < 0 || length > int64(x.route.service.Retry.BodyBytes) {
		return true
	}
	for last := false; !last; {
		p, err := x.request.client.downstream.ReadBody(&x.body.buffers, false)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				x.lastRefusal = refusal.BodyTimeout
			}
			return false
		}
		if !x.body.keep(p.Text, length) {
			x.body.upload.unkept, x.body.upload.buffers, x.body.buffers = p, x.body.buffers, socket.Buffers{}
			x.body.bytesIn = 0
			return true
		}
		x.body.bytesIn, x.body.trailer, last = int64(len(x.body.bytes)), p.Trailer, p.Last
	}
	x.request.streaming = false
	return true
}

// readStart reads the start of a body, more than so many bytes or all of it, and keeps it. It
// returns why it could not.
func (x *tries) readStart(most int) *refusal.Refusal {
	limit := x.route.bodyLimit()
	for !x.body.bodyRead() && len(x.body.bytes) <= most && x.body.upload.unkept.Length == 0 {
		p, err := x.request.client.downstream.ReadBody(&x.body.buffers, false)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return cmp.Or(x.request.client.cutBy(), refusal.BodyTimeout)
		case isMalformed(err):
			return ofMalformed(err)
		case err != nil:
			return cmp.Or(x.request.client.cutBy(), refusal.ClientGone)
		case !x.body.keep(p.Text, int64(max(most, len(x.body.bytes)+len(p.Text)))):
			return refusal.AuthUnavailable
		}
		x.body.bytesIn, x.body.trailer = int64(len(x.body.bytes)), bytes.Clone(p.Trailer)
		if limit > 0 && x.body.bytesIn > limit {
			return refusal.Of(http1.ErrBodyTooLong)
		}
		// A trailer needs a streamed body, also if all of it is read.
		if x.request.streaming = !p.Last || len(p.Trailer) > 0; p.Last && x.request.streaming {
			x.body.upload.read.Store(true)
		}
	}
	return nil
}

// keep adds text to the part of the body that is kept, whose length is given. It reports false,
// and adds nothing, if there is no memory for it: see Limits.KeptBodyBytes.
func (x *requestBody) keep(text []byte, length int64) bool {
	c, kept, had := x.request.client, len(x.bytes), 0
	if x.buffer != nil {
		had = len(x.buffer.Bytes)
	}
	if need := kept + len(text); x.buffer == nil || need > had {
		size := bodyBufferSize(need, length)
		if had == 0 {
			x.owner = x.request.block()
		}
		if !c.server.keptBodies.Take(x.owner, int64(size-had), int64(c.options.Limits.KeptBodyBytes)) {
			return false
		}
		larger := socket.NewBuffer(size)
		copy(larger.Bytes, x.bytes)
		x.buffer.Free()
		x.buffer = larger
	}
	x.bytes = x.buffer.Bytes[:kept+copy(x.buffer.Bytes[kept:], text)]
	return true
}

// dropBody gives the memory of the body back.
func (x *requestBody) dropBody() {
	b := x.buffer
	x.leaveBody()
	b.Free()
}

// leaveBody is dropBody after a panic: it leaves the memory to the garbage collector.
func (x *requestBody) leaveBody() {
	x.bytes, x.trailer = nil, nil
	if b := x.buffer; b != nil {
		x.buffer = nil
		x.request.client.server.keptBodies.Give(x.owner, int64(len(b.Bytes)))
	}
}

// bodyBufferSize returns the size of a buffer for need bytes of a body of that length: at most
// four times as much, because a client may announce a long body and send a short one, or
// socket.SmallBodyBytes.
func bodyBufferSize(need int, length int64) int {
	size := socket.SmallBodyBytes
	for size < need {
		size *= 4
	}
	if size > socket.RelayBufferBytes {
		size = int(min(int64(size), length))
	}
	return size
}
