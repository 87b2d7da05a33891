package proxy

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/test/verify"
)

// A peer answers before it has the whole body, which it never reads. With the end of the
// exchange the goroutine that sends the body ends, whatever it waits for.
func TestHTTP2PeerAnswersEarly(t *testing.T) {
	t.Parallel()
	const length, clients = 300_000, 20
	for _, test := range []struct {
		name   string
		answer func(p *framePeer, stream uint32)
	}{
		{"without a reset", func(p *framePeer, stream uint32) { p.headers(stream, true, ":status", "401") }},
		{"with NO_ERROR", func(p *framePeer, stream uint32) {
			// In one segment: sluice may end the stream before a reset that arrives later.
			p.Conn.Write(frames(func(p *framePeer) {
				p.headers(stream, true, ":status", "401")
				p.WriteRSTStream(stream, xhttp2.ErrCodeNo)
			}))
		}},
		{"in parts", func(p *framePeer, stream uint32) {
			p.headers(stream, false, ":status", "401")
			p.WriteData(stream, true, []byte("no"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var resets atomic.Int64
			p := startProxyToH2C(t, startFramePeerWith(t, framePeerOptions{
				answer: test.answer,
				frame: func(_ *framePeer, frame xhttp2.Frame) {
					if f, ok := frame.(*xhttp2.RSTStreamFrame); ok && f.ErrCode == xhttp2.ErrCodeCancel {
						resets.Add(1)
					}
				},
			}))
			for range clients {
				conn := p.dial()
				fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", length)
				go conn.Write(make([]byte, length))
				expectResponse(t, conn, 401)
				conn.Close()
			}
			c := p.dialFrames()
			c.request(1, http2Post, false)
			c.WriteData(1, false, make([]byte, http2.MaxFrameBytes))
			c.WriteData(1, false, make([]byte, http2.MaxFrameBytes))
			r := c.response(1)
			verify.That(t, r.status == "401" && r.ended, "got %+v", r)
			c.expectReset(1, xhttp2.ErrCodeNo) // RFC 9113, section 8.1
			c.conn.Close()
			eventually(t, "all connections have ended", func() bool { return p.Connections() == 0 })
			n := resets.Load()
			verify.That(t, test.name != "with NO_ERROR" || n <= 0, "%d streams that the peer has reset were reset", n)
			p.expectNothingCounted()
		})
	}
}

// A head or a frame of a stream that sluice does not accept fails its own stream only, and the
// next heads are understood.
func TestHTTP2PeerFaultsOfAStream(t *testing.T) {
	t.Parallel()
	const others = 3
	type test struct {
		head   func(p *framePeer, stream uint32)
		reason string
		counts bool
	}
	eachCase(t, map[string]test{
		"long in one frame": {func(p *framePeer, stream uint32) {
			p.headers(stream, true, ":status", "200", "x-next", "v", "a", strings.Repeat("a", 20_000))
		}, "response_head_too_long", false},
		"long in many frames": {func(p *framePeer, stream uint32) {
			p.longHeaders(stream, 1000, ":status", "200", "x-next", "v", "a", strings.Repeat("v", 70_000))
		}, "response_head_too_long", false},
		"hundreds of kilobytes": {func(p *framePeer, stream uint32) {
			p.longHeaders(stream, 16_000, ":status", "200", "x-next", "v", "a", strings.Repeat("v", 700_000))
		}, "response_head_too_long", false},
		"malformed": {func(p *framePeer, stream uint32) {
			p.headers(stream, true, ":status", "200", "x-next", "v", "A", "b")
		}, "bad_response", false},
		"a reset of a request that it considers malformed": {func(p *framePeer, stream uint32) {
			p.WriteRSTStream(stream, xhttp2.ErrCodeProtocol)
		}, "bad_response", false},
		"data without a head": {func(p *framePeer, stream uint32) { p.WriteData(stream, true, []byte("x")) }, "bad_response", true},
		"window update of 0": {func(p *framePeer, stream uint32) {
			p.WriteRawFrame(xhttp2.FrameWindowUpdate, 0, stream, make([]byte, 4))
		}, "upstream_reset", true},
		"window of a stream too large": {func(p *framePeer, stream uint32) { p.WriteWindowUpdate(stream, http2.MaxWindow) }, "upstream_reset", true},
	}, func(t *testing.T, test test) {
		arrived := make(chan uint32, others)
		asked := 0
		address := startFramePeer(t, func(p *framePeer, stream uint32) {
			if asked++; asked <= others {
				arrived <- stream
				return
			}
			if asked == others+1 {
				test.head(p, stream)
				return
			}
			for other := range others {
				p.headers(uint32(2*other+1), true, ":status", "204", "x-next", "v")
			}
			p.headers(stream, true, ":status", "204", "x-next", "v")
		})
		p := startProxyToH2C(t, address)
		answers := make(chan string, others)
		for range others {
			go func() {
				answers <- p.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}()
			<-arrived
		}
		expectReason(t, p.raw(closingRequest), "502", test.reason)
		verify.Equal(t, p.peerConnections(), 1, "connections")
		answer := p.raw(closingRequest)
		for i := range others + 1 {
			verify.That(t, strings.Contains(answer, " 204 ") && strings.Contains(answer, "x-next: v\r\n"), "other request %d: %.200q", i, answer)
			if i < others {
				answer = <-answers
			}
		}
		if !test.counts {
			p.expectNothingCounted()
		}
	})
}

// Clients that give up requests after a time, as with a deadline, are no attackers, and do not make
// a peer close a connection that others share: Netty does so after 200 resets.
func TestHTTP2PeerGetsFewResets(t *testing.T) {
	t.Parallel()
	const limit, tolerated = 100, 200 // of resets of a connection: by sluice, and by Netty
	const cancels = 4 * limit
	var mu sync.Mutex
	resets := make(map[*framePeer]int) // of each connection, guarded by mu
	var asked atomic.Int64
	kept := make(chan *framePeer, 1)
	p := startProxyToH2C(t, startFramePeerWith(t, framePeerOptions{
		answer: func(p *framePeer, stream uint32) {
			mu.Lock()
			defer mu.Unlock()
			if resets[p] += 0; asked.Add(1) == 1 {
				kept <- p
			}
		},
		frame: func(p *framePeer, frame xhttp2.Frame) {
			mu.Lock()
			defer mu.Unlock()
			if _, ok := frame.(*xhttp2.RSTStreamFrame); ok {
				resets[p]++
			}
		},
	}))
	other := p.send(smallPost)
	shared := <-kept
	c := p.dialFrames()
	for id := uint32(1); id < 2*cancels; {
		var mine []uint32
		for range http2Streams {
			c.request(id, http2Get, true)
			mine, id = append(mine, id), id+2
		}
		eventually(t, "all are at the peer", func() bool { return asked.Load() == int64(id+1)/2 })
		p.sweptFor(http2EarlyReset + 2*socket.SweepInterval)
		for _, stream := range mine {
			c.WriteRSTStream(stream, xhttp2.ErrCodeCancel)
		}
		eventually(t, "only the other request is left", func() bool { return p.inflight() == 1 })
	}
	shared.headers(1, true, ":status", "204")
	expectResponse(t, other, 204)
	eventually(t, "the old connections are closed", func() bool { return p.peerConnections() <= 1 })
	p.expectNothingCounted()
	mu.Lock()
	defer mu.Unlock()
	for _, n := range resets {
		verify.That(t, n < tolerated, "%d streams of a connection were reset", n)
	}
	verify.That(t, len(resets) <= 2+cancels/limit, "%d connections for %d canceled requests", len(resets), cancels)
}

// A head over the limit that a peer announces does not reach it: servers such as Netty's end the
// connection for one, with the requests of other clients.
func TestHeadOverLimitOfHTTP2Peer(t *testing.T) {
	t.Parallel()
	const limit = 8 << 10
	arrived, first := make(chan struct{}, 1), &framePeer{}
	first.hpack = hpack.NewEncoder(&first.block)
	var waits uint32 // the stream of first that has no answer
	p := startProxyToH2C(t, startFramePeerWith(t, framePeerOptions{
		settings: []xhttp2.Setting{{ID: xhttp2.SettingMaxHeaderListSize, Val: limit}},
		answer: func(p *framePeer, stream uint32) {
			if first.Framer == nil {
				first.Framer, waits = xhttp2.NewFramer(p.Conn, nil), stream
				arrived <- struct{}{}
				return
			}
			first.headers(waits, true, ":status", "204") // perhaps on another connection, if the machine is slow
			p.headers(stream, true, ":status", "204")
		},
		frame: func(p *framePeer, frame xhttp2.Frame) {
			if frame.Header().Type == xhttp2.FrameHeaders && frame.Header().Length > limit {
				p.WriteGoAway(frame.Header().StreamID, xhttp2.ErrCodeProtocol, nil)
				p.Conn.Close()
			}
		},
	}))
	other := p.send(smallPost)
	<-arrived
	long := func(bytes int) string {
		return "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nLong: " + strings.Repeat("~", bytes) + "\r\n\r\n"
	}
	expectReason(t, p.raw(long(limit)), "431", "head_too_long")
	p.expect(long(limit-1000), "204")
	expectResponse(t, other, 204)
	p.expectNothingCounted()
}
