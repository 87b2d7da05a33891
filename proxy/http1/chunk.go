package http1

// Limits of a chunked body.
const (
	maxChunkExtensionBytes = 256      // of one chunk
	maxChunkOverheadBytes  = 16 << 10 // of extensions in one body, plus 1/16 of its data
	maxTrailerBytes        = 4 << 10  // including the final empty line
	maxTrailerFields       = 16
)

type chunkState uint8

const (
	chunkSizeStart chunkState = iota
	chunkSize
	chunkExtensionName // before the name of an extension
	chunkExtension
	chunkExtensionQuoted
	chunkExtensionEscape // after a backslash in a quoted string
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

// ChunkScanner scans a chunked body (RFC 9112, section 7.1) in pieces of any size. It
// is strict: hexadecimal sizes below 2^60 without white space, CRLF line ends, bounded
// extensions, which have names and end their quoted strings (section 7.1.1), and bounded
// trailers. The zero value is ready.
type ChunkScanner struct {
	state     chunkState
	digits    uint8
	extension int   // bytes of extension in this chunk
	overhead  int   // bytes of extension in this body
	remaining int64 // data bytes left of this chunk
	trailer   int   // bytes of trailer section
	fields    int   // lines of trailer section
	nameEnded bool  // of the trailer line

	// Length is the number of data bytes so far.
	Length int64
}

func (s *ChunkScanner) Done() bool { return s.state == chunkDone }

// InTrailer reports whether the last chunk has been scanned.
func (s *ChunkScanner) InTrailer() bool {
	return s.state >= chunkTrailerStart
}

// AtStart reports whether a chunk begins.
func (s *ChunkScanner) AtStart() bool { return s.state == chunkSizeStart }

// Remaining returns the data bytes left of the current chunk, as far as its size is
// known.
func (s *ChunkScanner) Remaining() int64 { return s.remaining }

// Next scans b up to a boundary: the end of a run of data, the start of the trailer
// section, the end of the body, or the end of b. It returns the number of bytes
// scanned, of which b[dataStart:n] is data and the rest is framing. err is ErrChunk or
// ErrTrailer, and final.
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
				s.state, s.extension = chunkExtensionName, 0
			case '\r':
				s.state = chunkSizeLF
			default:
				return n, n, ErrChunk
			}
		case chunkExtensionName, chunkExtension, chunkExtensionQuoted, chunkExtensionEscape:
			if c == '\r' && s.state == chunkExtension {
				s.state = chunkSizeLF
				break
			}
			s.extension++
			s.overhead++
			if !s.extends(c) || s.extension > maxChunkExtensionBytes ||
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

// extends takes a byte of an extension, and reports whether it is allowed there.
func (s *ChunkScanner) extends(c byte) bool {
	switch s.state {
	case chunkExtensionName:
		if c == ' ' || c == '\t' {
			return true
		}
		s.state = chunkExtension
		return chars[c]&charToken != 0
	case chunkExtension:
		switch c {
		case ';':
			s.state = chunkExtensionName
		case '"':
			s.state = chunkExtensionQuoted
		}
	case chunkExtensionQuoted:
		switch c {
		case '\\':
			s.state = chunkExtensionEscape
		case '"':
			s.state = chunkExtension
		}
	case chunkExtensionEscape:
		s.state = chunkExtensionQuoted
	}
	return chars[c]&charValue != 0
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
