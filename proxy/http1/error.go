package http1

// Error describes why a message is refused. Errors are constants of this package and
// comparable.
type Error struct {
	Status int    // status code for an answer to a request; 502 for a response
	Reason string // a word for the X-Sluice-Reason field and the access log
	text   string
}

func (e *Error) Error() string { return e.text }

// Errors of requests.
var (
	ErrMethod          = &Error{400, "bad_method", "method is not a token"}
	ErrMethodRefused   = &Error{405, "method_refused", "CONNECT, TRACE and PRI are not served"}
	ErrProtocolRefused = &Error{501, "protocol_refused", "an extended CONNECT is for WebSocket only"} // RFC 8441, of HTTP/2
	ErrTarget          = &Error{400, "bad_target", "request target is malformed"}
	ErrTargetTooLong   = &Error{414, "target_too_long", "request target is over its limit"}
	ErrVersion         = &Error{400, "bad_version", "HTTP version is malformed"}
	ErrVersionRefused  = &Error{505, "version_refused", "HTTP version is neither 1.0 nor 1.1"}
	ErrLineEnd         = &Error{400, "bad_line_end", "line does not end with CRLF, or holds a bare CR"}
	ErrFolded          = &Error{400, "folded_field", "field line starts with white space"}
	ErrFieldName       = &Error{400, "bad_field_name", "field name is not a token followed by a colon"}
	ErrFieldValue      = &Error{400, "bad_field_value", "field value holds a control character"}
	ErrTooManyFields   = &Error{431, "too_many_fields", "more header fields than allowed"}
	ErrHeadTooLong     = &Error{431, "head_too_long", "request head is over its limit"}
	ErrHost            = &Error{400, "bad_host", "Host is missing, repeated or malformed"}
	ErrContentLength   = &Error{400, "bad_content_length", "Content-Length is repeated or not a number"}
	ErrTransferCoding  = &Error{400, "bad_transfer_encoding", "Transfer-Encoding is not exactly chunked, or not allowed here"}
	ErrLengthAndCoding = &Error{400, "length_and_coding", "Content-Length and Transfer-Encoding in one message"}
	ErrExpectation     = &Error{417, "expectation_failed", "Expect is not 100-continue"}
	ErrChunk           = &Error{400, "bad_chunk", "chunked body is malformed"}
	ErrTrailer         = &Error{400, "bad_trailer", "trailer section is malformed or over its limit"}
	ErrBodyTooLong     = &Error{413, "body_too_long", "request body is over its limit"}
)

// ErrResponse is the error of a malformed response, such as one in another protocol.
var ErrResponse = &Error{502, "bad_response", "upstream sent a malformed response head"}

// ErrResponseField is that of a response with a status line and a malformed field: the peer
// answers.
var ErrResponseField = &Error{502, "bad_response", "upstream sent a response with a malformed header field"}
