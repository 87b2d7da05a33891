package proxy

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/quic"

	"sluice/balancer"
	own "sluice/proxy/http3"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/route/places"
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

// Whatever a client does at once with several connections, another one is served, and it takes no
// more than its share. Nothing is left of it.
func TestHTTP3OneClientLeavesRoomToOthers(t *testing.T) {
	t.Parallel()
	const share = 2 << 20
	stalling, requests := startStallingPeer(t, http2Streams, 0)
	p := startProxyToH2C(t, stalling)
	o := *p.options.Load()
	o.Limits.StreamBytes = 8 * share
	o.Timeouts = Timeouts{Head: time.Hour, Body: time.Hour, Write: time.Hour, Idle: time.Hour}
	p.Configure(o)
	long := p.newService("long", balancer.Options{Policy: balancer.PolicyRoundRobin, NewTransport: p.NewTransport(someTransport)}, startLongOrigin(t, 1<<20).address())
	long.Timeouts.Idle = time.Hour
	p.setRoutes(route.Route{Path: "/", Service: p.service}, route.Route{Path: "/long", Service: long}, route.Route{Path: "/none", Service: long}, route.Route{Path: "/hang", Service: long})
	address := p.serveHTTP3(ListenerOptions{Name: "h3"})
	ctx, cancel := context.WithCancel(t.Context())
	var attackers sync.WaitGroup
	defer attackers.Wait()
	defer cancel()

	deaf := quicClient()
	deaf.MaxStreamReadBufferSize = 10_000
	dial := func(config *quic.Config) *http3Frames {
		return verify.Result(dialQUIC(t, "127.0.0.1", address, config)).Must(t)
	}
	uploads, halves, slow := dial(quicClient()), dial(quicClient()), dial(deaf)
	var stalled []*http3Request
	for range http2Streams { // with as much as the windows take
		r := uploads.open(h3Head(http3Post))
		r.Write(h3Data(strings.Repeat("x", 100_000)))
		r.Flush()
		stalled = append(stalled, r)
	}
	for range http2Streams {
		halves.open([]byte{1, 0x50, 0})
		slow.request(http3GetOf("/long"), true)
	}
	eventually(t, "uploads are stalled, or refused", func() bool {
		return requests.Load() > 0 && requests.Load()+int64(p.http3.refusedConnections.Load()) >= http2Streams
	})
	eventually(t, "the slow reader is waited for", p.waitsToWriteHTTP3)
	attackers.Go(func() { // rapid resets, again and again
		for ctx.Err() == nil {
			c, err := dialQUIC(t, "127.0.0.1", address, quicClient())
			for err == nil && ctx.Err() == nil {
				var r *http3Request
				if r, err = c.tryOpen(h3Head(http3GetOf("/hang"))); err == nil {
					r.cancel()
				}
			}
			if c != nil {
				c.conn.Abort(nil)
			}
		}
	})

	b := verify.Result(dialQUIC(t, "127.0.0.2", address, quicClient())).Must(t)
	var slowest time.Duration
	for i := range 30 {
		begun := time.Now()
		a := b.ask(http3GetOf("/none"))
		verify.Equal(t, a.status, "204", "status of request %d", i)
		if requests.Load() >= http2Streams { // the peer takes what comes later
			r := b.request(http3Post, false)
			r.send(h3Data(strings.Repeat("y", 50_000)))
			r.CloseWrite()
			a = r.response()
			verify.Equal(t, a.status, "204", "status of upload %d", i)
		}
		slowest = max(slowest, time.Since(begun))
	}
	t.Logf("slowest pair of requests of the other client: %v", slowest)
	attacker := places.BlockOf(netip.MustParseAddr("127.0.0.1"))
	verify.That(t, p.streamMemory.TakenBy(attacker) <= share, "the attacker has %d bytes", p.streamMemory.TakenBy(attacker))
	cancel()
	attackers.Wait()
	for _, r := range stalled {
		r.cancel()
	}
	for _, c := range []*http3Frames{uploads, halves, slow, b} {
		c.conn.Abort(&quic.ConnectionCloseError{Code: uint64(own.NoError)})
	}
	p.expectNothingLeft(t, 0)
	eventually(t, "all memory is back", func() bool { return p.streamMemory.Taken() == 0 })
}
