package proxy

import (
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/proxy/http2"
	"sluice/route"
	"sluice/test/verify"
)

// smallPost must not be sent twice.
const smallPost = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok"

// A request that a peer has not processed is sent again, whatever its method, and also without
// tries left: it is no failure.
func TestUnprocessedStreamIsSentAgain(t *testing.T) {
	t.Parallel()
	type answer = func(p *framePeer, stream uint32)
	refuse := func(p *framePeer, stream uint32) { p.WriteRSTStream(stream, xhttp2.ErrCodeRefusedStream) }
	goAway := func(p *framePeer, stream uint32) { p.WriteGoAway(stream-1, xhttp2.ErrCodeNo, nil) }
	eachCase(t, map[string][]answer{ // of the first streams
		"REFUSED_STREAM":                                    {refuse},
		"GOAWAY":                                            {goAway},
		"GOAWAY, then REFUSED_STREAM":                       {func(p *framePeer, stream uint32) { goAway(p, stream); refuse(p, stream) }},
		"REFUSED_STREAM, then GOAWAY":                       {func(p *framePeer, stream uint32) { refuse(p, stream); goAway(p, stream) }},
		"GOAWAY after it, and REFUSED_STREAM":               {func(p *framePeer, stream uint32) { p.WriteGoAway(stream, xhttp2.ErrCodeNo, nil); refuse(p, stream) }},
		"GOAWAY of all, and REFUSED_STREAM":                 {func(p *framePeer, stream uint32) { p.WriteGoAway(1<<31-1, xhttp2.ErrCodeNo, nil); refuse(p, stream) }},
		"GOAWAY, and REFUSED_STREAM of the next connection": {goAway, refuse},
		"REFUSED_STREAM, and GOAWAY to the next stream":     {refuse, goAway},
	}, func(t *testing.T, answers []answer) {
		left := make(chan answer, len(answers))
		p := startProxyToH2C(t, startFramePeer(t, func(p *framePeer, stream uint32) {
			select {
			case a := <-left:
				a(p, stream)
			default:
				p.headers(stream, true, ":status", "204")
			}
		}))
		p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 1}})
		refuseNext := func() {
			for _, a := range answers {
				left <- a
			}
		}
		conn, c := p.dial(), p.dialFrames()
		for id := uint32(1); id < 5; id += 2 {
			refuseNext()
			io.WriteString(conn, smallPost)
			expectResponse(t, conn, 204)
			refuseNext()
			c.conn.Write(c.framesOf(func() { // so that the whole call arrives at once
				c.request(id, grpcPost, false)
				c.WriteData(id, true, make([]byte, 5)) // a message without bytes
			}))
			r := c.response(id)
			verify.That(t, r.status == "204", "got %+v", r)
		}
		p.expectNothingCounted()
	})
}

// Peers may end each connection after a few streams, as nginx does after keepalive_requests, and
// refuse those that were opened meanwhile: no request fails, whatever its method, and none is
// served twice.
func TestPeerEndsConnectionsAfterFewStreams(t *testing.T) {
	t.Parallel()
	const streams, clients, requests = 10, 40, 3
	var served atomic.Int64
	address := startFramePeer(t, func(p *framePeer, stream uint32) {
		const last = 2*streams - 1
		if stream == last {
			p.WriteGoAway(last, xhttp2.ErrCodeNo, nil)
		}
		if stream <= last {
			served.Add(1)
			p.headers(stream, true, ":status", "204")
		}
	})
	p := startProxyToH2C(t, address)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			conn := p.dial()
			for range requests {
				io.WriteString(conn, smallPost)
				if status, body := readResponse(t, conn); status != 204 {
					t.Errorf("got %d %s", status, body)
					return
				}
			}
		})
	}
	wg.Wait()
	verify.Equal(t, served.Load(), clients*requests, "requests were served")
	p.expectNothingCounted()
}

// A peer that ends connections before it serves a stream does not get many for a request.
func TestPeerEndsConnectionsAtOnce(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]bool{"with SETTINGS": false, "with the first stream": true}, func(t *testing.T, first bool) {
		origin := startOrigin(t, func(c *originConn) bool {
			settings, end := http2.AppendSettings(nil), http2.AppendGoAway(nil, 0, http2.NoError)
			if first {
				c.Conn.Write(settings)
				io.ReadFull(c, make([]byte, len(http2.Preface)+100)) // a part of the stream
				settings = nil
			}
			c.Conn.Write(append(settings, end...))
			io.Copy(io.Discard, c)
			return false
		})
		p := startProxyToH2C(t, origin.address())
		expectResponse(t, p.send(smallPost), 502)
		verify.That(t, origin.connections() <= 10, "%d connections", origin.connections())
	})
}

// A peer that accepts no streams any more keeps no connection on which nothing is left.
func TestPeerAcceptsNoMoreStreams(t *testing.T) {
	t.Parallel()
	none := xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 0}
	eachCase(t, map[string]func(p *framePeer, stream uint32){
		"within a stream": func(p *framePeer, stream uint32) {
			p.WriteSettings(none)
			p.headers(stream, true, ":status", "204")
		},
		"after it": func(p *framePeer, stream uint32) {
			p.headers(stream, true, ":status", "204")
			p.WriteSettings(none)
		},
	}, func(t *testing.T, answer func(p *framePeer, stream uint32)) {
		p, o := startProxy(t, Options{}), someTransport
		o.IdleTimeout = time.Hour
		p.usePeers(true, o, balancer.Options{}, startFramePeer(t, answer))
		conn := p.dial()
		for range 3 {
			io.WriteString(conn, smallPost)
			expectResponse(t, conn, 204)
		}
		eventually(t, "the connections are closed", func() bool { return p.peerConnections() == 0 })
		p.expectNothingCounted()
	})
}

// A request with the maximum number of fields reaches peers with HTTP/2 too.
func TestManyFieldsToHTTP2Peers(t *testing.T) {
	t.Parallel()
	p := startProxyToH2C(t, startServer(t, echoRequest))
	for _, a := range []*route.Actions{nil, visibleEdits(t)} {
		p.setActions(a)
		status, body := readResponse(t, p.send("GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("X-A: 1\r\n", 99)+"\r\n"))
		verify.That(t, status == 200 && strings.Count(body, "X-A: 1") == 99, "got %d %q", status, body)
	}
}
