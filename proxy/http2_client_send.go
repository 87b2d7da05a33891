package proxy

import (
	"runtime"

	"sluice/observe/panics"
)

// Moved implements [http2.Owner]. conn.mu is held.
func (s *http2Stream) Moved(n int, whole, ends bool) {
	h := s.conn
	s.moved = true
	h.sentBytes += int64(n)
	h.moved += int64(n)
	if ends {
		s.endedLocked(&s.sent)
	}
	if whole {
		signal(s.waits.writable)
	}
}

// flush sends output until it is empty. It yields first, so that the streams that can run
// add their frames: one write for many responses.
func (h *http2ClientConn) flush() {
	defer h.work.Done()
	defer panics.Contain(panics.Connection, h.fail)
	growStack(nil)
	runtime.Gosched()
	for b := h.takeOutput(nil, nil); b != nil; {
		_, err := h.writer.WriteSealed(h.conn.side(h.conn.options.Timeouts.Write), h.conn.TLS, b)
		b = h.takeOutput(b, err)
	}
}

// takeOutput returns the frames to send next; nil: there are none, and flush ends. sent is
// nil or what was sent before, with that result.
func (h *http2ClientConn) takeOutput(sent []byte, err error) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if sent != nil {
		h.output.Recycle(sent)
		if err != nil {
			h.breakLocked()
		}
		h.output.Fill()
	}
	if len(h.output.Frames) > 0 && !h.broken {
		b := h.output.Take()
		h.output.Fill()
		return b
	}
	h.flushing = false
	if len(h.streams) == 0 {
		h.armLocked()
	}
	if h.broken || h.goAway == goAwayFinal && len(h.streams) == 0 {
		h.wakeReader()
	}
	return nil
}

// breakLocked ends all streams after the connection has failed.
func (h *http2ClientConn) breakLocked() {
	h.broken, h.output.Frames = true, nil
	for _, s := range h.streams {
		s.abortLocked()
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
