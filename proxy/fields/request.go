package fields

import (
	"bytes"

	"sluice/proxy/http1"
)

// RequestBytes returns a bound of the length of the text of AppendRequest.
func (f *Fields) RequestBytes() int {
	const perField, fixed = len(": \r\n"), len(" HTTP/1.1\r\ntransfer-encoding: chunked\r\ncookie: \r\n\r\n") + len(upgradeLines)
	return len(f.text) + perField*len(f.list) + fixed
}

// upgradeLines are what an extended CONNECT has in HTTP/1.1, without the protocol.
const upgradeLines = "connection: upgrade\r\nupgrade: \r\n"

// A requestHead collects what AppendRequest must know before it writes.
type requestHead struct {
	method, scheme, path      []byte
	authority, host           []byte
	protocol                  []byte
	length                    []byte // Content-Length, or nil
	contentLength             int64  // length as a number
	hasAuthority, hasProtocol bool
	cookies                   int // that are not empty
}

// AppendRequest appends the request head f as HTTP/1.1 text for an http1.RequestHead.
// ended: the request has no body. The text has one Host field. It keeps faults that have
// a status of their own: a CONNECT request, two different hosts, or none. Everything
// else that could be understood differently in HTTP/1.1 is ErrMalformed.
//
// length is that of the body, as far as Content-Length announces it; -1: there is no body, or its
// end is not announced. tunnel: the bytes after the head are of another protocol.
//
// The text of an extended CONNECT (RFC 8441) is a GET request with the fields Upgrade and
// Connection, and without Sec-WebSocket-Key. No other text has them.
func (f *Fields) AppendRequest(out []byte, ended bool) (_ []byte, length int64, tunnel bool, err error) {
	head, err := f.request()
	if err == nil && ended && head.contentLength > 0 {
		err = ErrMalformed
	}
	if err != nil {
		return out, -1, false, err
	}
	out = append(append(out, head.method...), ' ')
	out = append(out, head.path...)
	out = append(out, " HTTP/1.1\r\n"...)
	if head.hasAuthority {
		out = http1.AppendLine(out, "host: ", head.authority)
	}
	if head.host != nil && !(head.hasAuthority && bytes.Equal(head.host, head.authority)) {
		out = http1.AppendLine(out, "host: ", head.host)
	}
	for i := range f.list {
		if field := &f.list[i]; field.name == nameOther || field.name == nameTE {
			if head.hasProtocol && string(f.nameOf(field)) == "sec-websocket-key" {
				continue
			}
			out = f.appendField(out, field)
		}
	}
	if head.cookies > 0 {
		out = f.appendCookies(out)
	}
	length = -1
	switch {
	case head.hasProtocol:
		out = http1.AppendLine(append(out, "connection: upgrade\r\n"...), "upgrade: ", head.protocol)
	case head.length != nil:
		out = http1.AppendLine(out, "content-length: ", head.length)
		if !ended {
			length = head.contentLength
		}
	case !ended:
		out = append(out, "transfer-encoding: chunked\r\n"...)
	case expectsBody(head.method):
		out = append(out, "content-length: 0\r\n"...)
	}
	return append(out, "\r\n"...), length, head.hasProtocol, nil
}

// appendField appends a field as a line.
func (f *Fields) appendField(out []byte, field *Field) []byte {
	out = append(append(out, f.nameOf(field)...), ": "...)
	return append(append(out, f.value(field)...), "\r\n"...)
}

// appendCookies joins the cookie fields to one (RFC 9113, section 8.2.3), without the empty
// ones: white space would end the line.
func (f *Fields) appendCookies(out []byte) []byte {
	separator := "cookie: "
	for i := range f.list {
		if field := &f.list[i]; field.name == nameCookie && field.nameEnd < field.end {
			out = append(append(out, separator...), f.value(field)...)
			separator = "; "
		}
	}
	return append(out, "\r\n"...)
}

var methodGet = []byte("GET")

// request checks the fields of a request (RFC 9113, section 8.3.1). The method of an
// extended CONNECT becomes GET.
func (f *Fields) request() (head requestHead, err error) {
	regular := false
	for i := range f.list {
		field := &f.list[i]
		value := f.value(field)
		var pseudo *[]byte
		switch field.name {
		case nameMethod:
			pseudo = &head.method
		case nameScheme:
			pseudo = &head.scheme
		case namePath:
			pseudo = &head.path
		case nameAuthority:
			pseudo, head.hasAuthority = &head.authority, len(value) > 0
		case nameProtocol:
			pseudo, head.hasProtocol = &head.protocol, true
		case namePseudo, nameConnectionSpecific:
			return head, ErrMalformed
		case nameTE:
			if string(value) != "trailers" {
				return head, ErrMalformed
			}
		case nameHost:
			if head.host != nil {
				return head, ErrMalformed
			}
			head.host = value
		case nameCookie:
			if len(value) > 0 {
				head.cookies++
			}
		case nameContentLength:
			length, ok := http1.ParseLength(value)
			if !ok || head.length != nil && !bytes.Equal(head.length, value) {
				return head, ErrMalformed
			}
			head.length, head.contentLength = value, length
		}
		switch {
		case field.malformed:
			return head, ErrMalformed
		case pseudo == nil:
			regular = true
		case regular || *pseudo != nil:
			return head, ErrMalformed
		default:
			*pseudo = value
		}
	}
	if head.hasProtocol { // RFC 8441, section 4. A length would mean a body.
		if string(head.method) != "CONNECT" || len(head.protocol) == 0 || head.length != nil {
			return head, ErrMalformed
		}
		head.method = methodGet
	}
	switch {
	case len(head.method) == 0 || !consistsOf(head.method, charToken):
		return head, ErrMalformed
	case string(head.method) == "CONNECT":
		if head.scheme != nil || head.path != nil || !head.hasAuthority {
			return head, ErrMalformed
		}
		head.path = head.authority // for the refusal of http1
	case string(head.scheme) != "http" && string(head.scheme) != "https", !validPath(head.path, head.method):
		return head, ErrMalformed
	}
	return head, nil
}

// validPath reports whether path is in origin form or the asterisk (RFC 9113, section
// 8.3.1), without characters that end it in HTTP/1.1.
func validPath(path, method []byte) bool {
	if len(path) == 1 && path[0] == '*' {
		return string(method) == "OPTIONS"
	}
	return len(path) > 0 && path[0] == '/' && bytes.IndexByte(path, ' ') < 0 && bytes.IndexByte(path, '\t') < 0
}

// expectsBody reports whether servers expect a length for the method, even if there is
// no body (RFC 9110, section 8.6).
func expectsBody(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// AppendTrailer appends a trailer section as field lines of HTTP/1.1, without the empty
// line.
func (f *Fields) AppendTrailer(out []byte) ([]byte, error) {
	for i := range f.list {
		field := &f.list[i]
		if field.rule(true) != "" {
			return out, ErrMalformed
		}
		out = f.appendField(out, field)
	}
	return out, nil
}
