package proxy

import (
	"sluice/proxy/http1"
	"sluice/proxy/socket"
)

// A bodyReader takes the body of an HTTP/1 message from the bytes of a connection.
type bodyReader struct {
	chunked bool
	left    int64 // of a body with a length; -1: it ends with the connection
	scanner http1.ChunkScanner
	section []byte // the start of a trailer section that arrives in parts
}

// ended reports whether the whole body was taken.
func (r *bodyReader) ended() bool { return r.left == 0 && (!r.chunked || r.scanner.Done()) }

// next takes a piece from the start of b, which has n bytes of it. Data of a chunked
// body moves to the start of b, unless pieces may be coded.
func (r *bodyReader) next(b []byte, coded bool) (p piece, n int, err error) {
	switch {
	case r.chunked:
		return r.nextChunks(b, coded)
	case r.left >= 0:
		n = int(min(int64(len(b)), r.left))
		r.left -= int64(n)
		return piece{text: b[:n], length: int64(n), last: r.left == 0}, n, nil
	}
	return piece{text: b, length: int64(len(b))}, len(b), nil
}

func (r *bodyReader) nextChunks(b []byte, coded bool) (p piece, n int, err error) {
	before, data := r.scanner.Length, b[:0]
	for n < len(b) && !r.scanner.InTrailer() {
		taken, dataStart, err := r.scanner.Next(b[n:])
		if err != nil {
			return p, n, err
		}
		if !coded {
			data = append(data, b[n+dataStart:n+taken]...) // moves left
		}
		n += taken
	}
	if coded {
		data = b[:n]
	}
	p = piece{text: data, coded: coded, length: r.scanner.Length - before}
	if n == len(b) {
		return p, n, nil
	}
	taken, _, err := r.scanner.Next(b[n:])
	if p.trailer = b[n : n+taken]; len(r.section) > 0 || !r.scanner.Done() {
		r.section = append(r.section, p.trailer...)
		p.trailer = r.section
	}
	p.last = r.scanner.Done()
	return p, n + taken, err
}

// most returns how many bytes to read for the next piece of a request, so that the
// bytes that follow the body fit the exchange's buffer.
func (r *bodyReader) most() int {
	if r.chunked {
		return int(min(r.scanner.Remaining()+socket.RequestBufferBytes, socket.RelayBufferBytes))
	}
	return int(min(r.left, socket.RelayBufferBytes))
}

// maxChunkBytes is the maximum length of the chunks that sluice makes.
const maxChunkBytes = 16 << 10

// sendPiece sends out and p as a part of an HTTP/1 message, in one call of send if p
// is not long. trailers: the trailer section is forwarded.
func sendPiece(out []byte, p piece, chunked, trailers bool, send func([]byte) error) error {
	text := p.text
	if chunked && !p.coded {
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
		if p.last {
			out = append(out, "0\r\n"...)
		}
	}
	if len(out) > 0 {
		text = append(out, text...)
	}
	if chunked && p.last {
		if trailers {
			text = appendTrailer(text, p.trailer)
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
	const hex = "0123456789abcdef"
	shift := 28
	for len(data)>>shift == 0 {
		shift -= 4
	}
	for ; shift >= 0; shift -= 4 {
		b = append(b, hex[len(data)>>shift&15])
	}
	b = append(append(b, "\r\n"...), data...)
	return append(b, "\r\n"...)
}

// appendTrailer appends the lines of a trailer section.
func appendTrailer(out, section []byte) []byte {
	for line := range http1.TrailerLines(section) {
		out = append(out, line...)
	}
	return out
}
