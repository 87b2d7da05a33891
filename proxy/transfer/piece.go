// Package transfer moves a body from a Source to a Sink: from the client to the peer or back,
// whatever protocol each of them speaks. A body is a sequence of pieces. Where both sides
// have a socket without TLS, Splice moves a long rest of it within the kernel.
package transfer

import (
	"sync/atomic"
	"time"

	"sluice/proxy/socket"
)

// A Piece is a part of a body.
type Piece struct {
	Text []byte // valid until the next use of the buffers that were read into
	// Coded: Text is chunked coding with its framing, without the trailer section.
	// Otherwise it is data.
	Coded  bool
	Length int64 // of the data in Text
	Last   bool  // the body ends with the piece
	// Trailer is the trailer section, of the last piece only. Text may be extended
	// into it.
	Trailer []byte
}

// A Source provides a body: a downstream the request's, an upstream the response's.
type Source interface {
	// ReadBody reads the next piece of the body, with b as its buffers. It gives b
	// back while it waits. coded: pieces may be coded. It must not be called inside
	// RawConn.Read, or after the last piece.
	ReadBody(b *socket.Buffers, coded bool) (Piece, error)
	// SourceSocket returns the socket that the rest of the body can be spliced from,
	// and the body; nil: there is none.
	SourceSocket() (socket.Side, *Reader)
}

// A Sink takes a body: an upstream the request's, a downstream the response's.
type Sink interface {
	// TakesCoded reports whether WriteBody accepts coded pieces.
	TakesCoded() bool
	// WriteBody sends b.Out, which may be empty, and p. It may change the text of p,
	// and empties b.Out.
	WriteBody(b *socket.Buffers, p Piece) error
	// SinkSocket returns the socket that the rest of the body can be spliced to, and
	// its pace; nil: there is none.
	SinkSocket() (socket.Side, *socket.Pace)
}

// spliceMinBytes is the minimum length to splice. Copying costs less below it.
const spliceMinBytes = 64 << 10

// Splice moves the rest of a body within the kernel, if both ends offer a socket
// and it is worth a pipe. Then it gives b back. done reports whether it did. moved and allRead: see
// [socket.Splice]; sourceFailed: err is an error of from.
func Splice(b *socket.Buffers, to Sink, from Source, moved *int64, allRead *atomic.Bool) (done, sourceFailed bool, err error) {
	out, pace := to.SinkSocket()
	in, body := from.SourceSocket()
	if pace == nil || body == nil || body.Left < spliceMinBytes {
		return false, false, nil
	}
	b.GiveBack()
	done, sourceFailed, err = socket.Splice(out, in, pace, body.Left, moved, allRead)
	if done && err == nil {
		body.Left = 0
	}
	return done, sourceFailed, err
}

// EndsShortly waits up to 20 ms for done: a peer may respond before the goroutine that
// sends the request has recorded the end.
func EndsShortly(done <-chan struct{}) bool {
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
