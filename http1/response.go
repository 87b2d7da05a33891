package http1

// ResponseHead is the head of a response. The zero value needs a Reset first.
type ResponseHead struct {
	Head

	Status int  // 100 to 599
	HTTP10 bool // the version is 1.0, not 1.1

	lineEnd uint16 // of the status line, before its CRLF
}

// Reset makes h ready for another response.
func (h *ResponseHead) Reset() {
	h.reset()
	h.Status, h.HTTP10, h.lineEnd = 0, false, 0
}

// Scan goes on with the head at the start of b: see [RequestHead.Scan]. The
// only error is [ErrResponse].
func (h *ResponseHead) Scan(b []byte) (int, error) {
	for {
		start, end, complete, err := h.nextLine(b)
		if err != nil {
			return 0, ErrResponse
		}
		if !complete {
			return 0, nil
		}
		switch {
		case !h.startLine:
			if !h.scanStatusLine(b[start:end]) {
				return 0, ErrResponse
			}
			h.lineEnd = uint16(end)
			h.startLine = true
		case start == end:
			if h.finish(b) != nil || h.Chunked && h.HTTP10 {
				return 0, ErrResponse
			}
			return end + 2, nil
		default:
			f, err := h.scanField(b, start, end)
			if err == nil && f.Name != NameOther {
				err = h.scanCommon(f, f.Value(b))
			}
			if err != nil {
				return 0, ErrResponse
			}
		}
	}
}

// StatusText returns the status code and reason as they came: "200 OK".
func (h *ResponseHead) StatusText(b []byte) []byte { return b[len("HTTP/1.1 "):h.lineEnd] }

// Interim reports whether a final response follows this one: 1xx, but for 101,
// which ends HTTP on the connection.
func (h *ResponseHead) Interim() bool { return h.Status < 200 && h.Status != 101 }

// Bodiless reports whether no body follows whatever the fields say (RFC 9112,
// section 6.3).
func (h *ResponseHead) Bodiless(toHead bool) bool {
	return toHead || h.Status < 200 || h.Status == 204 || h.Status == 304
}

// Persistent reports whether another response may be read from the connection:
// the upstream keeps it, and sends nothing in between. Where it gives a 204 a
// body that cannot be there, it may well send it.
func (h *ResponseHead) Persistent() bool {
	if h.Status == 204 && (h.ContentLength > 0 || h.Chunked) {
		return false
	}
	if h.HTTP10 {
		return h.KeepAlive && !h.Close
	}
	return !h.Close
}

func (h *ResponseHead) scanStatusLine(line []byte) bool {
	if len(line) < len("HTTP/1.1 200") || string(line[:7]) != "HTTP/1." || line[8] != ' ' {
		return false
	}
	switch line[7] {
	case '1':
	case '0':
		h.HTTP10 = true
	default:
		return false
	}
	a, b, c := line[9], line[10], line[11]
	if a < '1' || a > '5' || !isDigit(b) || !isDigit(c) {
		return false
	}
	h.Status = int(a-'0')*100 + int(b-'0')*10 + int(c-'0')
	// RFC 9112, section 4: a space follows even an absent reason; servers that
	// leave it out are common and harmless.
	if len(line) > 12 && line[12] != ' ' {
		return false
	}
	return isValue(line[12:])
}
