package transfer

import (
	"strconv"

	"sluice/proxy/http1"
	"sluice/proxy/socket"
)

// A Reader takes the body of an HTTP/1 message from the bytes of a connection.
type Reader struct {
	Chunked bool
	Lenient bool  // chunk sizes may be odd: see http1.ChunkScanner. Coded pieces have none of them
	Left    int64 // of a body with a length; -1: it ends with the connection
	scanner http1.ChunkScanner
	coded   bool   // the last piece was coded
	Section []byte // the start of a trailer section that arrives in parts
}

// Ended reports whether the whole body was taken.
func (r *Reader) Ended() bool { return r.Left == 0 && (!r.Chunked || r.scanner.Done()) }

// Odd reports whether a chunk size so far was one that only Lenient allows.
func (r *Reader) Odd() bool { return r.scanner.Odd }

// Length returns the bytes of data in the chunks so far.
func (r *Reader) Length() int64 { return r.scanner.Length }

// Next takes a piece from the start of b, which has n bytes of it. Data of a chunked body moves
// to the start of b, unless pieces may be coded. After others they are from the next chunk on. A
// coded piece of a lenient body ends before a size that is odd or not complete; the rest of that
// chunk is data.
func (r *Reader) Next(b []byte, coded bool) (p Piece, n int, err error) {
	switch {
	case r.Chunked:
		return r.nextChunks(b, coded)
	case r.Left >= 0:
		n = int(min(int64(len(b)), r.Left))
		r.Left -= int64(n)
		return Piece{Text: b[:n], Length: int64(n), Last: r.Left == 0}, n, nil
	}
	return Piece{Text: b, Length: int64(len(b))}, len(b), nil
}

func (r *Reader) nextChunks(b []byte, coded bool) (p Piece, n int, err error) {
	s := &r.scanner
	s.Lenient = r.Lenient
	coded = coded && (r.coded || s.AtStart())
	before, data, line := s.Length, b[:0], 0
	for n < len(b) && !s.InTrailer() {
		if s.AtStart() {
			line = n
		}
		taken, dataStart, err := s.Next(b[n:])
		if err != nil {
			return p, n, err
		}
		if !coded {
			data = append(data, b[n+dataStart:n+taken]...) // moves left
		}
		if n += taken; coded && s.Lenient && (s.Odd || s.InSizeLine()) { // or it may become odd
			if coded = false; line > 0 {
				r.coded = false
				return Piece{Text: b[:line], Coded: true, Length: s.Length - before}, n, nil
			}
		}
	}
	r.coded = coded
	if coded {
		data = b[:n]
	}
	p = Piece{Text: data, Coded: coded, Length: s.Length - before}
	if n == len(b) {
		return p, n, nil
	}
	taken, _, err := s.Next(b[n:])
	if p.Trailer = b[n : n+taken]; len(r.Section) > 0 || !s.Done() {
		r.Section = append(r.Section, p.Trailer...)
		p.Trailer = r.Section
	}
	p.Last = s.Done()
	return p, n + taken, err
}

// Most returns how many bytes to read for the next piece of a request, so that the bytes that
// follow the body fit the exchange's buffer, and the first coded piece begins with a chunk.
func (r *Reader) Most(coded bool) int {
	if left := r.scanner.Remaining(); coded && !r.coded && left > 0 {
		return int(min(left+int64(len("\r\n")), socket.RelayBufferBytes))
	}
	if r.Chunked {
		return int(min(r.scanner.Remaining()+socket.RequestBufferBytes, socket.RelayBufferBytes))
	}
	return int(min(r.Left, socket.RelayBufferBytes))
}

// maxChunkBytes is the maximum length of the chunks that sluice makes.
const maxChunkBytes = 16 << 10

// Send sends out and p as a part of an HTTP/1 message, in one call of send if p
// is not long. trailers: the trailer section is forwarded.
func Send(out []byte, p Piece, chunked, trailers bool, send func([]byte) error) error {
	text := p.Text
	if chunked && !p.Coded {
		for len(text) > 0 {
			n := min(len(text), maxChunkBytes)
			out = appendChunk(out, text[:n])
			if text = text[n:]; len(text) > 0 {
				if err := send(out); err != nil {
					return err
				}
				out = out[:0]
			}
		}
		if p.Last {
			out = append(out, "0\r\n"...)
		}
	}
	if len(out) > 0 {
		text = append(out, text...)
	}
	if chunked && p.Last {
		if trailers {
			for line := range http1.Lines(p.Trailer) {
				text = append(text, line...)
			}
		}
		text = append(text, "\r\n"...)
	}
	if len(text) == 0 {
		return nil
	}
	return send(text)
}

// appendChunk appends data, which is not empty, as a chunk.
func appendChunk(b, data []byte) []byte {
	b = strconv.AppendInt(b, int64(len(data)), 16)
	b = append(append(b, "\r\n"...), data...)
	return append(b, "\r\n"...)
}
