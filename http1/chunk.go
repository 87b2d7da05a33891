package http1

// Limits of what a chunked body may carry beside its data.
const (
	maxChunkExtensionBytes = 256      // of one chunk
	maxChunkOverheadBytes  = 16 << 10 // of extensions in one body, plus a share of its data
	maxTrailerBytes        = 4 << 10  // the empty line at its end included
	maxTrailerFields       = 16
)

type chunkState uint8

const (
	chunkSizeStart chunkState = iota
	chunkSize
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailerStart
	chunkTrailerLine
	chunkTrailerLF
	chunkFinalLF
	chunkDone
)

// ChunkScanner follows a chunked body (RFC 9112, section 7.1) over any
// division into reads. It is strict: hexadecimal sizes below 2^60 without
// white space, CRLF where it belongs, bounded extensions and trailers. The zero
// value is ready for a body.
type ChunkScanner struct {
	state     chunkState
	digits    uint8
	extension int   // bytes of extension in this chunk
	overhead  int   // bytes of extension in this body
	remaining int64 // data bytes left of this chunk
	trailer   int   // bytes of trailer section
	fields    int   // lines of trailer section
	nameEnded bool  // of the trailer line

	// Length is how many bytes of data the body had so far.
	Length int64
}

// Done reports whether the body is complete.
func (s *ChunkScanner) Done() bool { return s.state == chunkDone }

// InTrailer reports whether the last chunk has been scanned: what follows is
// the trailer section and the final CRLF.
func (s *ChunkScanner) InTrailer() bool {
	return s.state >= chunkTrailerStart
}

// Remaining returns how many bytes of data are still to come at least: those of
// the chunk that is being scanned, as far as its size is known.
func (s *ChunkScanner) Remaining() int64 { return s.remaining }

// Next scans b up to a boundary: the end of a run of data, the start of the
// trailer section, the end of the body, or the end of b. It returns how many
// bytes it took, and which of them, if any, are data: b[dataStart:n] is the
// data, all before it is framing. Where the body ends or the trailer section
// starts, n stops there. err is ErrChunk or ErrTrailer, and final.
func (s *ChunkScanner) Next(b []byte) (n, dataStart int, err error) {
	for n < len(b) {
		c := b[n]
		if s.state >= chunkTrailerStart && s.state < chunkDone {
			if s.trailer++; s.trailer > maxTrailerBytes {
				return n, n, ErrTrailer
			}
		}
		switch s.state {
		case chunkSizeStart, chunkSize:
			if digit, ok := hexDigit(c); ok {
				if s.digits++; s.digits > 15 {
					return n, n, ErrChunk
				}
				s.remaining = s.remaining<<4 | int64(digit)
				s.state = chunkSize
				break
			}
			if s.state == chunkSizeStart {
				return n, n, ErrChunk
			}
			switch c {
			case ';':
				s.state, s.extension = chunkExtension, 0
			case '\r':
				s.state = chunkSizeLF
			default:
				return n, n, ErrChunk
			}
		case chunkExtension:
			if c == '\r' {
				s.state = chunkSizeLF
				break
			}
			s.extension++
			s.overhead++
			if chars[c]&charValue == 0 || s.extension > maxChunkExtensionBytes ||
				int64(s.overhead) > maxChunkOverheadBytes+s.Length/16 {
				return n, n, ErrChunk
			}
		case chunkSizeLF:
			if c != '\n' {
				return n, n, ErrChunk
			}
			s.digits = 0
			if s.remaining > 0 {
				s.state = chunkData
				break
			}
			s.state = chunkTrailerStart
			return n + 1, n + 1, nil
		case chunkData:
			dataStart = n
			run := min(int64(len(b)-n), s.remaining)
			n += int(run)
			s.remaining -= run
			s.Length += run
			if s.remaining == 0 {
				s.state = chunkDataCR
			}
			return n, dataStart, nil
		case chunkDataCR:
			if c != '\r' {
				return n, n, ErrChunk
			}
			s.state = chunkDataLF
		case chunkDataLF:
			if c != '\n' {
				return n, n, ErrChunk
			}
			s.state = chunkSizeStart
		case chunkTrailerStart:
			switch {
			case c == '\r':
				s.state = chunkFinalLF
			case chars[c]&charToken == 0:
				return n, n, ErrTrailer
			default:
				if s.fields++; s.fields > maxTrailerFields {
					return n, n, ErrTrailer
				}
				s.state, s.nameEnded = chunkTrailerLine, false
			}
		case chunkTrailerLine:
			switch {
			case c == '\r' && s.nameEnded:
				s.state = chunkTrailerLF
			case !s.nameEnded && c == ':':
				s.nameEnded = true
			case !s.nameEnded && chars[c]&charToken == 0, chars[c]&charValue == 0:
				return n, n, ErrTrailer
			}
		case chunkTrailerLF:
			if c != '\n' {
				return n, n, ErrTrailer
			}
			s.state = chunkTrailerStart
		case chunkFinalLF:
			if c != '\n' {
				return n, n, ErrTrailer
			}
			s.state = chunkDone
			return n + 1, n + 1, nil
		case chunkDone:
			return n, n, nil
		}
		n++
	}
	return n, n, nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
