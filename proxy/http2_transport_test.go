package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/proxy/refusal"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/test/verify"
)

// onlyConnector returns the connector of the only peer.
func (p *testProxy) onlyConnector() upstream.Connector {
	return p.pool.Snapshot().All[0].Transport.(upstream.Connector)
}

// peerConnections returns how many connections to the only peer are open.
func (p *testProxy) peerConnections() int {
	idle, busy := p.onlyConnector().Connections()
	return idle + busy
}

// A peer gets no more streams on a connection than its SETTINGS allow, and more
// connections instead.
func TestHTTP2PeerLimitsStreams(t *testing.T) {
	t.Parallel()
	const limit, requests = 2, 6
	var mu sync.Mutex
	open, most := make(map[*framePeer][]uint32), 0
	p := startProxyToH2C(t, startFramePeerWith(t, framePeerOptions{
		settings: []xhttp2.Setting{{ID: xhttp2.SettingMaxConcurrentStreams, Val: limit}},
		answer: func(p *framePeer, stream uint32) {
			mu.Lock()
			defer mu.Unlock()
			open[p] = append(open[p], stream)
			total := 0
			for _, streams := range open {
				total += len(streams)
				most = max(most, len(streams))
			}
			if total < requests {
				return
			}
			for p, streams := range open {
				for _, stream := range streams {
					p.headers(stream, true, ":status", "204")
				}
			}
		},
	}))
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			verify.Contains(t, p.raw("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"), "204", "result")
		})
	}
	wg.Wait()
	p.expectNothingCounted()
	verify.That(t, most <= limit, "%d streams on a connection, allowed are %d", most, limit)
}

// A peer that cannot take a stream by HTTP/2 is a connect failure: even a POST goes to
// another peer.
func TestPeerWithoutHTTP2(t *testing.T) {
	t.Parallel()
	good := startH2COrigin(t, echoH2C)
	for name, address := range map[string]string{
		"HTTP/1.1":         startOrigin(t, answering(okResponse)).address(),
		"closes":           startOrigin(t, func(*originConn) bool { return false }).address(),
		"takes no streams": startFramePeerWith(t, framePeerOptions{settings: []xhttp2.Setting{{ID: xhttp2.SettingMaxConcurrentStreams, Val: 0}}}),
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxyToH2C(t, address)
			p.setService(route.Service{Timeouts: defaultTimeouts(), Retry: route.Retry{Attempts: 3}})
			const request = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
			verify.Contains(t, p.raw(request), refusal.Connect.Reason, "p.raw(request)")
			peer := p.pool.Snapshot().All[0]
			n := peer.Outcomes()[balancer.OutcomeConnectFailure]
			verify.That(t, n != 0, "no connect failure was counted")
			p.setPeers(address, good.address)
			for range 4 {
				answer := p.raw(request)
				verify.That(t, strings.HasPrefix(answer, "HTTP/1.1 200"), "with another peer: %q", answer)
			}
		})
	}
}

// A connection on which nothing arrives gets a PING. If that is not answered, it gets no
// more streams, and its streams fail after a time.
func TestSilentPeerIsPinged(t *testing.T) {
	t.Parallel()
	for _, alive := range []bool{true, false} {
		t.Run(fmt.Sprintf("alive %v", alive), func(t *testing.T) {
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
			waiting, second := p.dial(), p.dial()
			io.WriteString(waiting, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			expectResponse(t, waiting, 103)
			p.sweeper.Advance(2 * time.Second)
			io.WriteString(second, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			eventually(t, "a PING", func() bool { return pings.Load() == 1 })
			if alive {
				expectResponse(t, second, 204)
				verify.Equal(t, connections.Load(), 1, "connections")
				return
			}
			p.sweeper.Advance(2 * time.Second)
			third := p.dial()
			io.WriteString(third, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			expectResponse(t, third, 204) // on another connection
			p.sweeper.Advance(15 * time.Second)
			for _, conn := range []io.Reader{waiting, second} {
				b := make([]byte, 12)
				if io.ReadFull(conn, b); string(b) != "HTTP/1.1 502" {
					t.Errorf("a request on the silent connection: %q", b)
				}
			}
			verify.Equal(t, pings.Load(), 1, "PINGs")
		})
	}
}

// A request that a peer considers malformed says nothing about the peer.
func TestRejectedRequestIsNotCounted(t *testing.T) {
	t.Parallel()
	p := startProxyToH2C(t, startFramePeer(t, func(p *framePeer, stream uint32) {
		p.WriteRSTStream(stream, xhttp2.ErrCodeProtocol)
	}))
	verify.Contains(t, p.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), refusal.BadResponse.Reason, "result")
	p.expectNothingCounted()
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
	good := startH2COrigin(t, echoH2C)
	p := startProxyToH2C(t, lossy)
	var wg sync.WaitGroup
	for _, test := range []struct{ method, want string }{{"GET", "200"}, {"POST", "502"}} {
		for range each {
			conn := p.dial()
			wg.Go(func() {
				fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok", test.method)
				b := make([]byte, len("HTTP/1.1 200"))
				if io.ReadFull(conn, b); string(b) != "HTTP/1.1 "+test.want {
					t.Errorf("%s: got %q", test.method, b)
				}
			})
		}
	}
	lost := <-last
	p.setPeers(lossy, good.address)
	lost.Close()
	wg.Wait()
}

// A peer that leaves finishes its streams.
func TestDrainFinishesStreams(t *testing.T) {
	t.Parallel()
	begun, finish, answered := make(chan *framePeer, 1), make(chan uint32, 1), make(chan struct{}, 1)
	p := startProxyToH2C(t, startFramePeerWith(t, framePeerOptions{
		frame: func(_ *framePeer, frame xhttp2.Frame) {
			if ping, ok := frame.(*xhttp2.PingFrame); ok && ping.IsAck() {
				answered <- struct{}{}
			}
		},
		mute: func() bool { return true },
		answer: func(p *framePeer, stream uint32) {
			p.headers(stream, false, ":status", "200")
			p.WriteData(stream, false, []byte("a"))
			begun <- p
			finish <- stream
		},
	}))
	conn := p.dial()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	peer, stream := <-begun, <-finish
	transport := p.onlyConnector()
	p.setPeers()
	peer.WritePing(false, [8]byte{})
	<-answered
	peer.WriteData(stream, true, []byte("b"))
	all, _ := io.ReadAll(conn)
	text := string(all)
	verify.That(t, strings.HasSuffix(text, "0\r\n\r\n") && strings.Contains(text, "b"), "got %q", text)
	eventually(t, "the connection is closed", func() bool {
		idle, busy := transport.Connections()
		return idle+busy == 0
	})
}

func TestHTTP2PeerOverTLS(t *testing.T) {
	t.Parallel()
	options := someTransport
	options.TLS = anyCertificate
	server := &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2"}}
	http1 := server.Clone()
	http1.NextProtos = []string{"http/1.1"}
	silent := server.Clone()
	silent.NextProtos = nil
	body := strings.Repeat("x", 60_000)
	answer := func(p *framePeer, stream uint32) {
		p.headers(stream, false, ":status", "200")
		for rest := body; ; rest = rest[10_000:] { // less than the window
			p.WriteData(stream, len(rest) == 10_000, []byte(rest[:10_000]))
			if len(rest) == 10_000 {
				return
			}
		}
	}
	for _, test := range []struct {
		name   string
		config *tls.Config
		want   string
	}{
		{"h2", server, "HTTP/1.1 200"},
		{"only http/1.1", http1, refusal.PeerTLS.Reason},
		{"no ALPN", silent, refusal.PeerTLS.Reason},
	} {
		t.Run(test.name, func(t *testing.T) {
			var uploaded atomic.Int64
			p := startProxy(t, Options{})
			p.usePeers(true, options, balancer.Options{Policy: balancer.PolicyRoundRobin}, startFramePeerWith(t, framePeerOptions{tls: test.config, answer: answer, frame: func(p *framePeer, frame xhttp2.Frame) {
				if data, ok := frame.(*xhttp2.DataFrame); ok && len(data.Data()) > 0 {
					uploaded.Add(int64(len(data.Data())))
					p.WriteWindowUpdate(0, uint32(len(data.Data())))
					p.WriteWindowUpdate(data.StreamID, uint32(len(data.Data())))
				}
			}}))
			for i := range 3 {
				got := p.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				if !strings.Contains(got, test.want) || test.config == server && strings.Count(got, "x") < len(body) {
					t.Errorf("request %d: %d bytes, %.200q", i, len(got), got)
				}
			}
			if test.config != server {
				n := p.pool.Snapshot().All[0].Outcomes()[balancer.OutcomeConnectFailure]
				verify.That(t, n != 0, "no connect failure was counted")
				return
			}
			verify.Equal(t, p.peerConnections(), 1, "connections")
			p.expectNothingCounted()
		})
	}
}

// A request that a peer has not processed, and gets again, has no more time than once.
func TestRequestThatIsSentAgainHasNoMoreTime(t *testing.T) {
	t.Parallel()
	const limit = time.Hour
	for _, hedge := range []*route.Hedge{nil, {After: time.Millisecond}} {
		last := int32(1) // the one that is sent again
		if hedge != nil {
			last = 2
		}
		var count atomic.Int32
		asked, ends := make(chan bool, 3), make(chan struct{})
		answer := func(p *framePeer, _ uint32) {
			n := count.Add(1)
			if asked <- true; n == last {
				<-ends
				p.WriteGoAway(0, xhttp2.ErrCodeNo, nil)
			}
		}
		p := startProxyToH2C(t, startFramePeer(t, answer), startFramePeer(t, answer))
		timeouts := patientTimeouts()
		timeouts.ResponseHeader = limit
		p.setService(route.Service{Timeouts: timeouts, Retry: route.Retry{Attempts: 1, Hedge: hedge}})
		conn := p.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		for range last {
			<-asked
		}
		p.skip(limit / 2)
		close(ends)
		<-asked
		p.skip(limit / 2)
		expectResponse(t, conn, 504)
	}
}
