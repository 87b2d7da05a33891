package fields

import (
	"strconv"

	"sluice/proxy/http1"
)

// As that of HPACK, the encoder uses the names and the status codes of the static table, and no
// Huffman code and no dynamic table.

// qpackIndex finds field names in the static table.
var qpackIndex = indexOf(qpackTable[:])

// qpackStatuses has the static indexes of the :status fields by their status; 0: there is none.
var qpackStatuses = [...]byte{
	100: 63, 103: 24, 200: 25, 204: 64, 206: 65, 302: 66, 304: 26,
	400: 67, 403: 68, 404: 27, 421: 69, 425: 70, 500: 71, 503: 28,
}

// The first bits of representations (RFC 9204, section 4.5).
const (
	qpackIndexed = 0xc0
	qpackLiteral = 0x50 // with a name of the static table
	qpackNamed   = 0x20 // with a literal name

	qpackLiteralNever = 0x20 // with qpackLiteral: never indexed
	qpackNamedNever   = 0x10 // with qpackNamed
)

// AppendQPACKPrefix appends what begins a section without references to the dynamic table.
func AppendQPACKPrefix(out []byte) []byte { return append(out, 0, 0) }

// AppendQPACKStatus appends the :status field.
func AppendQPACKStatus(out []byte, status int) []byte {
	if status < len(qpackStatuses) && qpackStatuses[status] != 0 {
		return appendInteger(out, qpackIndexed, 6, int(qpackStatuses[status]))
	}
	out = append(appendInteger(out, qpackLiteral, 4, int(qpackStatuses[200])), 3)
	return strconv.AppendInt(out, int64(status), 10)
}

// AppendQPACKField appends a field, with its name in lower case. An intermediary must not
// index fields with secrets (RFC 9204, section 7.1.3).
func AppendQPACKField(out, name, value []byte) []byte {
	const (
		setCookie     = 14
		authorization = 84
	)
	switch index := qpackIndex.find(name); index {
	case 0:
		first := byte(qpackNamed)
		if http1.EqualFold(name, "proxy-authorization") {
			first |= qpackNamedNever
		}
		out = appendLowerCase(appendInteger(out, first, 3, len(name)), name)
	case setCookie, authorization:
		out = appendInteger(out, qpackLiteral|qpackLiteralNever, 4, index)
	default:
		out = appendInteger(out, qpackLiteral, 4, index)
	}
	return appendPlain(out, value)
}

// AppendQPACKLine appends a field line of HTTP/1.1 as a field.
func AppendQPACKLine(out, line []byte) []byte {
	return AppendQPACKField(out, http1.LineName(line), http1.LineValue(line))
}
