//go:build !race

package proxy

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"sluice/proxy/socket"
	"sluice/route"
	"sluice/test/verify"
)

// Who waits for a client or a peer holds little memory, whatever is waited for: a
// buffer alone would be 16 KiB or more.
func TestWaitingHoldsNoBuffers(t *testing.T) {
	if !alone(t) {
		return
	}
	const (
		conns = 200
		limit = 25_000 // bytes for each, with stacks, and 2 KiB for the sockets of the test itself
	)
	const (
		get          = "GET / HTTP/1.1\r\nHost: a\r\n"
		lastResponse = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
	)
	for _, test := range []struct {
		name, request string
		answer        string // of the peer, to a head
		inflight      int
	}{
		{"for the rest of a head", get, "", 0},
		{"for a small body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc", "", 0},
		{"for a body that is kept", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n", "", 0},
		{"for the rest of a body that is kept", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\nx", "", 0},
		{"for a large body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nabc", "", conns},
		{"for a chunked body", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "", conns},
		{"for a response", get + "\r\n", "", conns},
		{"for a response after an interim one", get + "\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n", conns},
		{"for a long body", get + "\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx", conns},
		{"for a chunk", get + "\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", conns},
		{"for the end of the connection", get + "\r\n", "HTTP/1.1 200 OK\r\n\r\nx", conns},
		{"for the rest of a head, behind an answer", get + "\r\n" + get, lastResponse, 0},
		{"for a small body, behind an answer", get + "\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc", lastResponse, 0},
		{"in a stream", "question\r\n\r\n", "220 ready\n", conns},
		{"in a tunnel", get + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", conns},
	} {
		t.Run(test.name, func(t *testing.T) {
			address, end := startQuietOrigin(t, test.answer)
			start := startProxy
			if test.name == "in a stream" {
				start = startStreams
			}
			p := start(t, Options{Timeouts: Timeouts{Head: time.Hour, Body: time.Hour}}, address) // what ends holds nothing
			defer end()                                                                           // first: a tunnel is for its peer to end, too
			p.service.Retry.BodyBytes = 64 << 10
			before := memory()
			for range conns {
				conn := p.send(test.request)
				if test.answer == "" {
					continue
				}
				verify.Result(conn.Read(make([]byte, 1000))).Must(t)
			}
			eventually(t, "all wait", func() bool { return p.Connections() == conns && p.inflight() == test.inflight })
			expectMemory(t, before, conns, limit)
		})
	}
}

// Who waits for a peer holds the body that is kept for it, and no buffers that this was read into.
func TestWaitForPeerHoldsNoBuffers(t *testing.T) {
	if !alone(t) {
		return
	}
	const (
		requests = 200
		limit    = socket.RelayBufferBytes + 25_000 // bytes for each: the body, stacks and the sockets
	)
	p := startProxy(t, Options{})
	p.setService(route.Service{WaitForPeer: time.Hour, Retry: route.Retry{Attempts: 3, BodyBytes: 1 << 20}})
	before := memory()
	for range requests {
		conn := p.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 17000\r\n\r\n" + strings.Repeat("a", 17_000))
		defer conn.Close()
	}
	eventually(t, "all wait", func() bool { return p.pool.Admission.Pending() == requests })
	expectMemory(t, before, requests, limit)
}

// A tunnel over HTTP/2 without bytes to forward holds no buffer either.
func TestIdleHTTP2TunnelHoldsNoBuffers(t *testing.T) {
	const (
		tunnels = 2 * http2Streams
		limit   = 25_000 // bytes for each, with stacks, and the connections to the peer
	)
	address, end := startQuietOrigin(t, "")
	p := startProxy(t, Options{}, address)
	defer end()
	before := memory()
	for range tunnels / http2Streams {
		c := p.dialFrames()
		for id := uint32(1); id < 2*http2Streams; id += 2 {
			c.openTunnel(id)
		}
	}
	eventually(t, "all are open", func() bool { return p.inflight() == tunnels })
	expectMemory(t, before, tunnels, limit)
}

// expectMemory waits until n connections or streams hold less than limit bytes each.
func expectMemory(t *testing.T, before, n, limit int64) {
	t.Helper()
	each := int64(0)
	eventually(t, "little memory", func() bool {
		each = (memory() - before) / n
		return each < limit
	})
	t.Logf("%d bytes each", each)
}

// memory returns how many bytes the process uses for objects that live and for
// stacks.
func memory() int64 {
	runtime.GC()
	runtime.GC() // pools let go of their buffers at the second one
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc + stats.StackInuse)
}

// startQuietOrigin gives an answer to the head of each connection's first request, or switches to
// WebSocket and greets, and is silent then, until end is called. It has one goroutine and no
// buffers.
func startQuietOrigin(t *testing.T, answer string) (address string, end func()) {
	l := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1000)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			n := 0
			for !bytes.Contains(b[:n], []byte("\r\n\r\n")) {
				more, err := conn.Read(b[n:])
				if err != nil {
					break
				}
				n += more
			}
			if _, key, ok := bytes.Cut(b[:n], []byte("Sec-WebSocket-Key: ")); ok && answer == "" {
				io.WriteString(conn, switching(string(key[:24]))+"hello ")
			}
			io.WriteString(conn, answer)
		}
	}()
	return l.Addr().String(), func() {
		l.Close()
		<-done
	}
}
