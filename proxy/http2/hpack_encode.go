package http2

import "strconv"

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

// AppendStatus appends the :status field.
func AppendStatus(out []byte, status int) []byte {
	const status200, status204, status206, status304, status400, status404, status500 = 8, 9, 10, 11, 12, 13, 14
	index := 0
	switch status {
	case 200:
		index = status200
	case 204:
		index = status204
	case 206:
		index = status206
	case 304:
		index = status304
	case 400:
		index = status400
	case 404:
		index = status404
	case 500:
		index = status500
	default:
		return strconv.AppendInt(append(out, status200, 3), int64(status), 10)
	}
	return append(out, 0x80|byte(index))
}

// AppendField appends a field, with its name in lower case. An intermediary must not
// index fields with secrets (RFC 7541, section 7.1.3).
func AppendField(out, name, value []byte) []byte {
	first, index := byte(0), 0
	if len(name) < len(responseNames) {
		for _, s := range responseNames[len(name)] {
			if equalFold(name, s.name) {
				index = s.index
				break
			}
		}
	}
	switch index {
	case 0:
		out = appendInteger(append(out, first), 0, 7, len(name))
		for _, c := range name {
			out = append(out, lower(c))
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

// equalFold reports whether b equals lowered, which has no upper-case letter, ignoring
// ASCII case.
func equalFold(b []byte, lowered string) bool {
	for i, c := range b {
		if lower(c) != lowered[i] {
			return false
		}
	}
	return len(b) == len(lowered)
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}
