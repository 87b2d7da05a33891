// Package transfer moves a body from a Source to a Sink: from the client to the peer or back,
// whatever protocol each of them speaks. A body is a sequence of pieces. Where both sides
// have a socket without TLS, Splice moves a long rest of it within the kernel.
package transfer

import "sluice/proxy/socket"

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
