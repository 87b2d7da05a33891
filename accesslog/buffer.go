package accesslog

import (
	"sync"
	"sync/atomic"
)

const (
	bufferSize = 64 << 10
	// bufferFull is when a buffer is handed over. The rest is room for the
	// last line, so that it rarely has to grow.
	bufferFull = 48 << 10
)

// shard collects the lines of some connections.
type shard struct {
	mu sync.Mutex // guards the fields below

	buf   []byte // nil until the next line
	clock clock

	_ [64]byte // neighbours in memory do not share a cache line
}

// handOver gives the buffer to the writer. full has room for all buffers that
// exist, so this never blocks. The caller holds s.mu, which keeps the lines of
// a shard in order.
func (s *shard) handOver(full chan<- []byte) {
	if len(s.buf) > 0 {
		full <- s.buf
		s.buf = nil
	}
}

// supply hands out a bounded number of buffers. It is safe for concurrent use.
type supply struct {
	free   chan []byte
	made   atomic.Int64
	max    int64
	closed atomic.Bool
}

func newSupply(n int) *supply {
	return &supply{free: make(chan []byte, n), max: int64(n)}
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
	if s.made.Add(1) > s.max {
		s.made.Add(-1)
		return nil
	}
	return make([]byte, 0, bufferSize)
}

// put takes a buffer back. One that has grown is left to the collector.
func (s *supply) put(b []byte) {
	if cap(b) > bufferSize {
		s.made.Add(-1)
		return
	}
	s.free <- b[:0]
}

func (s *supply) close() { s.closed.Store(true) }
