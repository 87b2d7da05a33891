package fields

import "sluice/proxy/http1"

// AppendResponse appends the response head f as HTTP/1.1 text for an http1.ResponseHead.
// A body without Content-Length has no framing in the text: the stream ends it.
func (f *Fields) AppendResponse(out []byte) ([]byte, error) {
	if !f.hasStatus() {
		return out, ErrMalformed
	}
	out = append(append(append(out, "HTTP/1.1 "...), f.value(&f.list[0])...), " \r\n"...)
	for i := 1; i < len(f.list); i++ {
		field := &f.list[i]
		if field.rule(false) != "" {
			return out, ErrMalformed
		}
		out = f.appendField(out, field)
	}
	return append(out, "\r\n"...), nil
}

// hasStatus reports whether f begins with a status of three characters.
func (f *Fields) hasStatus() bool {
	return len(f.list) > 0 && string(f.nameOf(&f.list[0])) == ":status" && len(f.value(&f.list[0])) == len("200")
}

// rule returns the rule of a response or a trailer section that a field breaks; "": none.
func (field *Field) rule(trailer bool) string {
	switch field.name {
	case nameOther, nameContentLength, nameCookie, nameHost:
	case nameTE:
		if !trailer {
			return connectionField
		}
	case nameConnectionSpecific:
		return connectionField
	default:
		return http1.ErrFieldName.Reason
	}
	switch {
	case field.malformedName:
		return http1.ErrFieldName.Reason
	case field.malformed:
		return http1.ErrFieldValue.Reason
	}
	return ""
}

// connectionField is the rule of RFC 9113, section 8.2.2.
const connectionField = "connection_field"

// startOfName returns b as far as it has only what names may have.
func startOfName(b []byte) []byte {
	for i, c := range b {
		if chars[c]&charToken == 0 && c != ':' {
			return b[:i]
		}
	}
	return b
}

// Fault says why AppendResponse or, of a trailer section, AppendTrailer has refused f. The offset
// is that in the text that it would have appended.
func (f *Fields) Fault(trailer bool) http1.Fault {
	fields, offset := f.list, 0
	if !trailer {
		if !f.hasStatus() {
			return http1.Fault{Err: ErrMalformed, Rule: http1.RuleStatusLine}
		}
		fields, offset = f.list[1:], len("HTTP/1.1 200 \r\n")
	}
	for i := range fields {
		field := &fields[i]
		if rule := field.rule(trailer); rule != "" {
			return http1.Fault{Err: ErrMalformed, Rule: rule, Field: string(startOfName(f.nameOf(field))), Offset: offset}
		}
		offset += len(f.nameOf(field)) + len(f.value(field)) + len(": \r\n")
	}
	if trailer { // in a frame that does not end the stream, or over its limit
		return http1.Fault{Err: ErrMalformed, Rule: http1.ErrTrailer.Reason}
	}
	return http1.Fault{Err: ErrMalformed, Rule: http1.RuleStatusLine} // of an interim response, in a frame that ends the stream
}
