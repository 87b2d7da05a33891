package proxy

import (
	"fmt"

	"sluice/proxy/http1"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
	"sluice/route/places"
)

// An http2Stream is the downstream of its exchange.

// ReadBody implements source.
func (s *http2Stream) ReadBody(b *socket.Buffers, _ bool) (transfer.Piece, error) {
	return readStreamBody(s.exchange, s, b)
}

// TakesCoded implements sink.
func (s *http2Stream) TakesCoded() bool { return false }

// WriteBody implements sink. It forwards the trailer section to clients that accept
// one, as in HTTP/1.1.
func (s *http2Stream) WriteBody(b *socket.Buffers, p transfer.Piece) error {
	head := b.Out
	b.Out = head[:0]
	var trailer []byte
	if p.Last && s.exchange.request.head.TETrailers {
		trailer = http2.AppendTrailer(nil, p.Trailer, s.stream.ID)
	}
	switch {
	case len(trailer) > 0:
		return s.send(head, p.Text, trailer, true)
	case len(p.Text) > 0:
	case !p.Last && len(head) == 0:
		return nil
	case p.Last && len(head) > 0:
		head[flagsOfFrame] |= http2.FlagEndStream // of HEADERS
	}
	return s.send(head, p.Text, nil, p.Last)
}

// flagsOfFrame is the position of the flags in a frame.
const flagsOfFrame = 4

// appendHead implements downstream.
func (s *http2Stream) appendHead(out, text []byte) []byte {
	var room [http2.FrameHeaderBytes]byte
	start := len(out)
	out = s.exchange.appendHeadFields(append(out, room[:]...), text, hpackCoding)
	return http2.EndFieldBlock(out, start, s.stream.ID, false)
}

// writeAnswer implements downstream.
func (s *http2Stream) writeAnswer(text, body []byte) error {
	x := s.exchange
	x.answer.response.Reset(http1.UsualFields)
	n, err := x.answer.response.Scan(text)
	if err != nil {
		return fmt.Errorf("an answer of sluice: %w", err)
	}
	if len(body) == 0 {
		body = text[n:]
	}
	var room [http2.FrameHeaderBytes]byte
	out := x.appendFields(append(text[len(text):], room[:]...), text, true, hpackCoding)
	return s.send(http2.EndFieldBlock(out, 0, s.stream.ID, len(body) == 0), body, nil, true)
}

// waited implements downstream.
func (s *http2Stream) waited() bool { return s.stream.Delayed }

// isWhole implements downstream.
func (s *http2Stream) isWhole(sent int64) bool { return s.exchange.isWhole(sent) }

// Parties implements sweepOwner of package socket, and downstream.
func (s *http2Stream) Parties() (client, peer any) { return places.BlockOf(s.client.remote), nil }

// IsGone implements downstream.
func (s *http2Stream) IsGone() bool {
	if s.client.Gone.Load() {
		return true
	}
	c := s.conn.conn
	if !c.IsGone() {
		return false
	}
	s.client.Gone.Store(true)
	s.conn.conn.wire.WakeReader() // its end may have arrived together with the last frames
	return true
}

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
	n, last, _, _ = s.takeBody(b)
	return n, last
}
