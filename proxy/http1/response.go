package http1

import "errors"

// ErrResponseTooLong means that the head of a response exceeds its limit. It is not malformed: it
// may repeat a part of the request.
var ErrResponseTooLong = errors.New("the response head exceeds its limit")

// ResponseHead is the head of a response. It needs a Reset before the first scan.
type ResponseHead struct {
	Head

	Status int  // 100 to 999
	HTTP10 bool // the version is 1.0, not 1.1

	lineEnd uint16 // of the status line, before its CRLF
}

// Reset prepares h for another response, with a limit of the number of field lines.
func (h *ResponseHead) Reset(maxFields int) {
	h.reset(maxFields)
	h.Status, h.HTTP10, h.lineEnd = 0, false, 0
}

// Scan continues with the head at the start of b: see [RequestHead.Scan]. The only errors are
// [ErrTooManyFields], [ErrResponse] and [ErrResponseField]. [RepairResponse] may repair a head
// with one of the last two.
func (h *ResponseHead) Scan(b []byte) (int, error) {
	n, err := h.scan(b)
	if err != nil && err != ErrTooManyFields {
		err = h.malformed()
	}
	return n, err
}

// scan is Scan with the error of the line that is not as it must be.
func (h *ResponseHead) scan(b []byte) (int, error) {
	for {
		start, end, complete, err := h.nextLine(b)
		if err != nil {
			return 0, err
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
			if err := h.finish(b); err != nil {
				return 0, err
			}
			if h.Chunked && h.HTTP10 {
				return 0, ErrTransferCoding
			}
			return end + 2, nil
		default:
			f, err := h.scanField(b, start, end)
			if err == nil && f.Name != NameOther {
				err = h.scanCommon(f, f.Value(b))
			}
			if err != nil {
				return 0, err
			}
		}
	}
}

// malformed returns the error of a head with a line that is not as it must be.
func (h *ResponseHead) malformed() error {
	if h.startLine {
		return ErrResponseField
	}
	return ErrResponse
}

// StatusText returns status code and reason as sent: "200 OK".
func (h *ResponseHead) StatusText(b []byte) []byte { return b[len("HTTP/1.1 "):h.lineEnd] }

// Interim reports whether a final response follows: 1xx except 101.
func (h *ResponseHead) Interim() bool { return h.Status < 200 && h.Status != 101 }

// Bodiless reports whether the response has no body, independent of its fields (RFC
// 9112, section 6.3).
func (h *ResponseHead) Bodiless(toHead bool) bool {
	return toHead || h.Status < 200 || h.Status == 204 || h.Status == 304
}

// Persistent reports whether another response may be read from the connection. After a
// 204 with a length it may not: the upstream may send the body.
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
	// RFC 9110, section 15 wants a status of 600 or more treated as one of 500 to 599, not refused.
	if a < '1' || a > '9' || !isDigit(b) || !isDigit(c) {
		return false
	}
	h.Status = int(a-'0')*100 + int(b-'0')*10 + int(c-'0')
	// RFC 9112, section 4 requires a space before an empty reason; many servers omit
	// it.
	if len(line) > 12 && line[12] != ' ' {
		return false
	}
	return IsValue(line[12:])
}
