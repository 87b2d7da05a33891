package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"sluice/config/units"
	"sluice/discovery/locality"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/route/auth"
	"sluice/test/verify"
)

// A hostileLane is a proxy for one case at a time.
type hostileLane struct {
	mu         sync.Mutex
	p          *testProxy
	hostile    *hostileRoutes
	smuggled   atomic.Bool // a peer that behaves got a field that nobody sent
	goroutines int         // after the first case, with those of connections to peers that behave
	leftovers  *leftovers
}

func newHostileLane(f *testing.F) *hostileLane {
	l := &hostileLane{leftovers: findLeftovers(f)}
	origin := startOrigin(f, withHead(func(c *originConn, r *http.Request) bool {
		if r.Header.Get("Injected") != "" {
			l.smuggled.Store(true)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		return c.write(okResponse)
	}))
	l.p = startProxy(f, Options{}, origin.address())
	l.hostile = newHostileRoutes(f, l.p)
	return l
}

// expectNothingLeft checks that a case has left nothing.
func (l *hostileLane) expectNothingLeft(t *testing.T) {
	t.Helper()
	verify.That(t, !l.smuggled.Swap(false), "the peer got a field that was smuggled")
	l.hostile.closeIdle()
	l.p.expectNothingLeft(t, 0)
	l.p.expectNoEntries(t, l.p.pool, l.hostile.http1.Pool, l.hostile.http2.Pool)
	for _, s := range []*route.Service{l.hostile.http1, l.hostile.http2} {
		eventually(t, "no attempt is in flight", func() bool { return inflightIn(s.Pool) == 0 })
	}
	connector := l.hostile.http2.Pool.Snapshot().All[0].Transport.(upstream.Connector)
	eventually(t, "the connections to the peer have ended", func() bool {
		idle, busy := connector.Connections()
		return idle+busy == 0
	})
	if l.goroutines == 0 {
		l.goroutines = runtime.NumGoroutine() + 16
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= l.goroutines })
}

// exchange sends requests of clients of both protocols at a time, one of them with a body, and
// waits for their ends. What the clients get is well-formed.
func (l *hostileLane) exchange(t *testing.T) {
	t.Helper()
	var clients sync.WaitGroup
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", 16<<10, strings.Repeat("x", 16<<10)), 8) + "0\r\n\r\n",
	} {
		conn := l.p.dial()
		clients.Go(func() {
			defer conn.Close()
			go func() { _, _ = io.WriteString(conn, request) }()
			reader := bufio.NewReader(conn)
			for {
				response, err := http.ReadResponse(reader, nil)
				if err != nil {
					verify.That(t, !timedOut(err), "no answer: %v", err)
					return
				}
				verify.Equal(t, response.Header.Get("Injected"), "", "the client got a field that was smuggled: %v", response.Header)
				if response.StatusCode < 200 && response.StatusCode != 101 {
					continue
				}
				if _, err := io.Copy(io.Discard, response.Body); timedOut(err) {
					t.Errorf("the response does not end: %v", err)
				}
				return
			}
		})
	}
	c := l.p.dialFrames()
	clients.Go(func() {
		defer c.conn.Close()
		if c.request(1, http2Get+"|te=trailers", true) == nil {
			c.response(1)
		}
	})
	clients.Wait()
}

func timedOut(err error) bool {
	failure, ok := err.(interface{ Timeout() bool })
	return ok && failure.Timeout()
}

// Whatever a peer of HTTP/2 sends, the exchanges end, and nothing is left of them.
func FuzzHTTP2Peer(f *testing.F) {
	for _, input := range hostileInputs(f) {
		if input.peerHTTP2 != nil {
			f.Add(input.peerHTTP2, uint8(1))
		}
	}
	for _, write := range []func(p *framePeer){
		func(p *framePeer) {
			p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10})
			for _, id := range []uint32{1, 3, 5} {
				p.headers(id, false, ":status", "103", "link", "a")
				p.headers(id, false, ":status", "200", "content-length", "4")
				p.WriteWindowUpdate(id, 1<<20)
				p.WriteData(id, false, []byte("bo"))
				p.WriteDataPadded(id, true, []byte("dy"), make([]byte, 7))
			}
			p.WriteWindowUpdate(0, 1<<20)
		},
		func(p *framePeer) {
			p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 0}, xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 1})
			p.headers(1, false, ":status", "200", "trailer", "x-t")
			p.WriteData(1, false, []byte("body"))
			p.headers(1, true, "x-t", "1")
			p.WriteRSTStream(3, xhttp2.ErrCodeRefusedStream)
			p.WriteGoAway(3, xhttp2.ErrCodeNo, nil)
			p.WritePing(false, [8]byte{1})
			p.WriteRSTStream(5, xhttp2.ErrCodeCancel)
		},
		func(p *framePeer) {
			p.WriteSettings()
			p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1<<31 - 1})
			p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
			p.encode(":status", "401")
			p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block.Bytes()[:1], EndStream: true})
			p.WriteContinuation(1, true, p.block.Bytes()[1:])
			p.headers(3, true, ":status", "401")
			p.WriteRSTStream(3, xhttp2.ErrCodeNo)
			p.headers(5, true, ":status", "204", "injected", "")
		},
	} {
		f.Add(frames(write), uint8(3))
	}
	l := newHostileLane(f)
	l.fuzz(f, "injected", func(text []byte, parts int) { // a peer may send any field
		l.hostile.set(hostileInput{peerHTTP2: text})
		l.hostile.peer2.play(text, parts)
	}, func() {})
}

// fuzz plays each input that does not smuggle by itself, sends requests, and ends what they have
// left open.
func (l *hostileLane) fuzz(f *testing.F, smuggles string, play func(text []byte, parts int), end func()) {
	f.Fuzz(func(t *testing.T, text []byte, parts uint8) {
		defer l.leftovers.enter(t, l.p)()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.p.t = t
		if len(text) > 64<<10 || bytes.Contains(bytes.ToLower(text), []byte(smuggles)) {
			return
		}
		play(text, int(parts))
		l.exchange(t)
		end()
		l.expectNothingLeft(t)
	})
}

// Whatever an authentication server answers, the requests end, nothing is left of them, and
// neither a peer nor a client gets a field that the answer has not, or that is not well-formed.
func FuzzAuthenticationAnswer(f *testing.F) {
	for _, input := range hostileInputs(f) {
		if input.authServer != "" {
			f.Add([]byte(input.authServer), uint8(1))
		}
	}
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nX-User: ann\r\nX-Group: a\r\nX-Group: b\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nX-User: a\rInjected: b\r\n\r\n",
		"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nSet-Cookie: a\nInjected: b\r\nContent-Length: 2\r\n\r\nno",
		"HTTP/1.1 302 Found\r\nLocation: /login\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nno\r\n0\r\nX-T: 1\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
		"HTTP/1.0 500 x\r\nX_User: \xff\r\n\r\nbody",
	} {
		f.Add([]byte(answer), uint8(2))
	}
	l := newHostileLane(f)
	forward := auth.NewForward(units.NewLocation("http://"+l.hostile.auth.address), patience, locality.ByOperator)
	f.Cleanup(forward.Close)
	l.p.setRoutes(route.Route{Path: "/", Service: l.p.service, Actions: &route.Actions{
		ForwardAuth: &route.ForwardAuth{Forward: forward, Copied: []string{"x-user", "x-group", "x_user"}},
		Authorized:  route.HeaderEdits{Dropped: []string{"x-user", "x-group", "x_user"}},
	}})
	l.fuzz(f, "\ninjected:", l.hostile.auth.play, forward.Close)
}
