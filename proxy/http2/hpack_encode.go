package http2

import (
	"strconv"

	"sluice/proxy/http1"
)

// The encoder uses the names and the status codes of the static table, and no Huffman
// code and no dynamic table. So it has no state, and does not depend on the settings of
// the client. HAProxy does the same.

// responseNames has the static indexes of the field names of responses, by length.
var responseNames = func() (table [32][]staticName) {
	const firstRegular = 15
	for i := firstRegular; i <= staticEntries; i++ {
		n := staticTable[i].name
		table[len(n)] = append(table[len(n)], staticName{n, i})
	}
	return table
}()

type staticName struct {
	name  string
	index int
}

// statusIndexes has the static indexes of the :status fields by their status; 0: there is none.
var statusIndexes = [...]byte{200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}

// AppendStatus appends the :status field.
func AppendStatus(out []byte, status int) []byte {
	if status < len(statusIndexes) && statusIndexes[status] != 0 {
		return append(out, 0x80|statusIndexes[status])
	}
	return strconv.AppendInt(append(out, statusIndexes[200], 3), int64(status), 10)
}

// AppendField appends a field, with its name in lower case. An intermediary must not
// index fields with secrets (RFC 7541, section 7.1.3).
func AppendField(out, name, value []byte) []byte {
	first, index := byte(0), 0
	if len(name) < len(responseNames) {
		for _, s := range responseNames[len(name)] {
			if http1.EqualFold(name, s.name) {
				index = s.index
				break
			}
		}
	}
	switch index {
	case 0:
		out = appendInteger(append(out, first), 0, 7, len(name))
		for _, c := range name {
			out = append(out, http1.Lower(c))
		}
	case setCookieIndex, authorizationIndex, proxyAuthorizationIndex:
		first = 0x10 // never indexed
		fallthrough
	default:
		out = appendInteger(out, first, 4, index)
	}
	out = appendInteger(out, 0, 7, len(value))
	return append(out, value...)
}

const (
	authorizationIndex      = 23
	proxyAuthorizationIndex = 49
	setCookieIndex          = 55
)

// appendInteger appends an integer with a prefix of that many bits, after the bits of
// first.
func appendInteger(out []byte, first byte, prefix uint8, value int) []byte {
	mask := 1<<prefix - 1
	if value < mask {
		return append(out, first|byte(value))
	}
	out = append(out, first|byte(mask))
	for value -= mask; value >= 0x80; value >>= 7 {
		out = append(out, byte(value)|0x80)
	}
	return append(out, byte(value))
}

// AppendTrailer appends the frames of a trailer section, and nothing for an empty one: then
// DATA ends the stream.
func AppendTrailer(out, section []byte, id uint32) []byte {
	if len(section) == 0 {
		return out
	}
	start := len(out)
	out = append(out, make([]byte, FrameHeaderBytes)...)
	for line := range http1.Lines(section) {
		out = AppendFieldLine(out, line)
	}
	if len(out) == start+FrameHeaderBytes {
		return out[:start]
	}
	return EndFieldBlock(out, start, id, true)
}

// AppendFieldLine appends a field line of HTTP/1.1 as a field of HTTP/2.
func AppendFieldLine(out, line []byte) []byte {
	return AppendField(out, http1.LineName(line), http1.LineValue(line))
}
