package fields

import (
	"strconv"

	"sluice/proxy/http1"
)

// The encoder uses the names and the status codes of the static table, and no Huffman
// code and no dynamic table. So it has no state, and does not depend on the settings of
// the client. HAProxy does the same.

// hpackIndex finds field names in the static table.
var hpackIndex = indexOf(hpackTable[:])

// hpackStatuses has the static indexes of the :status fields by their status; 0: there is none.
var hpackStatuses = [...]byte{200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}

// AppendHPACKStatus appends the :status field.
func AppendHPACKStatus(out []byte, status int) []byte {
	if status < len(hpackStatuses) && hpackStatuses[status] != 0 {
		return append(out, 0x80|hpackStatuses[status])
	}
	return strconv.AppendInt(append(out, hpackStatuses[200], 3), int64(status), 10)
}

// AppendHPACKField appends a field, with its name in lower case. An intermediary must not
// index fields with secrets (RFC 7541, section 7.1.3).
func AppendHPACKField(out, name, value []byte) []byte {
	const (
		authorization      = 23
		proxyAuthorization = 49
		setCookie          = 55
	)
	first := byte(0)
	switch index := hpackIndex.find(name); index {
	case 0:
		out = appendLowerCase(appendInteger(append(out, 0), 0, 7, len(name)), name)
	case setCookie, authorization, proxyAuthorization:
		first = 0x10 // never indexed
		fallthrough
	default:
		out = appendInteger(out, first, 4, index)
	}
	return appendPlain(out, value)
}

// AppendHPACKLine appends a field line of HTTP/1.1 as a field.
func AppendHPACKLine(out, line []byte) []byte {
	return AppendHPACKField(out, http1.LineName(line), http1.LineValue(line))
}

// AppendHPACKRequest appends the pseudo-header fields of a request (RFC 9113, section
// 8.3.1).
func AppendHPACKRequest(out, method []byte, scheme string, authority, path []byte) []byte {
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
	return appendPlain(appendInteger(out, 0, 4, index), value)
}
