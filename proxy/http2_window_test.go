package proxy

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/route/places"
	"sluice/test/verify"
)

// An uploader is a client that obeys the windows of its connection and of its streams.
type uploader struct {
	*frameClient
	window  int // of the connection
	windows map[uint32]int
	ended   map[uint32]bool // streams that are answered, or reset
	resets  map[uint32]xhttp2.ErrCode
}

func uploaderOn(c *frameClient) *uploader {
	return &uploader{c, http2.InitialWindow, make(map[uint32]int), make(map[uint32]bool), make(map[uint32]xhttp2.ErrCode)}
}

// open opens a request whose body follows.
func (u *uploader) open(id uint32) {
	u.t.Helper()
	verify.Succeeds(u.t, u.request(id, http2Post, false))
	u.windows[id] = http2.InitialWindow
}

// pump processes what has arrived.
func (u *uploader) pump() {
	u.t.Helper()
	verify.Succeeds(u.t, u.WritePing(false, [8]byte{1}))
	for {
		u.conn.SetReadDeadline(time.Now().Add(patience))
		switch f := verify.Result(u.ReadFrame()).Must(u.t).(type) {
		case *xhttp2.PingFrame:
			return
		case *xhttp2.WindowUpdateFrame:
			if f.StreamID == 0 {
				u.window += int(f.Increment)
			} else {
				u.windows[f.StreamID] += int(f.Increment)
			}
		case *xhttp2.RSTStreamFrame:
			u.resets[f.StreamID], u.ended[f.StreamID] = f.ErrCode, true
		case *xhttp2.DataFrame:
			u.ended[f.StreamID] = u.ended[f.StreamID] || f.StreamEnded()
		case *xhttp2.MetaHeadersFrame:
			u.ended[f.StreamID] = u.ended[f.StreamID] || f.StreamEnded()
		}
	}
}

// send sends as much as the windows allow, up to n bytes, and returns how much.
func (u *uploader) send(id uint32, n int, ends bool) (sent int) {
	for sent < n && !u.ended[id] {
		part := min(n-sent, u.window, u.windows[id], http2.MaxFrameBytes)
		if part <= 0 {
			return sent
		}
		verify.Succeeds(u.t, u.WriteData(id, ends && sent+part == n, make([]byte, part)))
		sent += part
		u.window -= part
		u.windows[id] -= part
	}
	return sent
}

// fill sends on these streams until the windows allow nothing more.
func (u *uploader) fill(p *testProxy, ids []uint32) {
	u.t.Helper()
	for quiet := false; ; {
		sent := 0
		for _, id := range ids {
			sent += u.send(id, http2.MaxFrameBytes, false)
		}
		if sent == 0 && quiet {
			return
		}
		if quiet = sent == 0; quiet {
			p.sweptFor(2 * socket.SweepInterval) // streams that were woken have taken what they can
		}
		u.pump()
	}
}

// stall opens n uploads to a startStallingPeer, and sends as much as it takes of them.
func (u *uploader) stall(p *testProxy, n int, requests *atomic.Int64) {
	u.t.Helper()
	var ids []uint32
	for i := range n {
		ids = append(ids, uint32(2*i+1))
		u.open(ids[i])
	}
	eventually(u.t, "the peer has all of them", func() bool { return requests.Load() == int64(n) })
	u.fill(p, ids)
}

// upload sends a whole body, and waits for the answer.
func (u *uploader) upload(id uint32, bytes int) {
	u.t.Helper()
	u.open(id)
	eventually(u.t, fmt.Sprintf("the body of stream %d passes", id), func() bool {
		u.pump()
		bytes -= u.send(id, bytes, true)
		return bytes == 0
	})
	eventually(u.t, fmt.Sprintf("stream %d is answered", id), func() bool { u.pump(); return u.ended[id] })
	verify.That(u.t, u.resets[id] == xhttp2.ErrCodeNo, "stream %d was reset with %v", id, u.resets[id])
}

// startStallingPeer starts a peer that takes that many bytes of each of the first bodies, and the
// others whole. requests counts those that it has got.
func startStallingPeer(t *testing.T, stalled int, bytes uint32) (address string, requests *atomic.Int64) {
	requests = new(atomic.Int64)
	address = startFramePeerWith(t, framePeerOptions{
		settings: []xhttp2.Setting{{ID: xhttp2.SettingInitialWindowSize, Val: bytes}},
		answer: func(p *framePeer, stream uint32) {
			if stream == 1 {
				p.WriteWindowUpdate(0, 1<<30)
			}
			if requests.Add(1) > int64(stalled) {
				p.WriteWindowUpdate(stream, 1<<24)
			}
		},
		frame: func(p *framePeer, frame xhttp2.Frame) {
			if f, ok := frame.(*xhttp2.DataFrame); ok && f.StreamEnded() {
				p.headers(f.StreamID, true, ":status", "204")
			}
		},
	})
	return address, requests
}

// Uploads that a peer does not read hold up no other one on the connection of their client: each
// has its own share of the connection's window.
func TestHTTP2StalledUploadsDoNotStopOthers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		stalled int
		taken   uint32 // of each by the peer, before it stops
	}{{2, 1 << 20}, {9, 1 << 20}, {http2Streams - 1, 0}} {
		t.Run(fmt.Sprint(test.stalled), func(t *testing.T) {
			t.Parallel()
			address, requests := startStallingPeer(t, test.stalled, test.taken)
			p := startProxyToH2C(t, address)
			u := uploaderOn(p.dialFrames())
			u.stall(p, test.stalled, requests)
			u.upload(uint32(2*test.stalled+1), 2_000_000)
			h := p.onlyHTTP2Client()
			h.protocol.Mu.Lock()
			defer h.protocol.Mu.Unlock()
			verify.That(t, h.protocol.Held <= int64(test.stalled*http2.InitialWindow+http2Growth), "%d bytes are held", h.protocol.Held)
		})
	}
}

// The bytes that wait to be forwarded, and the streams, of one address are bounded in memory: the
// stream that has most is reset. Clients of other addresses have their own share, and nothing of it
// stays taken.
func TestHTTP2StreamsAreBoundedInMemory(t *testing.T) {
	t.Parallel()
	const share, stalled = 1 << 20, 50
	address, requests := startStallingPeer(t, stalled, 0)
	p := startProxyToH2C(t, address)
	p.change(func(o *Options) { o.Limits.StreamBytes = 8 * share })
	u := uploaderOn(p.dialFrames())
	u.stall(p, stalled, requests)
	a := places.BlockOf(u.conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr())
	verify.That(t, len(u.resets) > 0 && len(u.resets) < stalled && p.streamMemory.TakenBy(a) <= share, "%d streams were reset, %d bytes taken", len(u.resets), p.streamMemory.TakenBy(a))
	for id, code := range u.resets {
		verify.Require(t, code == xhttp2.ErrCodeEnhanceYourCalm, "stream %d was reset with %v", id, code)
	}
	b := uploaderOn(framesOn(t, p.dialFrom("127.0.0.2")))
	for i := range 10 {
		b.upload(uint32(2*i+1), 500_000)
	}
	u.conn.Close()
	b.conn.Close()
	eventually(t, "nothing is taken", func() bool { return p.streamMemory.Taken() == 0 })
	p.expectNothingCounted()
}

// However many connections a client has, its requests that wait have a share of the memory.
func TestHTTP2WaitingStreamsAreBoundedInMemory(t *testing.T) {
	t.Parallel()
	const share = 64 * http2StreamBytes
	p := startProxy(t, Options{Limits: Limits{StreamBytes: 8 * share}}, startOrigin(t, hanging).address())
	p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 1}})
	const conns, streams = 5, 40
	refused := 0
	for range conns {
		c := p.dialFrames()
		for i := range uint32(streams) {
			c.request(2*i+1, http2Get, true)
		}
		c.expectAnswered(func(f xhttp2.Frame) {
			if r, ok := f.(*xhttp2.RSTStreamFrame); ok && r.ErrCode == xhttp2.ErrCodeRefusedStream {
				refused++
			}
		})
	}
	verify.Equal(t, conns*streams-refused, share/http2StreamBytes+conns, "requests that wait, one of each connection besides the share")
	other := framesOn(t, p.dialFrom("127.0.0.2"))
	for i := range uint32(10) {
		other.request(2*i+1, http2Get, true)
	}
	other.expectAnswered(func(f xhttp2.Frame) { t.Errorf("another address: %v", f) })
}

// startMeanPeer starts a peer that reads no upload: it never grants any of the window of the
// connections' first 64 KiB, and answers each request whose body is complete. It accepts so many
// connections; grant lets it grant the window. opened counts its connections.
func startMeanPeer(t *testing.T, conns int64) (address string, opened *atomic.Int64, grant func()) {
	opened = new(atomic.Int64)
	granted := make(chan struct{})
	grant = sync.OnceFunc(func() { close(granted) })
	t.Cleanup(grant)
	return startFramePeerWith(t, framePeerOptions{
		accept:   func() bool { return opened.Add(1) <= conns },
		settings: []xhttp2.Setting{{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 24}},
		frame: func(p *framePeer, frame xhttp2.Frame) {
			if h, ok := frame.(*xhttp2.HeadersFrame); ok && h.StreamID == 1 {
				go func() {
					<-granted
					// p writes at the same time.
					xhttp2.NewFramer(p.Conn, nil).WriteWindowUpdate(0, 1<<24)
				}()
			}
			if f, ok := frame.(interface{ StreamEnded() bool }); ok && f.StreamEnded() {
				p.headers(frame.Header().StreamID, true, ":status", "204")
			}
		},
		answer: func(*framePeer, uint32) {},
	}), opened, grant
}

// uploadUntilStalled sends a long body until the peer takes no more of it.
func (p *testProxy) uploadUntilStalled() net.Conn {
	p.t.Helper()
	conn := p.dial()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
	io.WriteString(conn, strings.Repeat("x", 2*http2.InitialWindow))
	eventually(p.t, "the upload has begun", func() bool { _, busy := p.onlyConnector().Connections(); return busy > 0 })
	p.sweptFor(2 * socket.SweepInterval)
	return conn
}

// An upload that the peer does not read has the window of its connection. Other requests with a
// body use another connection, also if the body follows its head, and requests without a body the
// same.
func TestStalledUploadDoesNotStopOthersAtItsPeer(t *testing.T) {
	t.Parallel()
	address, opened, grant := startMeanPeer(t, 1<<30)
	p := startProxyToH2C(t, address)
	defer grant()
	defer p.uploadUntilStalled().Close()
	for i := range 3 {
		p.expect(closingRequest, "204")
		verify.Equal(t, opened.Load(), int64(min(1+i, 2)), "connections after a request without a body")
		for _, body := range []string{"Content-Length: 10\r\n\r\n0123456789", "Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n", "Content-Length: 9000\r\n\r\n" + strings.Repeat("x", 9000)} {
			p.expect("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+body, "204")
		}
		verify.Equal(t, opened.Load(), int64(2), "connections")
	}
	p.expectNothingCounted()
}

// Where the peer accepts no other connection, a request with a body waits for the window, and does
// not fail.
func TestWithoutAnotherConnectionABodyWaitsForTheWindow(t *testing.T) {
	t.Parallel()
	address, opened, grant := startMeanPeer(t, 1)
	p := startProxyToH2C(t, address)
	upload := p.uploadUntilStalled()
	var other sync.WaitGroup
	other.Go(func() {
		p.expect("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\n0123456789", "204")
	})
	eventually(t, "it waits on the only connection", func() bool { return opened.Load() > 1 && p.inflight() == 2 })
	grant()
	other.Wait()
	io.WriteString(upload, strings.Repeat("x", 1_000_000-2*http2.InitialWindow))
	readResponse(t, upload)
}
