package subprocess

import (
	"bytes"
	"sync"
)

// Output keeps what is written to it, to be read while it grows: for
// [Options.Output], and for any other log that a test looks at. The zero value is
// empty. Safe for concurrent use.
type Output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

// Write never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String returns all that has been written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
