// Package http3 is HTTP/3 (RFC 9114) on the side of the server: sockets of UDP, connections of
// QUIC, and their streams, with frames and field sections of their own. It alone imports quic-go.
//
// There is no dynamic table of QPACK (RFC 9204), so no stream waits for another one. There is no
// 0-RTT: a request that came with it could be repeated by others (RFC 8470). There is no push.
package http3
