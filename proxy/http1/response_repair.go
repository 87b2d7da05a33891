package http1

import "bytes"

// RuleStatusLine is the rule of a head that does not begin with a status.
const RuleStatusLine = "bad_status_line"

// A Fault says why the head of a response is refused.
type Fault struct {
	Err    error  // of [ResponseHead.Scan]
	Rule   string // the reason for which a request with such a line is refused, or RuleStatusLine
	Field  string // the name of the field, as far as it is a token; "": the status line, or the end of the head
	Offset int    // of the line in the head
}

// RepairResponse repairs the response head at the start of b, which [ResponseHead.Scan] has
// refused, or says why that cannot be done. It takes what RFC 9112 lets a recipient repair, and
// what other proxies take as well:
//
//   - lines that end with LF alone (section 2.2);
//   - a version from 1.2 to 1.9, which becomes 1.1 (RFC 9110, section 2.5);
//   - a version of 1.0 with Transfer-Encoding, which becomes 1.1 (section 6.1);
//   - equal lengths in several Content-Length fields, or in a list, which become one (section 6.3);
//   - a Content-Length beside Transfer-Encoding, which goes (section 6.3);
//   - control characters in the value of a field, except NUL, CR and those of the two fields above,
//     which become spaces (RFC 9110, section 5.5).
//
// The result is a head that Scan accepts, in memory of its own, and the length that it has in b;
// 0: it is not complete and may become one. A head that Scan accepts stays as it is. The sender
// of a repaired head may mean another end of its message, so nothing else may be read from the
// connection as a response.
func RepairResponse(b []byte, maxFields int) (repaired []byte, length int, fault *Fault) {
	r := repair{out: make([]byte, 0, len(b)+bytes.Count(b, lf)), chunked: hasChunked(b), contentLength: -1}
	r.scan.Reset(maxFields)
	name := []byte(nil)
	for n := 0; ; {
		line, end, ok := nextLine(b, n)
		if !ok {
			return nil, 0, nil
		}
		if len(line) == 0 || !isSpace(line[0]) { // else it continues the field before
			name = tokenOf(line)
		}
		var err error
		switch {
		case n == 0:
			name = nil
			r.appendStatusLine(line)
		case r.lines > maxFields && len(line) > 0: // also of lines that go
			err = ErrTooManyFields
		default:
			err = r.appendField(name, line)
		}
		done := 0
		if err == nil {
			done, err = r.scan.scan(r.out)
		}
		switch {
		case err != nil:
			return nil, 0, r.fault(err, name, n)
		case done > 0:
			return r.out, end, nil
		}
		n = end
		r.lines++
	}
}

// A repair is a head that is being repaired line by line.
type repair struct {
	out           []byte
	scan          ResponseHead // of out
	lines         int          // that were read
	chunked       bool         // the head has Transfer-Encoding: chunked
	contentLength int64        // -1: none was read
}

var lf = []byte{'\n'}

// nextLine returns the line at b[n:], without its end, and where the next one starts. ok: the
// line is complete.
func nextLine(b []byte, n int) (line []byte, end int, ok bool) {
	i := bytes.IndexByte(b[n:], '\n')
	if i < 0 {
		return nil, n, false
	}
	line = b[n : n+i]
	if i > 0 && line[i-1] == '\r' {
		line = line[:i-1]
	}
	return line, n + i + 1, true
}

// hasChunked reports whether a field line of the head b is Transfer-Encoding: chunked.
func hasChunked(b []byte) bool {
	_, n, ok := nextLine(b, 0) // the status line
	for ok {
		var line []byte
		if line, n, ok = nextLine(b, n); len(line) == 0 {
			return false
		}
		if HasName(line, "transfer-encoding") && EqualFold(trimSpace(line[len("transfer-encoding:"):]), "chunked") {
			return true
		}
	}
	return false
}

// tokenOf returns the start of line that is a token: the name of a field line.
func tokenOf(line []byte) []byte {
	for i, c := range line {
		if chars[c]&charToken == 0 {
			return line[:i]
		}
	}
	return line
}

func (r *repair) appendStatusLine(line []byte) {
	r.appendLine(line)
	const version = "HTTP/1."
	if len(line) > len(version) && string(line[:len(version)]) == version {
		minor := &r.out[len(version)]
		if *minor >= '2' && *minor <= '9' || *minor == '0' && r.chunked {
			*minor = '1'
		}
	}
}

// appendField appends a field line, or the empty line at the end.
func (r *repair) appendField(name, line []byte) error {
	isField := len(name) > 0 && len(name) < len(line) && line[len(name)] == ':' && !isSpace(line[0])
	switch {
	case isField && EqualFold(name, "content-length"):
		return r.appendLength(line, line[len(name)+1:])
	case isField && EqualFold(name, "transfer-encoding"):
		r.appendLine(line)
		return nil
	}
	start := len(r.out)
	r.appendLine(line)
	if isField {
		value := r.out[start+len(name) : len(r.out)-len("\r\n")]
		for i, c := range value {
			if chars[c]&charValue == 0 && c != 0 && c != '\r' {
				value[i] = ' '
			}
		}
	}
	return nil
}

// appendLength appends a Content-Length line, unless that is said already or does not count.
func (r *repair) appendLength(line, value []byte) error {
	first, said := []byte(nil), r.contentLength >= 0
	for element := range bytes.SplitSeq(value, []byte{','}) {
		element = trimSpace(element)
		length, ok := ParseLength(element)
		if !ok || r.contentLength >= 0 && length != r.contentLength {
			return ErrContentLength
		}
		if r.contentLength = length; first == nil {
			first = element
		}
	}
	switch {
	case said, r.chunked:
	case bytes.IndexByte(value, ',') >= 0:
		r.out = AppendLine(r.out, "Content-Length: ", first)
	default:
		r.appendLine(line)
	}
	return nil
}

func (r *repair) appendLine(line []byte) { r.out = append(append(r.out, line...), "\r\n"...) }

// fault returns the fault of the line at offset.
func (r *repair) fault(err error, name []byte, offset int) *Fault {
	f := &Fault{Err: err, Rule: RuleStatusLine, Field: string(name), Offset: offset}
	if err != ErrTooManyFields {
		f.Err = r.scan.malformed()
	}
	if cause, ok := err.(*Error); ok && f.Err != ErrResponse {
		f.Rule = cause.Reason
	}
	return f
}
