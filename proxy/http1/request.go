package http1

import (
	"bytes"
	"slices"
)

// Method is a request method that matters to an intermediary; any other is MethodOther.
type Method uint8

const (
	MethodOther Method = iota
	MethodGet
	MethodHead
	MethodPost
	MethodPut
	MethodDelete
	MethodOptions
	MethodPatch
)

// Idempotent reports whether the method is idempotent (RFC 9110, section 9.2.2).
func (m Method) Idempotent() bool {
	switch m {
	case MethodGet, MethodHead, MethodPut, MethodDelete, MethodOptions:
		return true
	}
	return false
}

// RequestHead is the head of a request. It needs a Reset before the first scan.
type RequestHead struct {
	Head

	Method Method
	// HTTP10: the request's version is 1.0, not 1.1.
	HTTP10 bool
	// ExpectContinue: the client waits for a 100 before it sends the body.
	ExpectContinue bool

	methodEnd                uint16
	start                    uint16 // of the request line: 2 after an empty line
	targetStart, targetEnd   uint16
	pathStart, pathEnd       uint16
	hostStart, hostEnd       uint16 // the authority: of an absolute target, else of Host
	hasHost, hasAbsoluteForm bool
	maxTargetBytes           int
}

// maxRestOfRequestLine bounds method, spaces and version; the longest registered method
// has 17 bytes.
const maxRestOfRequestLine = 64

// Reset prepares h for another request, with limits of the request target and of the number of
// field lines.
func (h *RequestHead) Reset(maxTargetBytes, maxFields int) {
	h.reset(maxFields)
	h.Method, h.HTTP10, h.ExpectContinue = MethodOther, false, false
	h.methodEnd, h.start, h.targetStart, h.targetEnd, h.pathStart, h.pathEnd, h.hostStart, h.hostEnd = 0, 0, 0, 0, 0, 0, 0, 0
	h.hasHost, h.hasAbsoluteForm = false, false
	h.maxTargetBytes = maxTargetBytes
}

// Scan continues with the head at the start of b. It returns the length of the head,
// including the final empty line, or 0 if more bytes are needed; the next b must start
// with the same bytes. Any error is an *Error and final.
func (h *RequestHead) Scan(b []byte) (int, error) {
	for {
		start, end, complete, err := h.nextLine(b)
		// Before its end arrives, which may be never.
		if !h.startLine && end-start > h.maxTargetBytes+maxRestOfRequestLine {
			return 0, ErrTargetTooLong
		}
		if err != nil || !complete {
			return 0, err
		}
		switch {
		case !h.startLine && start == end:
			// RFC 9112, section 2.2: an empty line before the request line is ignored.
			if start > 0 {
				return 0, ErrMethod
			}
		case !h.startLine:
			if err := h.scanRequestLine(b, start, end); err != nil {
				return 0, err
			}
			h.startLine = true
		case start == end:
			return end + 2, h.finishRequest(b)
		default:
			if err := h.scanRequestField(b, start, end); err != nil {
				return 0, err
			}
		}
	}
}

// MethodName returns the method as sent.
func (h *RequestHead) MethodName(b []byte) []byte { return b[h.start:h.methodEnd] }

// Target returns the request target as sent.
func (h *RequestHead) Target(b []byte) []byte { return b[h.targetStart:h.targetEnd] }

// OriginTarget returns the part of Target from the path on, or "*". It is empty for an
// absolute target without a path (RFC 9112, section 3.2).
func (h *RequestHead) OriginTarget(b []byte) []byte { return b[h.pathStart:h.targetEnd] }

// Path returns the path of the target as sent, without the query.
func (h *RequestHead) Path(b []byte) []byte { return b[h.pathStart:h.pathEnd] }

// Authority returns host and port of an absolute target, else of Host (RFC 9112,
// section 3.2.2). It is empty only for an HTTP/1.0 request without both.
func (h *RequestHead) Authority(b []byte) []byte { return b[h.hostStart:h.hostEnd] }

// AbsoluteForm reports whether the target has an authority.
func (h *RequestHead) AbsoluteForm() bool { return h.hasAbsoluteForm }

// HasBody reports whether a body follows the head; a chunked one may be empty.
func (h *RequestHead) HasBody() bool { return h.Chunked || h.ContentLength > 0 }

// Persistent reports whether the client may send another request on the connection (RFC
// 9112, section 9.3).
func (h *RequestHead) Persistent() bool {
	if h.HTTP10 {
		return h.KeepAlive && !h.Close
	}
	return !h.Close
}

func (h *RequestHead) scanRequestLine(b []byte, start, end int) error {
	line := b[start:end]
	methodEnd := bytes.IndexByte(line, ' ')
	if methodEnd <= 0 || !consistsOf(line[:methodEnd], charToken) {
		return ErrMethod
	}
	h.start, h.methodEnd = uint16(start), uint16(start+methodEnd)
	switch string(line[:methodEnd]) {
	case "GET":
		h.Method = MethodGet
	case "HEAD":
		h.Method = MethodHead
	case "POST":
		h.Method = MethodPost
	case "PUT":
		h.Method = MethodPut
	case "DELETE":
		h.Method = MethodDelete
	case "OPTIONS":
		h.Method = MethodOptions
	case "PATCH":
		h.Method = MethodPatch
	case "CONNECT", "TRACE", "PRI":
		return ErrMethodRefused
	}

	version := line[methodEnd+1:]
	targetEnd := bytes.IndexByte(version, ' ')
	if targetEnd < 0 {
		return ErrVersion
	}
	target := version[:targetEnd]
	version = version[targetEnd+1:]
	switch {
	case string(version) == "HTTP/1.1":
	case string(version) == "HTTP/1.0":
		h.HTTP10 = true
	case len(version) == 8 && string(version[:5]) == "HTTP/" && isDigit(version[5]) && version[6] == '.' && isDigit(version[7]):
		return ErrVersionRefused
	default:
		return ErrVersion
	}
	return h.scanTarget(b, start+methodEnd+1, target)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (h *RequestHead) scanTarget(b []byte, start int, target []byte) error {
	if len(target) > h.maxTargetBytes {
		return ErrTargetTooLong
	}
	if len(target) == 0 || !isTarget(target) {
		return ErrTarget
	}
	h.targetStart, h.targetEnd = uint16(start), uint16(start+len(target))
	path := start
	switch {
	case target[0] == '/':
	case len(target) == 1 && target[0] == '*':
		if h.Method != MethodOptions {
			return ErrTarget
		}
	default:
		scheme := 0
		if len(target) > 7 && EqualFold(target[:7], "http://") {
			scheme = 7
		} else if len(target) > 8 && EqualFold(target[:8], "https://") {
			scheme = 8
		} else {
			return ErrTarget
		}
		authority := target[scheme:]
		if i := bytes.IndexAny(authority, "/?"); i >= 0 {
			authority = authority[:i]
		}
		if !validHost(authority) {
			return ErrHost
		}
		h.hasAbsoluteForm = true
		h.hostStart, h.hostEnd = uint16(start+scheme), uint16(start+scheme+len(authority))
		path = int(h.hostEnd)
	}
	h.pathStart, h.pathEnd = uint16(path), h.targetEnd
	if i := bytes.IndexByte(b[path:h.targetEnd], '?'); i >= 0 {
		h.pathEnd = uint16(path + i)
	}
	return nil
}

func (h *RequestHead) scanRequestField(b []byte, start, end int) error {
	f, err := h.scanField(b, start, end)
	if err != nil {
		return err
	}
	switch f.Name {
	case NameOther, NameUserAgent, NameAccept, NameCookie, NameMarked:
		return nil
	case NameHost:
		if h.hasHost || !validHost(f.Value(b)) {
			return ErrHost
		}
		h.hasHost = true
		if !h.hasAbsoluteForm {
			start, end := f.valueSpan(b)
			h.hostStart, h.hostEnd = uint16(start), uint16(end)
		}
		return nil
	case NameExpect:
		if !EqualFold(f.Value(b), "100-continue") {
			return ErrExpectation
		}
		h.ExpectContinue = true
		return nil
	}
	return h.scanCommon(f, f.Value(b))
}

func (h *RequestHead) finishRequest(b []byte) error {
	if !h.hasHost && !h.HTTP10 {
		return ErrHost
	}
	if h.Chunked && h.HTTP10 {
		return ErrTransferCoding
	}
	if err := h.finish(b); err != nil {
		return err
	}
	if h.HTTP10 || !h.HasBody() {
		h.ExpectContinue = false // RFC 9110, section 10.1.1
	}
	return nil
}

// validHost reports whether host is a host with an optional port and no user
// information (RFC 9110, section 4.2.4).
func validHost(host []byte) bool {
	if len(host) == 0 || len(host) > 261 || !consistsOf(host, charHost) {
		return false
	}
	port := host
	if host[0] == '[' {
		i := bytes.IndexByte(host, ']')
		if i < 0 || bytes.Count(host[1:i], []byte{':'}) < 2 {
			return false
		}
		if slices.ContainsFunc(host[1:i], func(c byte) bool { return !isDigit(c) && !(c|0x20 >= 'a' && c|0x20 <= 'f') && c != ':' && c != '.' }) {
			return false
		}
		if port = host[i+1:]; len(port) == 0 {
			return true
		}
		if port[0] != ':' {
			return false
		}
	} else if bytes.IndexByte(host, '[') >= 0 || bytes.IndexByte(host, ']') >= 0 {
		return false
	}
	i := bytes.IndexByte(port, ':')
	if i < 0 {
		return true
	}
	if i == 0 && host[0] == ':' {
		return false
	}
	return len(port[i+1:]) <= 5 && !slices.ContainsFunc(port[i+1:], func(c byte) bool { return !isDigit(c) })
}
