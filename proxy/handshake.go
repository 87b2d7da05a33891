package proxy

import (
	"runtime"
	"sync/atomic"
)

// maxHandshakes is the maximum number of TLS handshakes in progress. One takes about
// 40 KiB until the client has sent its last part.
const maxHandshakes = 1024

// handshakes bounds the TLS handshakes of clients, and counts them. A handshake
// counts as in progress from the first bytes of the client on. While it computes it
// also has one of few turns, so that open connections keep their share of the
// processors when many clients connect at once. Both are given in order of arrival.
// It is safe for concurrent use.
type handshakes struct {
	places chan struct{} // capacity: the maximum number in progress
	turns  chan struct{} // capacity: the maximum number that compute

	waiting               atomic.Int64
	full, resumed, failed atomic.Uint64
}

func newHandshakes(inProgress int) *handshakes {
	return &handshakes{places: make(chan struct{}, inProgress), turns: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// take waits for a place or a turn.
func (h *handshakes) take(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
		h.waiting.Add(1)
		c <- struct{}{}
		h.waiting.Add(-1)
	}
}

// A handshake is one of handshakes. Its zero value, without the field below, has no
// place and no turn.
type handshake struct {
	all             *handshakes
	placed, running bool
}

// pause gives the turn back, before a wait for the client.
func (h *handshake) pause() {
	if h.running {
		h.running = false
		<-h.all.turns
	}
}

// proceed waits for a place and a turn, after the client has sent bytes. Every holder
// of a place is cut by the timeout of the handshake, so the wait ends.
func (h *handshake) proceed() {
	if !h.placed {
		h.all.take(h.all.places)
		h.placed = true
	}
	h.all.take(h.all.turns)
	h.running = true
}

// end gives everything back.
func (h *handshake) end() {
	h.pause()
	if h.placed {
		h.placed = false
		<-h.all.places
	}
}

// HandshakeStats are the TLS handshakes of a server's clients.
type HandshakeStats struct {
	Full, Resumed, Failed uint64
	InProgress            int // of which the client has sent a part
	Waiting               int // for a place among those in progress, or for a processor
}

// Handshakes returns the TLS handshakes so far.
func (s *Server) Handshakes() HandshakeStats {
	h := s.handshakes
	return HandshakeStats{
		Full: h.full.Load(), Resumed: h.resumed.Load(), Failed: h.failed.Load(),
		InProgress: len(h.places), Waiting: int(h.waiting.Load()),
	}
}
