package proxy

import (
	"errors"
	"os"

	"sluice/proxy/refusal"
	"sluice/proxy/socket"
)

// A keptBody is the body of a request as far as it is in memory.
type keptBody struct {
	body       []byte         // the whole body, in the buffer of the request or in bodyBuffer; of a streamed one, what was kept
	bodyBuffer *socket.Buffer // for a body that does not fit the buffer of the request; else nil
	// bodyTrailer is the trailer section after body, in tries without its reserved fields.
	bodyTrailer []byte
}

// bufferBody reads a body that is short enough, so that the request can be replayed. If the
// memory for that is used up, the rest of the body is streamed, also if it is called again. It returns false if reading
// failed.
func (x *sentRequest) bufferBody() bool {
	length := x.head.ContentLength
	if x.head.ExpectContinue || x.upload.unkept.Length > 0 || length < 0 || length > int64(x.service.Retry.BodyBytes) {
		return true
	}
	for last := false; !last; {
		p, err := x.client.downstream.ReadBody(&x.Buffers, false)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				x.lastRefusal = refusal.BodyTimeout
			}
			return false
		}
		if !x.keep(x.client, p.Text, length) {
			x.upload.unkept, x.upload.buffers, x.Buffers = p, x.Buffers, socket.Buffers{}
			x.bytesIn = 0
			return true
		}
		x.bytesIn, x.bodyTrailer, last = int64(len(x.body)), p.Trailer, p.Last
	}
	x.streaming = false
	return true
}

// keep adds text to the part of the body that is kept, whose length is given. It reports false,
// and adds nothing, if there is no memory for it: see Limits.KeptBodyBytes.
func (x *keptBody) keep(c *client, text []byte, length int64) bool {
	kept := len(x.body)
	if need, had := kept+len(text), x.keptBytes(); x.bodyBuffer == nil || need > had {
		size := bodyBufferSize(need, length)
		if !c.server.keptBodies.Take(c.block(), int64(size-had), int64(c.options.Limits.KeptBodyBytes)) {
			return false
		}
		larger := socket.NewBuffer(size)
		copy(larger.Bytes, x.body)
		x.bodyBuffer.Free()
		x.bodyBuffer = larger
	}
	x.body = x.bodyBuffer.Bytes[:kept+copy(x.bodyBuffer.Bytes[kept:], text)]
	return true
}

// keptBytes returns how much memory the body has of what KeptBodyBytes limits.
func (x *keptBody) keptBytes() int {
	if x.bodyBuffer == nil {
		return 0
	}
	return len(x.bodyBuffer.Bytes)
}

// dropBody gives the memory of the body back.
func (x *keptBody) dropBody(c *client) {
	b := x.bodyBuffer
	x.leaveBody(c)
	b.Free()
}

// leaveBody is dropBody after a panic: it leaves the memory to the garbage collector.
func (x *keptBody) leaveBody(c *client) {
	x.body, x.bodyTrailer = nil, nil
	if b := x.bodyBuffer; b != nil {
		x.bodyBuffer = nil
		c.server.keptBodies.Give(c.block(), int64(len(b.Bytes)))
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
