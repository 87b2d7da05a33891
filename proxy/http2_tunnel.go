package proxy

import (
	"os"
	"time"
)

// A tunnel over HTTP/2 (RFC 8441): the DATA frames of a stream in both directions are its
// bytes, END_STREAM is the end of one direction, and RST_STREAM that of both.

// tunnel implements front.
func (s *http2Stream) tunnel(t *tunnel) tunnelEnd {
	s.inTunnel = t
	return tunnelEnd{stream: s, entry: &s.sweepEntry}
}

// sendTunnel sends b, and then the end of this direction if ends. It returns when the
// client's windows have allowed to take all of b.
func (s *http2Stream) sendTunnel(b []byte, ends bool) error { return s.send(nil, b, nil, ends) }

// writePause returns how long send waits until the client takes more bytes. A tunnel
// waits as long as bytes move in the other direction.
func (s *http2Stream) writePause() time.Duration {
	if s.inTunnel != nil {
		return s.inTunnel.left(s.server.sweeper.now())
	}
	return s.options.Timeouts.Write
}

// runFromStream is run where from is a stream.
func (r *relay) runFromStream() {
	for {
		if err := r.awaitStream(); err != nil {
			r.broken(r.fromClient, err)
			return
		}
		r.buffer = requestBuffers.Get().(*buffer)
		n, last, _ := r.from.stream.takeBody(r.buffer.bytes)
		if r.write(r.buffer.bytes[:n]) != nil {
			return
		}
		r.giveBack()
		if last {
			r.end()
			return
		}
	}
}

// awaitStream waits until the stream from has bytes or has ended.
func (r *relay) awaitStream() error {
	var none buffers
	for {
		left := r.tunnel.left(r.tunnel.sweeper.now())
		if left <= 0 {
			return errIdle
		}
		err := r.from.stream.awaitBody(&none, left)
		if err != os.ErrDeadlineExceeded || r.from.entry.interrupted.Load() {
			return err
		}
	}
}
