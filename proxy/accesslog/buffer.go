package accesslog

import (
	"sync"
	"sync/atomic"
)

const (
	bufferSize = 64 << 10
	// bufferFull is the length at which a buffer is handed over. The rest is for
	// the last line.
	bufferFull = 48 << 10
)

type shard struct {
	mu sync.Mutex // guards the fields below

	buf    []byte // nil until the next line
	clocks clocks

	_ [64]byte // neighbours in memory do not share a cache line
}

// handOverLocked gives the buffer to the writer, which keeps the lines of a shard in
// order. full has room for all buffers, so this never blocks.
func (s *shard) handOverLocked(full chan<- []byte) {
	if len(s.buf) > 0 {
		full <- s.buf
		s.buf = nil
	}
}

// supply is a bounded number of buffers. It is safe for concurrent use.
type supply struct {
	free   chan []byte
	made   atomic.Int64
	limit  int64
	closed atomic.Bool
}

func newSupply(n int) *supply {
	return &supply{free: make(chan []byte, n), limit: int64(n)}
}

// get returns an empty buffer, or nil if all are in use or s is closed.
func (s *supply) get() []byte {
	if s.closed.Load() {
		return nil
	}
	select {
	case b := <-s.free:
		return b
	default:
	}
	if s.made.Add(1) > s.limit {
		s.made.Add(-1)
		return nil
	}
	return make([]byte, 0, bufferSize)
}

// put takes a buffer back, unless it has grown.
func (s *supply) put(b []byte) {
	if cap(b) > bufferSize {
		s.made.Add(-1)
		return
	}
	s.free <- b[:0]
}
