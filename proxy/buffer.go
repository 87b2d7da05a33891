package proxy

import (
	"io"
	"sync"
)

// Sizes of buffers in bytes.
const (
	smallRequestBytes   = 2 << 10  // most requests
	smallBodyBytes      = 4 << 10  // the start of a body
	requestBufferBytes  = 16 << 10 // a usual head of a request, and a small body
	responseBufferBytes = 16 << 10 // a usual head of a response and the start of its body
	outputBufferBytes   = 20 << 10 // a forwarded head and a small body
	relayBufferBytes    = 64 << 10 // a part of a body
)

type buffer struct{ bytes []byte }

func bufferPool(size int) *sync.Pool {
	return &sync.Pool{New: func() any { return &buffer{make([]byte, size)} }}
}

var (
	requestBuffers = bufferPool(requestBufferBytes) // for requests over smallRequestBytes
	smallBodies    = bufferPool(smallBodyBytes)     // for bodies of which little has arrived
	bodyBuffers    = bufferPool(relayBufferBytes)   // for whole bodies, so that they can be replayed, and for longer heads
)

// A scratch has the memory of buffers. It contains no pointer, so that the garbage
// collector does not scan it.
type scratch struct {
	from [relayBufferBytes]byte
	out  [outputBufferBytes]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// buffers are borrowed when there are bytes to process and given back before the
// goroutine waits. So the memory depends on the number of running goroutines, not
// on the number of requests in flight.
type buffers struct {
	scratch *scratch
	from    []byte // bytes that were read; nil unless borrowed
	out     []byte // bytes to write; nil unless borrowed
}

// borrow makes from and out ready for use. It does nothing if they are ready.
func (b *buffers) borrow() {
	if b.scratch == nil {
		b.scratch = scratches.Get().(*scratch)
		b.from, b.out = b.scratch.from[:], b.scratch.out[:0]
	}
}

// giveBack returns the memory. The bytes in from and out are lost.
func (b *buffers) giveBack() {
	if b.scratch != nil {
		scratches.Put(b.scratch)
		*b = buffers{}
	}
}

// A bufferedReader reads from a connection and has no buffers while it waits. It is
// reusable, but not for concurrent use.
type bufferedReader struct {
	wire       wire
	buffers    *buffers
	start, end int
	n          int
	err        error
	onReadable func(fd uintptr) bool // readable as a value: creating it allocates
}

// read waits until w is readable and reads into b.from[start:end]. If start is 0, b is
// given back while it waits, and if waiting fails.
func (r *bufferedReader) read(w wire, b *buffers, start, end int) (n int, err error) {
	if r.onReadable == nil {
		r.onReadable = r.readable
	}
	r.wire, r.buffers, r.start, r.end, r.n, r.err = w, b, start, end, 0, nil
	err = w.raw.Read(r.onReadable)
	r.wire, r.buffers = wire{}, nil // they belong to the caller
	if err != nil {
		return 0, err
	}
	return r.n, r.err
}

func (r *bufferedReader) readable(fd uintptr) bool {
	r.wire.wake()
	r.buffers.borrow()
	r.n, r.err = r.wire.receive(fd, r.buffers.from[r.start:r.end])
	switch {
	case r.err == errWouldBlock:
		if r.start == 0 {
			r.buffers.giveBack()
		}
		return false
	case r.err == nil && r.n == 0:
		r.err = io.EOF
	}
	return true
}
