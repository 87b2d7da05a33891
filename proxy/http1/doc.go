// Package http1 is the syntax of HTTP/1.1 messages (RFC 9112) for an intermediary:
// strict, resumable scanners that record positions in the received bytes, so that these
// can be forwarded unchanged.
//
// Scanners do not copy, allocate, or do input or output. A scanner is called with the
// same growing buffer until its part is complete, and looks at each byte once.
//
// They are stricter than RFC 9112 requires of a recipient, to prevent request
// smuggling: a line ends with CRLF, a field line is not folded, a message has one
// length. A refused message gives an [Error] with the status to answer. Of peers, [RepairResponse]
// and [ChunkScanner.Lenient] take more, which is never forwarded as it is.
package http1
