package http1

// Limits of a chunked body.
const (
	maxChunkExtensionBytes = 256      // of one chunk
	maxChunkOverheadBytes  = 16 << 10 // of extensions in one body, plus 1/16 of its data
	maxTrailerBytes        = 4 << 10  // including the final empty line
	maxTrailerFields       = 16
	maxChunkDigits         = 15 // of a size: it is below 2^60
)

// Limits of a chunk with [ChunkScanner.Lenient].
const (
	maxLenientExtensionBytes = 512 // with the white space before it
	maxLenientDigits         = 20  // with zeros before the size, which is below 2^60 all the same
)

type chunkState uint8

const (
	chunkSizeStart chunkState = iota
	chunkSize
	chunkSizeSpace     // after the digits
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
	// Lenient: sizes may have white space behind them (section 7.1.1) and zeros before them, and
	// extensions may be longer, as servers send them. Next then also stops before and after the
	// line of a size.
	Lenient bool
	// Odd: a line of a size was one that only Lenient allows. It must not be forwarded.
	Odd bool

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

// InSizeLine reports whether the line of a size has begun and has not ended.
func (s *ChunkScanner) InSizeLine() bool {
	return s.state > chunkSizeStart && s.state <= chunkSizeLF
}

// Remaining returns the data bytes left of the current chunk, as far as its size is
// known.
func (s *ChunkScanner) Remaining() int64 { return s.remaining }

// Next scans b up to a boundary: the end of a run of data, the start of the trailer
// section, the end of the body, or the end of b. Lenient adds two. It returns the number of bytes
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
				if s.digits++; s.digits > maxChunkDigits && !s.mayPad() {
					return n, n, ErrChunk
				}
				s.remaining = s.remaining<<4 | int64(digit)
				s.state = chunkSize
				break
			}
			if s.state == chunkSizeStart {
				return n, n, ErrChunk
			}
			switch s.extension = 0; {
			case c == ';':
				s.state = chunkExtensionName
			case c == '\r':
				s.state = chunkSizeLF
			case s.Lenient && isSpace(c) && s.mayExtend():
				s.state, s.Odd = chunkSizeSpace, true
			default:
				return n, n, ErrChunk
			}
		case chunkSizeSpace:
			switch {
			case c == ';':
				s.state = chunkExtensionName
			case c == '\r':
				s.state = chunkSizeLF
			case !isSpace(c) || !s.mayExtend():
				return n, n, ErrChunk
			}
		case chunkExtensionName, chunkExtension, chunkExtensionQuoted, chunkExtensionEscape:
			if c == '\r' && s.state == chunkExtension {
				s.state = chunkSizeLF
				break
			}
			if !s.extends(c) || !s.mayExtend() {
				return n, n, ErrChunk
			}
		case chunkSizeLF:
			if c != '\n' {
				return n, n, ErrChunk
			}
			s.digits = 0
			if s.remaining == 0 {
				s.state = chunkTrailerStart
				return n + 1, n + 1, nil
			}
			if s.state = chunkData; s.Lenient {
				return n + 1, n + 1, nil
			}
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
			if s.state = chunkSizeStart; s.Lenient {
				return n + 1, n + 1, nil
			}
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

// mayPad marks a size with more digits than usual as odd, and reports whether it is allowed: the
// digits before are zeros, so that the size stays below 2^60.
func (s *ChunkScanner) mayPad() bool {
	s.Odd = true
	return s.Lenient && s.digits <= maxLenientDigits && s.remaining < 1<<(4*(maxChunkDigits-1))
}

// mayExtend counts a byte of an extension, and reports whether it may have as many.
func (s *ChunkScanner) mayExtend() bool {
	s.extension++
	s.overhead++
	if s.extension > maxChunkExtensionBytes {
		s.Odd = true
		if !s.Lenient || s.extension > maxLenientExtensionBytes {
			return false
		}
	}
	return int64(s.overhead) <= maxChunkOverheadBytes+s.Length/16
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
