package proxy

import (
	"sluice/proxy/http2"
	"sluice/proxy/socket"
)

// A tunnel over HTTP/2 (RFC 8441): the DATA frames of a stream in both directions are its
// bytes, END_STREAM is the end of one direction, and RST_STREAM of both.

// tunnel implements downstream.
func (s *http2Stream) tunnel(t *socket.Tunnel) (end socket.TunnelEnd, early []byte) {
	s.inTunnel = t
	return socket.TunnelEnd{Stream: s, Entry: &s.client.Entry}, nil
}

// SendTunnel implements tunnelStream: the client's windows allow it.
func (s *http2Stream) SendTunnel(b []byte, ends bool) error { return s.send(nil, b, nil, ends) }

// AwaitTunnel implements tunnelStream.
func (s *http2Stream) AwaitTunnel() error {
	var none socket.Buffers
	defer s.client.Entry.Disarm()
	return s.stream.Wait(&none, s.bodyArrived, http2.Wakes{})
}

// TakeTunnel implements tunnelStream.
func (s *http2Stream) TakeTunnel(b []byte) (n int, last bool) {
	n, last, _ = s.takeBody(b)
	return n, last
}
