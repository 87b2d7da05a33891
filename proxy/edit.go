package proxy

import (
	"bytes"
	"slices"

	"sluice/proxy/http1"
	"sluice/proxy/reserved"
	"sluice/proxy/socket"
	"sluice/route"
)

// maxEditedHead bounds a response head after edits: positions in a head have 16 bits.
const maxEditedHead = 60 << 10

// writeResponseHead writes the head of a response, with the edits of the route, to x.out
// in the wire format of the client. text is the head from the peer. It also decides
// whether the response is compressed.
func (x *answer) writeResponseHead(text []byte) error {
	a := x.route.actions
	_, varies := pageForPeer(x) // other clients get a page
	varies = varies && len(x.response.Fields()) < x.response.MaxFields()
	if varies || !a.ResponseHeaders.Empty() || len(x.route.clientFields) > 0 {
		memory := socket.RequestBuffers.Get().(*socket.Buffer)
		defer socket.RequestBuffers.Put(memory)
		line, fields := http1.CutLine(text)
		if len(x.route.clientFields) > 0 {
			fields = x.route.withClientFields(fields)
		}
		text = x.route.appendEditedFields(append(memory.Bytes[:0], line...), fields, &a.ResponseHeaders)
		if a.CORS != nil {
			text = append(appendCORS(text[:len(text)-len("\r\n")], x.request, a.CORS), "\r\n"...)
		}
		if varies && !variesBy(text, "accept") {
			text = append(text[:len(text)-len("\r\n")], "Vary: Accept\r\n\r\n"...)
		}
		if !x.rescan(text) {
			return http1.ErrResponseTooLong
		}
	}
	if a.Compress != nil {
		memory := socket.RequestBuffers.Get().(*socket.Buffer)
		defer socket.RequestBuffers.Put(memory)
		compressed, ok := x.compress(memory.Bytes[:0], text)
		if !ok {
			return http1.ErrResponseTooLong
		}
		text = compressed
	}
	x.body.buffers.Out = x.request.client.downstream.appendHead(x.body.buffers.Out[:0], text)
	return nil
}

// rescan scans a response head after edits, and reports whether it is not too long.
func (x *answer) rescan(edited []byte) bool {
	if len(edited) > maxEditedHead {
		return false
	}
	x.response.Reset(x.response.MaxFields())
	n, err := x.response.Scan(edited)
	return err == nil && n == len(edited) // otherwise it has too many fields now
}

// appendEditedFields appends field lines, which end with an empty line, after the edits e.
func (x *chosenRoute) appendEditedFields(out, fields []byte, e *route.HeaderEdits) []byte {
	for line := range http1.Lines(fields) {
		if !drops(e, line) {
			out = append(out, line...)
		}
	}
	return x.appendAdded(out, e)
}

// appendAdded appends the field lines that e adds, and an empty line.
func (x *chosenRoute) appendAdded(out []byte, e *route.HeaderEdits) []byte {
	for i := range e.Added {
		f := &e.Added[i]
		out = append(append(out, f.Name...), ": "...)
		start := len(out)
		out = f.Append(out, x)
		http1.Clean(out[start:])
		if out = append(out, "\r\n"...); len(out) > maxSentHead {
			break
		}
	}
	return append(out, "\r\n"...)
}

// Variable implements [route.Values].
func (x *chosenRoute) Variable(v route.Variable) []byte {
	b := x.request.bytes()
	switch v {
	case route.VariableAuthority:
		return x.request.head.Authority(b)
	case route.VariableClientAddress:
		return x.request.clientAddress()
	case route.VariableHost:
		return withoutPort(x.request.head.Authority(b))
	case route.VariableMethod:
		return x.request.head.MethodName(b)
	case route.VariablePath:
		if path, _ := x.sentPath(b); len(path) > 0 && path[0] == '/' {
			return path
		}
		return slash
	case route.VariableQuery:
		_, query, _ := bytes.Cut(x.sentTarget(b), questionMark)
		return query
	case route.VariableRequestID:
		return x.request.requestID
	case route.VariableScheme:
		return []byte(x.request.Scheme())
	case route.VariableTarget:
		return urlTarget(x.request, b)
	case route.VariableUser:
		return []byte(x.user)
	}
	return nil
}

// sentTarget returns the target that peers get, from the path on.
func (x *chosenRoute) sentTarget(b []byte) []byte {
	if len(x.target) > 0 {
		return x.target
	}
	return x.request.head.OriginTarget(b)
}

// sentPath returns the path that peers get, and the query with its question mark, or nothing.
func (x *chosenRoute) sentPath(b []byte) (path, query []byte) {
	target := x.sentTarget(b)
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		return target[:i], target[i:]
	}
	return target, nil
}

// dropsField reports whether f of the response head b is not forwarded. trailers: the client gets
// the trailer section.
func (x *answer) dropsField(f http1.Field, b []byte, trailers bool) bool {
	switch f.Name {
	case http1.NameTrailer:
		return !trailers
	case http1.NameContentLength:
		return x.response.Status == 204 || x.response.Status < 200 // RFC 9110, section 8.6
	}
	return x.request.reserved().Drop(f.Name, f.FieldName(b), reserved.ToClients)
}

// dropsOfTrailer reports whether a line of a trailer section does not pass. The route edits the
// same names as in the head.
func (x *chosenRoute) dropsOfTrailer(line []byte, to reserved.Direction) bool {
	if x.request.reserved().DropFromTrailer(line, to) {
		return true
	}
	a := x.actions
	if to == reserved.ToClients {
		return drops(&a.ResponseHeaders, line)
	}
	return drops(&a.RequestHeaders, line) || drops(&a.Authorized, line)
}

// filterTrailer returns a trailer section without reserved fields. It does not change section,
// which is sent again with a request that is sent again.
func (x *chosenRoute) filterTrailer(section []byte, to reserved.Direction) []byte {
	if len(section) == 0 {
		return section
	}
	return http1.FilterTrailer(section, func(line []byte) bool { return x.dropsOfTrailer(line, to) })
}

// hasAlike reports whether a field's name is one of names, in lower case. A name with marks counts
// as that with hyphens.
func hasAlike(names []string, name []byte) bool {
	return slices.ContainsFunc(names, func(other string) bool { return http1.Alike(name, other) })
}

// drops reports whether e removes a field line. A name with marks counts as that with hyphens.
func drops(e *route.HeaderEdits, line []byte) bool {
	return slices.ContainsFunc(e.Dropped, func(name string) bool {
		return len(line) > len(name) && line[len(name)] == ':' && http1.Alike(line[:len(name)], name)
	})
}
