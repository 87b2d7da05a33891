package socket

import (
	"io"
	"sync"
)

// Sizes of buffers in bytes.
const (
	SmallRequestBytes   = 2 << 10  // most requests
	SmallBodyBytes      = 4 << 10  // the start of a body
	RequestBufferBytes  = 16 << 10 // a usual head of a request, and a small body
	ResponseBufferBytes = 16 << 10 // a usual head of a response and the start of its body
	outputBufferBytes   = 20 << 10 // a forwarded head and a small body
	RelayBufferBytes    = 64 << 10 // a part of a body
)

type Buffer struct{ Bytes []byte }

func BufferPool(size int) *sync.Pool {
	return &sync.Pool{New: func() any { return &Buffer{make([]byte, size)} }}
}

var (
	SmallBodies    = BufferPool(SmallBodyBytes)     // for bodies of which little has arrived
	RequestBuffers = BufferPool(RequestBufferBytes) // for requests over SmallRequestBytes, and for bodies
	BodyBuffers    = BufferPool(RelayBufferBytes)   // for whole bodies, so that they can be replayed, and for longer heads
)

// poolOf returns the pool above with the smallest buffers for that many bytes; nil: there is none.
func poolOf(bytes int) *sync.Pool {
	switch {
	case bytes <= SmallBodyBytes:
		return SmallBodies
	case bytes <= RequestBufferBytes:
		return RequestBuffers
	case bytes <= RelayBufferBytes:
		return BodyBuffers
	}
	return nil
}

// NewBuffer returns the smallest buffer of a pool for that many bytes, or one of its own. The
// caller frees it.
func NewBuffer(bytes int) *Buffer {
	if pool := poolOf(bytes); pool != nil {
		return pool.Get().(*Buffer)
	}
	return &Buffer{make([]byte, bytes)}
}

// Free gives a buffer of NewBuffer, which may be nil, back.
func (b *Buffer) Free() {
	if b == nil {
		return
	}
	if pool := poolOf(len(b.Bytes)); pool != nil {
		pool.Put(b)
	}
}

// A scratch has the memory of buffers. It contains no pointer, so that the garbage
// collector does not scan it.
type scratch struct {
	from [RelayBufferBytes]byte
	out  [outputBufferBytes]byte
}

var Scratches = sync.Pool{New: func() any { return new(scratch) }}

// Buffers are borrowed when there are bytes to process and given back before the
// goroutine waits. So the memory depends on the number of running goroutines, not
// on the number of requests in flight.
type Buffers struct {
	scratch *scratch
	From    []byte // bytes that were read; nil unless borrowed
	Out     []byte // bytes to write; nil unless borrowed
}

// Borrow makes from and out ready for use. It does nothing if they are ready.
func (b *Buffers) Borrow() {
	if b.scratch == nil {
		b.scratch = Scratches.Get().(*scratch)
		b.From, b.Out = b.scratch.from[:], b.scratch.out[:0]
	}
}

// GiveBack returns the memory. The bytes in from and out are lost.
func (b *Buffers) GiveBack() {
	if b.scratch != nil {
		Scratches.Put(b.scratch)
		*b = Buffers{}
	}
}

// A BufferedReader reads from a connection and has no buffers while it waits. It is
// reusable, but not for concurrent use.
type BufferedReader struct {
	wire       Wire
	buffers    *Buffers
	start, end int
	n          int
	err        error
	onReadable func(fd uintptr) bool // readable as a value: creating it allocates
}

// Read waits until w is readable and reads into b.from[start:end]. If start is 0, b is
// given back while it waits, and if waiting fails.
func (r *BufferedReader) Read(w Wire, b *Buffers, start, end int) (n int, err error) {
	if r.onReadable == nil {
		r.onReadable = r.readable
	}
	r.wire, r.buffers, r.start, r.end, r.n, r.err = w, b, start, end, 0, nil
	err = w.Raw.Read(r.onReadable)
	r.wire, r.buffers = Wire{}, nil // they belong to the caller
	if err != nil {
		return 0, err
	}
	return r.n, r.err
}

func (r *BufferedReader) readable(fd uintptr) bool {
	r.wire.Wake()
	r.buffers.Borrow()
	r.n, r.err = r.wire.Receive(fd, r.buffers.From[r.start:r.end])
	switch {
	case r.err == ErrWouldBlock:
		if r.start == 0 {
			r.buffers.GiveBack()
		}
		return false
	case r.err == nil && r.n == 0:
		r.err = io.EOF
	}
	return true
}
