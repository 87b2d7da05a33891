package proxy

import (
	"bytes"

	"sluice/proxy/http1"
	"sluice/proxy/socket"
	"sluice/route"
)

// maxEditedHead bounds a response head after edits: positions in a head have 16 bits.
const maxEditedHead = 60 << 10

// writeResponseHead writes the head of a response, with the edits of the route, to x.out
// in the wire format of the client. text is the head from the peer. It also decides
// whether the response is compressed.
func (x *answeredRequest) writeResponseHead(text []byte) error {
	a := x.actions
	if a != nil && !a.ResponseHeaders.Empty() {
		memory := socket.RequestBuffers.Get().(*socket.Buffer)
		defer socket.RequestBuffers.Put(memory)
		line, fields := cutLine(text)
		text = x.appendEditedFields(append(memory.Bytes[:0], line...), fields, &a.ResponseHeaders)
		if !x.rescan(text) {
			return http1.ErrResponseTooLong
		}
	}
	if a != nil && a.Compress != nil {
		memory := socket.RequestBuffers.Get().(*socket.Buffer)
		defer socket.RequestBuffers.Put(memory)
		compressed, ok := x.compress(memory.Bytes[:0], text)
		if !ok {
			return http1.ErrResponseTooLong
		}
		text = compressed
	}
	x.Out = x.client.downstream.appendHead(x.Out[:0], text)
	return nil
}

// rescan scans a response head after edits, and reports whether it is not too long.
func (x *answeredRequest) rescan(edited []byte) bool {
	if len(edited) > maxEditedHead {
		return false
	}
	x.response.Reset(x.response.MaxFields())
	n, err := x.response.Scan(edited)
	return err == nil && n == len(edited) // otherwise it has too many fields now
}

// appendEditedFields appends field lines, which end with an empty line, after the edits e.
func (x *routedRequest) appendEditedFields(out, fields []byte, e *route.HeaderEdits) []byte {
	for len(fields) > len("\r\n") {
		var line []byte
		if line, fields = cutLine(fields); !drops(e, line) {
			out = append(out, line...)
		}
	}
	return x.appendAdded(out, e)
}

// appendAdded appends the field lines that e adds, and an empty line.
func (x *routedRequest) appendAdded(out []byte, e *route.HeaderEdits) []byte {
	for i := range e.Added {
		f := &e.Added[i]
		out = append(append(out, f.Name...), ": "...)
		start := len(out)
		out = f.Value.Append(out, x)
		clean(out[start:])
		if out = append(out, "\r\n"...); len(out) > maxSentHead {
			break
		}
	}
	return append(out, "\r\n"...)
}

// hasName reports whether a field line has that name in lower case.
func hasName(line []byte, name string) bool {
	return len(line) > len(name) && line[len(name)] == ':' && http1.EqualFold(line[:len(name)], name)
}

// cutLine returns the first line of text with its CRLF, and what follows.
func cutLine(text []byte) (line, rest []byte) {
	n := bytes.IndexByte(text, '\n') + 1
	return text[:n], text[n:]
}

// clean replaces control characters by spaces, so that a value cannot end its line. No
// value of a variable contains any.
func clean(value []byte) {
	for i, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			value[i] = ' '
		}
	}
}

// Variable implements [route.Values].
func (x *routedRequest) Variable(v route.Variable) []byte {
	b := x.in[x.start:x.end]
	switch v {
	case route.VariableAuthority:
		return x.head.Authority(b)
	case route.VariableClientAddress:
		return x.clientAddress()
	case route.VariableHost:
		return withoutPort(x.head.Authority(b))
	case route.VariableMethod:
		return x.head.MethodName(b)
	case route.VariablePath:
		path, _, _ := bytes.Cut(x.sentTarget(b), questionMark)
		return path
	case route.VariableQuery:
		_, query, _ := bytes.Cut(x.sentTarget(b), questionMark)
		return query
	case route.VariableRequestID:
		return x.requestID
	case route.VariableScheme:
		return []byte(x.Scheme())
	case route.VariableTarget:
		return x.head.OriginTarget(b)
	case route.VariableUser:
		return []byte(x.user)
	}
	return nil
}

// sentTarget returns the target that peers get, from the path on.
func (x *routedRequest) sentTarget(b []byte) []byte {
	if len(x.target) > 0 {
		return x.target
	}
	return x.head.OriginTarget(b)
}
