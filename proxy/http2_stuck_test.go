package proxy

import (
	"io"
	"sync"
	"testing"
	"time"

	"sluice/proxy/socket"
	"sluice/test/verify"
)

// A connection whose mutex is held, by whatever fault, delays no timeout of another one. [sluice/proxy/upstream]
// has the same test for connections to peers.
func TestStuckConnectionDelaysNoTimeout(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 2)
	p := startProxyToH2C(t, startFramePeer(t, func(*framePeer, uint32) { asked <- struct{}{} }))
	waiting := p.dial()
	io.WriteString(waiting, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-asked
	client := p.dialFrames()
	client.request(1, http2Get, true)
	<-asked
	var stuck []sync.Locker
	p.mu.Lock()
	for c := range p.conns {
		if c.http2 != nil {
			stuck = append(stuck, &c.http2.Mu)
		}
	}
	p.mu.Unlock()
	verify.Require(t, len(stuck) == 1, "%d mutexes", len(stuck))
	for _, mu := range stuck {
		mu.Lock()
		defer mu.Unlock()
	}
	p.sweptFor(30 * socket.SweepInterval)
	other, status := p.dial(), make(chan int, 1)
	io.WriteString(other, "GET / HTTP/1.1\r\n")
	go func() {
		got, _ := readResponse(t, other)
		status <- got
	}()
	eventually(t, "the head times out", func() bool {
		p.skip(time.Second)
		return len(status) > 0
	})
	if got := <-status; got != 408 {
		t.Errorf("status %d", got)
	}
}
