package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/test/verify"
)

// A peer that cannot take a stream by HTTP/2 is a connect failure: even a POST goes to
// another peer.
func TestPeerWithoutHTTP2(t *testing.T) {
	t.Parallel()
	peer := func(config *tls.Config, settings ...xhttp2.Setting) string {
		return startFramePeerWith(t, framePeerOptions{tls: config, settings: settings, answer: func(p *framePeer, stream uint32) { p.headers(stream, true, ":status", "204") }})
	}
	offering := func(protocols ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: protocols}
	}
	for _, test := range []struct{ name, address, good, reason string }{
		{"HTTP/1.1", answersOK(t), peer(nil), refusal.Connect.Reason},
		{"closes", startOrigin(t, func(*originConn) bool { return false }).address(), peer(nil), refusal.Connect.Reason},
		{"takes no streams", peer(nil, xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 0}), peer(nil), refusal.Connect.Reason},
		{"TLS without ALPN", peer(offering()), peer(offering("h2")), refusal.PeerTLS.Reason},
		{"TLS for HTTP/1.1", peer(offering("http/1.1")), peer(offering("h2")), refusal.PeerTLS.Reason},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, options := startProxyToH2C(t), someTransport
			options.IdleTimeout = time.Hour
			if test.reason == refusal.PeerTLS.Reason {
				options.TLS = anyCertificate
			}
			p.usePeers(true, options, balancer.Options{Policy: balancer.PolicyRoundRobin}, test.address)
			const request = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
			p.expect(request, "502", test.reason)
			n := p.pool.Snapshot().All[0].Outcomes()[balancer.OutcomeConnectFailure]
			verify.That(t, n != 0, "no connect failure was counted")
			eventually(t, "no connection is kept", func() bool { return p.peerConnections() == 0 })
			p.setPeers(test.address, test.good)
			for range 4 {
				p.expect(request, "204")
			}
		})
	}
}

// A connection to a peer that cannot be opened is one failure of it, however many requests wait for
// it.
func TestFailedConnectionCountsOnce(t *testing.T) {
	t.Parallel()
	const requests, rounds = 8, 50
	var failures atomic.Int32
	round := func() (once bool) {
		failures.Store(0)
		l, p := listen(t), startProxyToH2C(t)
		p.usePeers(true, someTransport, balancer.Options{Policy: balancer.PolicyRoundRobin, OnFailure: func(*balancer.Peer, balancer.Outcome, balancer.Streak) {
			failures.Add(1)
		}}, l.Addr().String())
		var wg sync.WaitGroup
		for range requests {
			wg.Go(func() {
				p.expect("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "502", refusal.Connect.Reason)
			})
		}
		conn := verify.Result(l.Accept()).Must(t)
		peer := p.pool.Snapshot().All[0]
		eventually(t, "all requests are on their way to the peer", func() bool { return peer.Inflight() == requests })
		l.Close() // no other connection is opened
		conn.Close()
		wg.Wait()
		verify.Equal(t, peer.Outcomes()[balancer.OutcomeConnectFailure], requests, "attempts that failed")
		return failures.Load() < requests
	}
	for range rounds {
		if round() {
			return
		}
	}
	t.Error("each request counts as a failure of the peer") // or none of them has ever waited for the connection of another one
}

// A connection on which nothing arrives gets a PING. If that is not answered, it gets no
// more streams, and its streams fail after a time.
func TestSilentPeerIsPinged(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]bool{"alive": true, "silent": false}, func(t *testing.T, alive bool) {
		var first atomic.Pointer[framePeer]
		var connections, pings atomic.Int64
		p := startProxyToH2C(t, startFramePeerWith(t, framePeerOptions{
			mute: func() bool { return !alive },
			frame: func(p *framePeer, frame xhttp2.Frame) {
				if _, ok := frame.(*xhttp2.PingFrame); ok {
					pings.Add(1)
				}
			},
			answer: func(p *framePeer, stream uint32) {
				if first.CompareAndSwap(nil, p) {
					connections.Add(1)
					p.headers(stream, false, ":status", "103") // all that was sent before it has arrived with it
					return                                     // the first request stays without an answer
				}
				if p != first.Load() {
					connections.Add(1)
				}
				if alive || p != first.Load() {
					p.headers(stream, true, ":status", "204")
				}
			},
		}))
		p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 1}})
		waiting := p.send(getRequest)
		expectResponse(t, waiting, 103)
		p.sweeper.Advance(2 * time.Second)
		second := p.send(getRequest)
		eventually(t, "a PING", func() bool { return pings.Load() == 1 })
		if alive {
			expectResponse(t, second, 204)
			verify.Equal(t, connections.Load(), 1, "connections")
			return
		}
		p.sweeper.Advance(2 * time.Second)
		third := p.send(getRequest)
		expectResponse(t, third, 204) // on another connection
		p.sweeper.Advance(15 * time.Second)
		for _, conn := range []net.Conn{waiting, second} { // on the silent connection
			expectResponse(t, conn, 502)
		}
		verify.Equal(t, pings.Load(), 1, "PINGs")
	})
}

// Streams of a lost connection are sent to another peer if that is safe, and fail
// otherwise.
func TestHTTP2ConnectionIsLost(t *testing.T) {
	t.Parallel()
	const each = 10
	var waiting atomic.Int64
	last := make(chan *framePeer, 1)
	lossy := startFramePeer(t, func(p *framePeer, stream uint32) {
		if waiting.Add(1) == 2*each {
			last <- p
		}
	})
	good := startServer(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	p := startProxyToH2C(t, lossy)
	var wg sync.WaitGroup
	for _, test := range []struct{ method, want string }{{"GET", "200"}, {"POST", "502"}} {
		for range each {
			conn := p.send(test.method + " / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
			wg.Go(func() {
				answer, err := io.ReadAll(conn)
				verify.That(t, err == nil && strings.HasPrefix(string(answer), "HTTP/1.1 "+test.want+" "), "%s: got %q, %v", test.method, answer, err)
			})
		}
	}
	lost := <-last
	p.setPeers(lossy, good)
	lost.Close()
	wg.Wait()
}

// New settings of TLS end no request: connections with others are used no more, and that may be
// while they are opened.
func TestNewTLSSettingsWhileHTTP2PeersConnect(t *testing.T) {
	t.Parallel()
	another := verify.Result(certificates.NewClient(certificates.ClientOptions{ClientTLS: certificates.ClientTLS{SkipVerify: true}})).Must(t)
	var uses atomic.Int64
	options := someTransport
	options.TLS = func(bool) certificates.Security {
		if uses.Add(1)%2 == 0 {
			return another
		}
		return anyCertificate(false)
	}
	p := startProxy(t, Options{})
	p.usePeers(true, options, balancer.Options{Policy: balancer.PolicyRoundRobin}, startFramePeerWith(t, framePeerOptions{
		tls:    &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{socket.ALPNHTTP2}},
		answer: func(p *framePeer, stream uint32) { p.headers(stream, true, ":status", "204") },
	}))
	var work sync.WaitGroup
	for range 10 {
		work.Go(func() {
			for range 20 {
				p.expect(closingRequest, "204")
			}
		})
	}
	work.Wait()
	p.expectNothingCounted()
}

// A request that a peer has not processed, and gets again, has no more time than once.
func TestRequestThatIsSentAgainHasNoMoreTime(t *testing.T) {
	t.Parallel()
	const limit = time.Hour
	var count atomic.Int32
	asked, ends := make(chan bool, 2), make(chan struct{})
	answer := func(p *framePeer, _ uint32) {
		first := count.Add(1) == 1
		if asked <- true; first {
			<-ends
			p.WriteGoAway(0, xhttp2.ErrCodeNo, nil)
		}
	}
	p := startProxyToH2C(t, startFramePeer(t, answer), startFramePeer(t, answer))
	p.setService(route.Service{Timeouts: route.Timeouts{ResponseHeader: limit, Idle: patience}, Retry: route.Retry{Attempts: 1}})
	conn := p.send(getRequest)
	<-asked
	p.skip(limit / 2)
	close(ends)
	<-asked
	p.skip(limit / 2)
	expectResponse(t, conn, 504)
}

// A connection whose mutex is held, by whatever fault, delays no timeout of another one.
// [sluice/proxy/upstream] has the same test for connections to peers.
func TestStuckConnectionDelaysNoTimeout(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 2)
	p := startProxyToH2C(t, startFramePeer(t, func(*framePeer, uint32) { asked <- struct{}{} }))
	c := p.dialFrames()
	c.request(1, http2Get, true)
	<-asked
	stuck := p.onlyHTTP2Client()
	p.send(getRequest)
	<-asked
	stuck.protocol.Mu.Lock()
	defer stuck.protocol.Mu.Unlock()
	p.sweptFor(30 * socket.SweepInterval)
	other, status := p.send("GET / HTTP/1.1\r\n"), make(chan int, 1)
	go func() {
		got, _ := readResponse(t, other)
		status <- got
	}()
	eventually(t, "the head times out", func() bool {
		p.skip(time.Second)
		return len(status) > 0
	})
	verify.Equal(t, <-status, 408, "status")
}

// NewHTTP2Transport is NewTransport for peers that are asked by HTTP/2, whatever service a request
// is for.
func (p *testProxy) NewHTTP2Transport(o upstream.Options) func(*balancer.Peer) balancer.Transport {
	return over(true, p.NewTransport(o))
}

// over makes the peers of usual be asked by HTTP/2 or HTTP/1.1, whatever service a request is for.
func over(http2 bool, usual func(*balancer.Peer) balancer.Transport) func(*balancer.Peer) balancer.Transport {
	return func(peer *balancer.Peer) balancer.Transport {
		return overProtocol{usual(peer).(upstream.Connector), http2}
	}
}

type overProtocol struct {
	upstream.Connector
	http2 bool
}

func (o overProtocol) Connect(ctx context.Context, r upstream.Requirements, stale upstream.Conn) (upstream.Conn, time.Duration, error) {
	r.HTTP2 = o.http2
	return o.Connector.Connect(ctx, r, stale)
}
