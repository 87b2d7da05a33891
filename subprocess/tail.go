package subprocess

import (
	"bytes"
	"sync"
)

// Tail keeps the last bytes that were written to it, to tell why a program
// ended. Safe for concurrent use.
type Tail struct {
	limit int

	mu  sync.Mutex // guards buf
	buf []byte
}

// NewTail returns a Tail of at most limit bytes.
func NewTail(limit int) *Tail { return &Tail{limit: limit} }

// Write never fails.
func (t *Tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - t.limit; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

// String returns what is kept, without white space around it.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
