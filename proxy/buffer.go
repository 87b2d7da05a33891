package proxy

import "sync"

// Sizes of buffers in bytes. Only a connection that works on a request holds
// any.
const (
	requestBufferBytes  = 16 << 10 // the head of a request, and a small body
	responseBufferBytes = 16 << 10 // the head of a response, and what came with it
	outputBufferBytes   = 20 << 10 // a head as it is sent on, and a small body
	relayBufferBytes    = 64 << 10 // the rest of a body
)

type buffer struct{ bytes []byte }

func bufferPool(size int) *sync.Pool {
	return &sync.Pool{New: func() any { return &buffer{make([]byte, size)} }}
}

var relayBuffers = bufferPool(relayBufferBytes)
