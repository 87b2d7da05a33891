// Package http2 is HTTP/2 (RFC 9113): it scans and appends frames, with the field blocks of package
// fields in them. A [Conn] is a connection with its streams, in the role of the server or the
// client. Except for Conn and [Stream], it does no I/O, has no goroutine, and nothing in it is safe
// for concurrent use unless noted. No function allocates once its buffers have grown.
package http2
