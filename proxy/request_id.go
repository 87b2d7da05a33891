package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"time"

	"sluice/proxy/http1"
)

// maxRequestIDBytes is the maximum length of a request id that is taken over.
const maxRequestIDBytes = 128

// requestIDBytes is the length of one that sluice makes: a UUID.
const requestIDBytes = 36

// chooseRequestID sets the id of the request: that of a trusted client if it is well-formed,
// or a new one. Without Options.RequestID there is none.
func (x *httpExchange) chooseRequestID() {
	x.requestID = nil
	if !x.client.options.RequestID {
		return
	}
	if x.standing.trusted && x.headLength > 0 && x.head.Has(http1.NameXRequestID) {
		if id := x.sentOnce(http1.NameXRequestID); isRequestID(id) {
			x.requestID = id
			return
		}
	}
	x.requestID = appendRequestID(x.ownRequestID[:0], x.startTime, rand.Uint64(), rand.Uint64())
}

// isRequestID reports whether an id is taken over: its characters are those of UUIDs, of
// base64 and of paths.
func isRequestID(id []byte) bool {
	if len(id) == 0 || len(id) > maxRequestIDBytes {
		return false
	}
	for _, c := range id {
		if !requestIDCharacters[c] {
			return false
		}
	}
	return true
}

var requestIDCharacters = func() (table [256]bool) {
	for _, c := range []byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~:+/=@") {
		table[c] = true
	}
	return table
}()

// appendRequestID appends a UUID of version 7 (RFC 9562, section 5.7): ids sort by time.
// The generator of math/rand/v2 is seeded by the kernel once for each thread, so an id
// takes no system call.
func appendRequestID(out []byte, now time.Time, random1, random2 uint64) []byte {
	const variant = 0b10 << 62
	var id [16]byte
	binary.BigEndian.PutUint64(id[:], uint64(now.UnixMilli())<<16|7<<12|random1&(1<<12-1))
	binary.BigEndian.PutUint64(id[8:], variant|random2&(1<<62-1))
	out = hex.AppendEncode(out, id[:4])
	for _, end := range [...]int{6, 8, 10} {
		out = hex.AppendEncode(append(out, '-'), id[end-2:end])
	}
	return hex.AppendEncode(append(out, '-'), id[10:])
}

// appendRequestIDLine appends the X-Request-Id line of the request, if it has an id.
func (x *httpExchange) appendRequestIDLine(out []byte) []byte {
	if len(x.requestID) == 0 {
		return out
	}
	return append(append(append(out, "X-Request-Id: "...), x.requestID...), "\r\n"...)
}
