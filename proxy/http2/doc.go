// Package http2 is HTTP/2 (RFC 9113) with HPACK (RFC 7541): it scans and appends frames, decodes
// and encodes field blocks, and converts heads to HTTP/1.1 text. A [Conn] is a connection with its
// streams, in the role of the server or the client. Except for Conn and [Stream], it does no I/O,
// has no goroutine, and nothing in it is safe for concurrent use unless noted. No function
// allocates once its buffers have grown.
package http2
