// Package http1 is the syntax of HTTP/1.1 messages (RFC 9112) as an
// intermediary needs it: strict, resumable scanners that note where things are
// in the bytes as they came, so that they can be passed on byte for byte.
//
// Nothing here copies, allocates or does input or output. A scanner is fed the
// same growing buffer until it says that its part is complete, and never looks
// at a byte twice.
//
// The scanners are stricter than RFC 9112 asks of a recipient, because two
// programs that read the same bytes differently is how requests are smuggled:
// a line ends with CRLF and nothing else, a field line is never folded, the
// length of a body is said once and in one way. What is refused carries the
// status to answer with, as an [Error].
package http1
