// Package fields is the field sections of HTTP/2 and HTTP/3, without frames and connections: HPACK
// (RFC 7541) and QPACK (RFC 9204), and heads as HTTP/1.1 text. Both versions have the same rules
// for the fields of a message (RFC 9113, section 8; RFC 9114, section 4). It does no I/O, and
// nothing in it is safe for concurrent use. No function allocates once its buffers have grown.
package fields
