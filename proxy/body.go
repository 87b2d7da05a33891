package proxy

import "sluice/proxy/socket"

// A piece is a part of a body.
type piece struct {
	text []byte // valid until the next use of the buffers that were read into
	// coded: text is chunked coding with its framing, without the trailer section.
	// Otherwise it is data.
	coded  bool
	length int64 // of the data in text
	last   bool  // the body ends with the piece
	// trailer is the trailer section, of the last piece only. text may be extended
	// into it.
	trailer []byte
}

// A source provides a body: a front that of the request, an upstream that of the
// response.
type source interface {
	// readBody reads the next piece of the body, with b as its buffers. It gives b
	// back while it waits. coded: pieces may be coded. It must not be called inside
	// RawConn.Read, or after the last piece.
	readBody(b *socket.Buffers, coded bool) (piece, error)
	// sourceSocket returns the socket that the rest of the body can be spliced from,
	// and the body; nil: there is none.
	sourceSocket() (socket.Side, *bodyReader)
}

// A sink takes a body: an upstream that of the request, a front that of the response.
type sink interface {
	// takesCoded reports whether writeBody accepts coded pieces.
	takesCoded() bool
	// writeBody sends b.out, which may be empty, and p. It may change the text of p,
	// and empties b.out.
	writeBody(b *socket.Buffers, p piece) error
	// sinkSocket returns the socket that the rest of the body can be spliced to, and
	// its pace; nil: there is none.
	sinkSocket() (socket.Side, *socket.Pace)
}
