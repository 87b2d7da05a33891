package http3

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/proxy/packets"
	"sluice/test/verify"
)

// The end of an endpoint waits for the handshake that begins at that moment, which does not wait
// for the end.
func TestEndpointEndsAsAHandshakeBegins(t *testing.T) {
	conn := verify.Result(net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})).Must(t)
	socket := verify.Result(packets.New(conn)).Must(t)
	e := NewEndpoint(socket, func() { socket.Close() })
	begins := make(chan struct{}, 100)
	verify.NoError(t, e.Serve(Options{
		TLS:      new(tls.Config),
		Timeouts: func() (handshake, idle time.Duration) { return time.Minute, time.Minute }, Streams: 1, StreamWindow: 1 << 16, MaxStreamWindow: 1 << 16, Window: 1 << 16, MaxWindow: 1 << 16,
		Admit: func(netip.Addr, bool) (Admission, bool) { return Admission{}, false },
		Verify: func() bool {
			begins <- struct{}{}
			for !e.endsOrIsLocked() {
				runtime.Gosched()
			}
			return false
		},
	}))
	ctx, cancel := context.WithCancel(t.Context())
	dialed := make(chan struct{})
	go func() {
		defer close(dialed)
		quic.DialAddr(ctx, conn.LocalAddr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil)
	}()
	<-begins
	ended := make(chan struct{})
	go func() { e.Close(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		t.Error("Close does not return")
	}
	cancel()
	<-dialed
}

// Each connection has the timeouts of its time: a reload may have changed them.
func TestTimeoutsAreOfEachConnection(t *testing.T) {
	timeout := time.Second
	e := new(Endpoint)
	e.options.Store(&Options{Timeouts: func() (handshake, idle time.Duration) { return timeout, 2 * timeout }})
	for _, timeout = range []time.Duration{time.Second, time.Minute} {
		c := e.config()
		verify.Equal(t, c.HandshakeIdleTimeout, timeout, "the bound of a handshake")
		verify.Equal(t, c.MaxIdleTimeout, 2*timeout, "the time without a packet")
	}
}

// endsOrIsLocked reports whether Close has begun.
func (e *Endpoint) endsOrIsLocked() bool {
	if !e.mu.TryLock() {
		return true
	}
	defer e.mu.Unlock()
	return e.closing
}
