package proxy

import (
	"runtime"

	"sluice/panics"
	"sluice/proxy/http2"
)

// A streamQueue has the streams with bytes to send. Each sends one frame in turn.
type streamQueue struct{ first, last *http2Stream }

func (q *streamQueue) push(s *http2Stream) {
	s.next, s.queued = nil, true
	if q.last == nil {
		q.first = s
	} else {
		q.last.next = s
	}
	q.last = s
}

func (q *streamQueue) pop() *http2Stream {
	s := q.first
	if q.first = s.next; q.first == nil {
		q.last = nil
	}
	s.next, s.queued = nil, false
	return s
}

func (q *streamQueue) remove(s *http2Stream) {
	if !s.queued {
		return
	}
	var others streamQueue
	for q.first != nil {
		if one := q.pop(); one != s {
			others.push(one)
		}
	}
	*q = others
}

// append moves the streams of others to the end of q.
func (q *streamQueue) append(others streamQueue) {
	switch {
	case q.last == nil:
		*q = others
	case others.first != nil:
		q.last.next, q.last = others.first, others.last
	}
}

// fillLocked moves frames of the streams in the queue to out, as far as there is room
// and the client's windows allow. A stream whose own window is used up leaves the
// queue until the client enlarges it. One that waits for the window of the connection
// keeps its turn, and lets those pass that need none.
func (h *http2Conn) fillLocked() {
	var waiting streamQueue
	for s := h.queue.first; s != nil && len(h.out) < http2OutputBytes; s = h.queue.first {
		h.queue.pop()
		if s.aborted {
			continue
		}
		h.out = appendBlock(h.out, s.head, &h.tableSize)
		s.head = nil
		cut := http2.Spend(s.data, s.endsWithData, &s.window, &h.window)
		if cut.IsBlocked() {
			if s.window > 0 {
				waiting.push(s)
			}
			continue
		}
		h.out = cut.AppendFrame(h.out, s.id)
		n := int64(len(cut.Payload))
		s.data, s.moved = cut.Rest, true
		h.sentBytes += n
		h.moved += n
		if !cut.IsLast() {
			h.queue.push(s)
			continue
		}
		h.out = appendBlock(h.out, s.trailerFrames, &h.tableSize)
		s.sending = false
		if s.ends {
			s.endedLocked(&s.sent)
		}
		signal(s.waits.writable)
	}
	waiting.append(h.queue)
	h.queue = waiting
}

// appendBlock appends the frames of a field block, or none, to out. The encoder never uses
// a dynamic table. But if the other side has reduced its own, it expects to be told so in
// the next block.
func appendBlock(out, frames []byte, reduced *bool) []byte {
	if len(frames) > 0 && *reduced {
		*reduced = false
		return http2.AppendWithoutTable(out, frames)
	}
	return append(out, frames...)
}

// flush sends out until it is empty. It yields first, so that the streams that can run
// add their frames: one write for many responses.
func (h *http2Conn) flush() {
	defer h.work.Done()
	defer panics.Contain(panics.Connection, h.fail)
	growStack(nil)
	runtime.Gosched()
	for b := h.takeOutput(nil, nil); b != nil; {
		_, err := h.writer.writeSealed(h.conn.side(h.conn.options.Timeouts.Write), h.conn.tls, b)
		b = h.takeOutput(b, err)
	}
}

// takeOutput returns the frames to send next; nil: there are none, and flush ends. sent is
// nil or what was sent before, with that result.
func (h *http2Conn) takeOutput(sent []byte, err error) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if sent != nil {
		h.spare = sent[:0]
		if err != nil {
			h.breakLocked()
		}
		h.fillLocked()
	}
	if len(h.out) > 0 && !h.broken {
		b := h.out
		h.out, h.spare, h.control = h.spare[:0], nil, 0
		h.fillLocked()
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
func (h *http2Conn) breakLocked() {
	h.broken, h.out = true, nil
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
