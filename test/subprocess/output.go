package subprocess

import (
	"bytes"
	"sync"
)

// Output stores the data that is written to it, for [Options.Output] and for logs that a test
// reads. The zero value is empty. Its methods may be called concurrently.
type Output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

// Write does not fail.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String returns all data written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
