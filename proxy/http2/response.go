package http2

// AppendResponse appends the response head f as HTTP/1.1 text for an http1.ResponseHead.
// A body without Content-Length has no framing in the text: the stream ends it.
func (f *Fields) AppendResponse(out []byte) ([]byte, error) {
	const status = ":status"
	if len(f.list) == 0 || string(f.nameOf(&f.list[0])) != status || len(f.value(&f.list[0])) != len("200") {
		return out, ErrMalformed
	}
	out = append(append(append(out, "HTTP/1.1 "...), f.value(&f.list[0])...), " \r\n"...)
	for i := 1; i < len(f.list); i++ {
		field := &f.list[i]
		switch field.name {
		case nameOther, nameContentLength, nameCookie, nameHost:
		default:
			return out, ErrMalformed
		}
		if field.malformed {
			return out, ErrMalformed
		}
		out = f.appendField(out, field)
	}
	return append(out, "\r\n"...), nil
}

// AppendRequestStart appends the pseudo-header fields of a request (RFC 9113, section
// 8.3.1).
func AppendRequestStart(out, method []byte, scheme string, authority, path []byte) []byte {
	const (
		authorityIndex = 1
		getIndex       = 2
		postIndex      = 3
		rootIndex      = 4
		httpIndex      = 6
		httpsIndex     = 7
	)
	switch string(method) {
	case "GET":
		out = append(out, 0x80|getIndex)
	case "POST":
		out = append(out, 0x80|postIndex)
	default:
		out = appendIndexedName(out, getIndex, method)
	}
	if scheme == "https" {
		out = append(out, 0x80|httpsIndex)
	} else {
		out = append(out, 0x80|httpIndex)
	}
	if len(authority) > 0 {
		out = appendIndexedName(out, authorityIndex, authority)
	}
	if string(path) == "/" {
		return append(out, 0x80|rootIndex)
	}
	return appendIndexedName(out, rootIndex, path)
}

// appendIndexedName appends a field with a name of the static table, which is not
// added to the dynamic table.
func appendIndexedName(out []byte, index int, value []byte) []byte {
	out = appendInteger(out, 0, 4, index)
	return append(appendInteger(out, 0, 7, len(value)), value...)
}
