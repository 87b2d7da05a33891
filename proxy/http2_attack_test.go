package proxy

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/http2"
	"sluice/test/verify"
)

// Each test sends what an attacker may send: the connection ends, no more work is done
// than for a client that behaves, and no peer is blamed.

// A client resets its streams, makes the proxy reset them, or floods the connection.
func TestHTTP2RapidReset(t *testing.T) {
	t.Parallel()
	type attack = func(c *frameClient, id uint32) error
	requestAnd := func(fault attack) attack {
		return func(c *frameClient, id uint32) error {
			return errors.Join(c.request(id, http2Post+"|content-length=3|expect=100-continue", false), fault(c, id))
		}
	}
	eachCase(t, map[string]attack{
		"CVE-2023-44487": requestAnd(func(c *frameClient, id uint32) error { return c.WriteRSTStream(id, xhttp2.ErrCodeCancel) }),
		// CVE-2025-8671, in several ways.
		"window overflow":         requestAnd(func(c *frameClient, id uint32) error { return c.WriteWindowUpdate(id, http2.MaxWindow) }),
		"too much data":           requestAnd(func(c *frameClient, id uint32) error { return c.WriteData(id, true, []byte("longer")) }),
		"malformed trailers":      requestAnd(func(c *frameClient, id uint32) error { return c.request(id, "x=1\r\n", true) }),
		"trailers without an end": requestAnd(func(c *frameClient, id uint32) error { return c.request(id, "x=1", false) }),
		"malformed requests":      func(c *frameClient, id uint32) error { return c.request(id, http2Get+"|connection=close", true) },
		"PING":                    func(c *frameClient, _ uint32) error { return c.WritePing(false, [8]byte{}) },
		// CVE-2016-6581: many references to a long field.
		"HPACK bomb": func(c *frameClient, id uint32) error {
			block := append(c.encode(http2Get+"|x="+strings.Repeat("v", 3500)), strings.Repeat("\xbe", 1000)...)
			return c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: block})
		},
	}, func(t *testing.T, attack attack) {
		origin := startOrigin(t, hanging)
		p := startProxy(t, Options{}, origin.address())
		c := p.dialFrames()
		var most atomic.Int64
		go func() {
			for id := uint32(1); id < 2_000_000 && attack(c, id) == nil; id += 2 {
				most.Store(max(most.Load(), int64(p.inflight())))
			}
		}()
		c.expectEnd(xhttp2.ErrCodeEnhanceYourCalm)
		verify.That(t, most.Load() <= http2Streams, "%d requests in flight, want at most %d", most.Load(), http2Streams)
		n := origin.connections()
		verify.That(t, n <= http2Resets+http2Streams, "%d requests reached the peer", n)
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
		p.expectNothingCounted()
	})
}

// A client with a window of zero does not hold a peer: its response is read no further
// than the buffers, and is reset when the client takes nothing for the write timeout.
func TestHTTP2ZeroWindow(t *testing.T) {
	t.Parallel()
	sent := make(chan int, 1)
	origin := startOrigin(t, afterRequest(func(c *originConn) bool {
		c.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
		n, _ := c.Conn.Write(make([]byte, 100_000_000))
		sent <- n
		return false
	}))
	p := startProxy(t, Options{Timeouts: Timeouts{Write: 300 * time.Millisecond}}, origin.address())
	c := p.dialFrames(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
	r := c.ask(1, http2Get)
	verify.That(t, r.status == "200" && r.body == "" && r.reset == xhttp2.ErrCodeCancel, "got %+v", r)
	n := <-sent
	verify.That(t, n <= 50_000_000, "the peer sent %d bytes", n)
	eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
	p.expectNothingCounted()
}

// Slow prefaces, half frames and field blocks without an end.
func TestHTTP2SlowFrames(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]string{
		"preface":              http2.Preface[:20],
		"no SETTINGS":          http2.Preface,
		"half a frame":         http2.Preface + string(http2.AppendSettings(nil)) + "\x00\x00\x08\x06\x00\x00\x00\x00\x00123",
		"block without an end": http2.Preface + string(http2.AppendSettings(nil)) + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82",
	}, func(t *testing.T, sent string) {
		p := startProxy(t, Options{Timeouts: Timeouts{Head: 200 * time.Millisecond}})
		conn := p.dial()
		io.WriteString(conn, sent)
		verify.Result(io.Copy(io.Discard, conn)).Must(t)
	})
}

// A frame of which a part arrives on a connection that was idle has as much time as any other.
func TestHTTP2SlowFrameAfterIdleness(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]string{
		"half a frame":         "\x00\x00\x08\x06\x00\x00\x00\x00\x00123",
		"block without an end": "\x00\x00\x01\x01\x00\x00\x00\x00\x03\x82",
	}, func(t *testing.T, part string) {
		p := startProxy(t, Options{Timeouts: Timeouts{Head: time.Minute, Idle: time.Hour}}, answersOK(t))
		c := p.dialFrames()
		c.expectAlive(1)
		h := p.onlyHTTP2Client()
		eventually(t, "the connection is idle", h.idleNow)
		io.WriteString(c.conn, part)
		eventually(t, "the part has arrived", func() bool {
			h.protocol.Mu.Lock()
			defer h.protocol.Mu.Unlock()
			return h.partial
		})
		p.skip(time.Minute)
		c.expectEnd(xhttp2.ErrCodeNo)
	})
}

// The preface is read in any pieces, but only as the first bytes of a connection.
func TestHTTP2PrefaceInPieces(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, answersOK(t))
	for size := 1; size < len(http2.Preface); size++ {
		conn := p.dial()
		c := &frameClient{Framer: xhttp2.NewFramer(conn, conn), t: t, conn: conn}
		io.WriteString(conn, http2.Preface[:size])
		io.WriteString(conn, http2.Preface[size:])
		c.WriteSettings()
		frame, err := c.ReadFrame()
		verify.Require(t, err == nil && frame.Header().Type == xhttp2.FrameSettings, "size %d: got %v, %v", size, frame, err)
		conn.Close()
	}
	got := p.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n" + http2.Preface + string(http2.AppendSettings(nil)))
	verify.Contains(t, got, "HTTP/1.1 405 ", "got")
}

// A client whose frames always arrive in parts, but arrive, is not a slow one.
func TestHTTP2FramesInParts(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{Timeouts: Timeouts{Head: time.Minute, Idle: time.Hour}}, answersOK(t))
	c := p.dialFrames()
	ping := http2.AppendPing(nil, 0, []byte("12345678"))
	c.conn.Write(ping[:5])
	for range 5 {
		p.skip(40 * time.Second)
		c.conn.Write(append(ping[5:len(ping):len(ping)], ping[:5]...))
		_, ok := c.read().(*xhttp2.PingFrame)
		verify.Require(t, ok, "the connection has ended")
	}
}

// What a connection has cost is forgotten with time: one that lasts for weeks may send a
// PING, or give up a request, now and then.
func TestHTTP2CostsAreForgotten(t *testing.T) {
	t.Parallel()
	const (
		long  = 24 * time.Hour
		frame = 16 << 10
	)
	for _, test := range []struct {
		name   string
		period time.Duration // after which the costs are forgotten
		cost   func(c *frameClient, id uint32) (next uint32)
	}{
		{"overhead", http2.OverheadBytes * http2.OverheadTime, func(c *frameClient, id uint32) uint32 {
			for range http2.OverheadBytes / (frame + http2.FrameHeaderBytes) {
				c.WriteRawFrame(0xee, 0, 0, make([]byte, frame))
			}
			return id
		}},
		{"resets", http2Resets * http2ResetTime, func(c *frameClient, id uint32) uint32 {
			for range http2Resets {
				c.request(id, http2GetOf("/hang"), true)
				c.WriteRSTStream(id, xhttp2.ErrCodeCancel)
				id += 2
			}
			return id
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startProxy(t, Options{Timeouts: Timeouts{Head: long, Body: long, Write: long, Idle: long}}, startLongOrigin(t, 10).address())
			c := p.dialFrames()
			id := uint32(1)
			for range 3 {
				id = test.cost(c, id)
				c.expectAnswered(func(xhttp2.Frame) {})
				eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
				p.sweeper.Advance(test.period)
				r := c.ask(id, http2GetOf("/none"))
				verify.Require(t, r.status == "204", "got %+v", r)
				id += 2
			}
		})
	}
}

// With requests that go on without their client, a client that cancels some and opens others has as
// many served as any client. The others wait, and nothing else on the connection does: its frames
// are read, those that were canceled before they were served are forgotten, and the rest is served.
func TestHTTP2WaitingStreamsDoNotStopTheReader(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		if r.URL.Path == "/hang" {
			<-proceed
		}
		return c.write(okResponse)
	}))
	p := startProxy(t, Options{Switches: Switches{KeepForGoneClients: true}}, origin.address())
	c := p.dialFrames()
	id := uint32(1)
	open := func(path string) uint32 {
		id += 2
		verify.Succeeds(t, c.request(id, http2GetOf(path), true))
		return id
	}
	hanging := make([]uint32, http2Streams)
	for i := range hanging {
		hanging[i] = open("/hang")
	}
	eventually(t, "all are served", func() bool { return p.inflight() == http2Streams })
	ignore := func(xhttp2.Frame) {}
	for _, old := range hanging[:20] {
		verify.Succeeds(t, c.WriteRSTStream(old, xhttp2.ErrCodeCancel))
		for range 4 { // canceled before they are served
			verify.Succeeds(t, c.WriteRSTStream(open("/canceled"), xhttp2.ErrCodeCancel))
		}
		open("/waits")
		c.expectAnswered(ignore)
	}
	verify.Equal(t, p.inflight(), http2Streams, "requests that are served")
	p.eachConn(func(cc *clientConn) {
		h := cc.http2
		h.protocol.Mu.Lock()
		defer h.protocol.Mu.Unlock()
		verify.That(t, len(h.protocol.Streams) == http2Streams+20 && len(h.pending) == 20, "%d streams are kept, of which %d wait", len(h.protocol.Streams), len(h.pending))
	})
	close(proceed)
	answered := make(map[uint32]bool)
	for len(answered) < http2Streams { // 80 that were open, and 20 that waited
		if d, ok := c.next().(*xhttp2.DataFrame); ok && d.StreamEnded() {
			answered[d.StreamID] = true
		}
	}
	c.expectAlive(id + 2)
}
