package proxy

import "sluice/http1"

// relayChunked passes a chunked body on as it came, following its syntax so as
// to know where it ends and that nothing malformed gets through. A trailer
// section is passed on to clients that said they can take it (RFC 9110,
// section 6.5.1), without fields that mean something in a head.
func (x *httpExchange) relayChunked(u *upstreamConn, first []byte) (clean bool, err error) {
	var scanner http1.ChunkScanner
	n, length, err := scanToTrailer(&scanner, first)
	if err != nil {
		return false, err
	}
	x.out = append(x.out, first[:n]...)
	x.bytesOut += length
	rest := first[n:]
	if !scanner.InTrailer() {
		if err := x.toClient(x.out); err != nil {
			return false, err
		}
		b := relayBuffers.Get().(*buffer)
		defer relayBuffers.Put(b)
		for !scanner.InTrailer() {
			got, err := x.readBody(u, b.bytes)
			if err != nil {
				return false, err
			}
			n, length, err := scanToTrailer(&scanner, b.bytes[:got])
			if err != nil {
				return false, err
			}
			x.bytesOut += length
			if scanner.InTrailer() {
				// The last chunk goes out together with the trailer section.
				x.out = append(x.out[:0], b.bytes[:n]...)
				rest = b.bytes[n:got]
				break
			}
			if err := x.toClient(b.bytes[:n]); err != nil {
				return false, err
			}
		}
	}
	section, surplus, err := x.readTrailer(u, &scanner, rest)
	if err != nil {
		return false, err
	}
	if x.head.TETrailers {
		x.out = appendTrailer(x.out, section)
	}
	x.out = append(x.out, "\r\n"...)
	if err := x.toClient(x.out); err != nil {
		return false, err
	}
	return !surplus, nil
}

// relayDechunked passes on only the data of a chunked body. The client learns
// the end from the connection being closed, so a body cut short must not close
// it in peace: the error makes the connection be reset.
func (x *httpExchange) relayDechunked(u *upstreamConn, first []byte) (clean bool, err error) {
	var scanner http1.ChunkScanner
	b := relayBuffers.Get().(*buffer)
	defer relayBuffers.Put(b)
	got := copy(b.bytes, first)
	for {
		data := b.bytes[:0]
		taken := 0
		for taken < got && !scanner.InTrailer() {
			n, dataStart, err := scanner.Next(b.bytes[taken:got])
			if err != nil {
				return false, err
			}
			data = append(data, b.bytes[taken+dataStart:taken+n]...) // moves left
			taken += n
		}
		x.bytesOut += int64(len(data))
		if len(x.out) > 0 {
			x.out = append(x.out, data...)
			data = x.out
		}
		if len(data) > 0 {
			if err := x.toClient(data); err != nil {
				return false, err
			}
		}
		x.out = x.out[:0]
		if scanner.InTrailer() {
			_, surplus, err := x.readTrailer(u, &scanner, b.bytes[taken:got])
			return err == nil && !surplus, err
		}
		if got, err = x.readBody(u, b.bytes); err != nil {
			return false, err
		}
	}
}

// scanToTrailer scans b up to the trailer section or its end, and returns how
// many bytes that were and how many of them data.
func scanToTrailer(scanner *http1.ChunkScanner, b []byte) (n int, length int64, err error) {
	before := scanner.Length
	for n < len(b) && !scanner.InTrailer() {
		taken, _, err := scanner.Next(b[n:])
		if err != nil {
			return n, 0, err
		}
		n += taken
	}
	return n, scanner.Length - before, nil
}

// readTrailer reads the rest of a chunked body from its trailer section on, of
// which rest has arrived. surplus reports whether more than that came.
func (x *httpExchange) readTrailer(u *upstreamConn, scanner *http1.ChunkScanner, rest []byte) (section []byte, surplus bool, err error) {
	used := 0
	section = x.from[:copy(x.from[:], rest)]
	for {
		n, _, err := scanner.Next(section[used:])
		if err != nil {
			return nil, false, err
		}
		used += n
		if scanner.Done() {
			return section[:used], used < len(section), nil
		}
		if len(section) == len(x.from) {
			return nil, false, http1.ErrTrailer
		}
		got, err := x.readBody(u, x.from[len(section):])
		if err != nil {
			return nil, false, err
		}
		section = x.from[:len(section)+got]
	}
}

// appendTrailer appends the lines of a trailer section but for those that would
// mean something if a recipient took them for header fields.
func appendTrailer(out, section []byte) []byte {
	for line := range http1.TrailerLines(section) {
		if !http1.ForbiddenInTrailer(line) {
			out = append(out, line...)
		}
	}
	return out
}
