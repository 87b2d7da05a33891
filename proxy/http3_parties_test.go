package proxy

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/quic"

	"sluice/proxy/socket"
	"sluice/test/verify"
)

// A deafSocket loses all packets but the first ones.
type deafSocket struct {
	net.PacketConn
	hears atomic.Int64
}

func (s *deafSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := s.PacketConn.ReadFrom(b)
		if err != nil || s.hears.Add(-1) >= 0 {
			return n, from, err
		}
	}
}

// beginHandshake begins a handshake from an address that goes on no further than the first packets.
func beginHandshake(t *testing.T, running *sync.WaitGroup, ctx context.Context, from, to string, packets int64) {
	s := &deafSocket{PacketConn: verify.Result(net.ListenPacket("udp", from+":0")).Must(t)}
	s.hears.Store(packets)
	endpoint := verify.Result(quic.NewEndpoint(s, nil)).Must(t)
	config := quicClient()
	config.HandshakeTimeout = -1 // it goes on until ctx ends
	running.Go(func() {
		endpoint.Dial(ctx, "udp", to, config)
		endpoint.Close(ctx)
	})
}

// Whoever begins many handshakes and ends none leaves room to others, also one who sends packets in
// the name of others: he cannot take the places of those that prove their address.
func TestHTTP3HandshakesLeaveRoomToOthers(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Timeouts: Timeouts{Head: time.Hour}}, answersOK(t))
	e := p.serveEndpoint(ListenerOptions{Name: "h3"})
	address := e.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	other := func(what string) {
		t.Helper()
		for range 3 {
			c := verify.Result(dialQUIC(t, "127.0.0.9", address, quicClient())).Must(t)
			a := c.ask(http3Get)
			verify.Equal(t, a.status, "200", "%s: status for another client", what)
		}
	}
	other("before")
	verify.Equal(t, p.http3Retries.Load(), uint64(0), "clients that had to prove their address")
	for range unverifiedHandshakes + 20 {
		beginHandshake(t, &running, ctx, "127.0.0.1", address, 0)
	}
	eventually(t, "the places for what is not verified are taken", func() bool {
		return p.handshakes.Unverified() == unverifiedHandshakes && p.http3Retries.Load() > 0
	})
	retries := p.http3Retries.Load()
	other("without proofs")
	verify.That(t, p.http3Retries.Load() > retries, "the others did not prove their address: %d handshakes without a proof", p.handshakes.Unverified())
	looks := 0 // a handshake without a proof may end meanwhile, and one of these take its place
	eventually(t, "a client has its share of the places", func() bool {
		// They get the Retry, and prove their address.
		if looks++; looks <= socket.MaxHandshakesPerBlock+20 || looks%16 == 0 {
			beginHandshake(t, &running, ctx, "127.0.0.3", address, 1)
		}
		return p.handshakes.Places.Taken() == socket.MaxHandshakesPerBlock
	})
	other("with proofs")
	cancel()
	running.Wait()
	e.Close()
	eventually(t, "all places are back", func() bool { return p.handshakes.Unverified() == 0 && p.handshakes.Places.Taken() == 0 })
}
