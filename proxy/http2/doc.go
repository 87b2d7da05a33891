// Package http2 has the wire format of HTTP/2 (RFC 9113) and HPACK (RFC 7541): it scans
// and appends frames, decodes and encodes field blocks, queues what is to be sent, and converts the head of a
// request to HTTP/1.1 text. It does no I/O and has no goroutine; nothing in it is safe
// for concurrent use unless noted. No function allocates once its buffers have grown.
package http2
