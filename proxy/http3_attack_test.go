package proxy

import (
	"io"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sluice/observe/panics"
	own "sluice/proxy/http3"
	"sluice/proxy/socket"
	"sluice/route/places"
	"sluice/test/verify"
)

// cancel resets both directions of a request.
func (r *http3Request) cancel() {
	r.Reset(uint64(own.RequestCancelled))
	r.StopSending(uint64(own.RequestCancelled))
}

// Requests that end early by the client's act or fault end the connection when there are far more
// of them than of others, whatever ends them.
func TestHTTP3RapidReset(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]func(r *http3Request){
		"canceled":                 func(r *http3Request) { r.send(h3Head(http3GetOf("/hang"))); r.CloseWrite(); r.StopSending(1) },
		"reset in both directions": func(r *http3Request) { r.send(h3Head(http3GetOf("/hang"))); r.cancel() },
		"reset":                    func(r *http3Request) { r.send(h3Head(http3GetOf("/hang"))); r.Reset(1) },
		"reset within a body":      func(r *http3Request) { r.send(h3Head(http3Post), h3Data("x")); r.Reset(1) },
		"reset within a head":      func(r *http3Request) { r.send(h3Head(http3Get)[:4]); r.Reset(1) },
		"malformed":                func(r *http3Request) { r.send(h3Head("x=1")) },
		"incomplete":               func(r *http3Request) { r.CloseWrite() },
		"of another length":        func(r *http3Request) { r.send(h3Head(http3Post+"|content-length=1"), h3Data("xx")) },
	}, func(t *testing.T, end func(r *http3Request)) {
		long := time.Hour
		p, address := startHTTP3Proxy(t, Options{Timeouts: Timeouts{Head: long, Body: long, Write: long, Idle: long}}, startLongOrigin(t, 10).address())
		c := dialHTTP3(t, address)
		n := 0
		for ; n < 50*http2Resets; n++ {
			r, err := c.tryOpen()
			if err != nil {
				break
			}
			end(r)
		}
		verify.Require(t, n < 50*http2Resets, "%d requests have ended early", n)
		c.expectEnd(own.ExcessiveLoad)
		p.expectNothingLeft(t, 0)
		p.expectNothingCounted()
		verify.Equal(t, p.http3.errors.Load(), uint64(1), "faults")
	})
}

// A client that cancels now and then, among others or late, keeps its connection.
func TestHTTP3SomeResetsAreAllowed(t *testing.T) {
	t.Parallel()
	long := time.Hour
	p, address := startHTTP3Proxy(t, Options{Timeouts: Timeouts{Head: long, Body: long, Write: long, Idle: long}}, startLongOrigin(t, 10).address())
	c := dialHTTP3(t, address)
	for range http2Resets + 20 {
		c.request(http3GetOf("/hang"), true).cancel()
		a := c.ask(http3GetOf("/none"))
		verify.Require(t, a.status == "204", "got %+v", a)
	}
	for range 3 { // what is old counts no more
		var all []*http3Request
		for range http2Streams - 1 {
			all = append(all, c.request(http3GetOf("/hang"), true))
		}
		eventually(t, "all are served", func() bool { return p.openHTTP3Streams() >= http2Streams-1 })
		p.skip(2 * http2EarlyReset)
		for _, r := range all {
			r.cancel()
		}
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
		a := c.ask(http3GetOf("/none"))
		verify.Require(t, a.status == "204", "got %+v", a)
	}
}

// Streams of unknown types are few. Others could make work without end.
func TestHTTP3UnknownStreamsAreFew(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string][]byte{"unknown type": {0x21}, "no type": nil, "half a type": {0x80, 1}}, func(t *testing.T, first []byte) {
		p, address := startHTTP3Proxy(t, Options{}, answersOK(t))
		c := dialHTTP3(t, address)
		n := 0
		for ; n < 1000; n++ {
			s, err := c.conn.NewSendOnlyStream(c.wait())
			if err != nil {
				break
			}
			s.Write(first)
			s.CloseWrite()
		}
		verify.Require(t, n < 1000, "%d streams were opened", n)
		c.expectEnd(own.ExcessiveLoad)
		p.expectNothingLeft(t, 0)
	})
}

// A hundred requests at a time are served. Another one may come when the work for one has ended,
// not when the client has given it up.
func TestHTTP3StreamsAtOnce(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	var served atomic.Int64
	origin := startOrigin(t, withRequest(func(c *originConn, _ *http.Request) bool {
		served.Add(1)
		<-proceed
		return c.write(okResponse)
	}))
	p, address := startHTTP3Proxy(t, Options{Switches: Switches{KeepForGoneClients: true}}, origin.address())
	c := dialHTTP3(t, address)
	var all []*http3Request
	for range http2Streams {
		all = append(all, c.request(http3Get, true))
	}
	eventually(t, "all are served", func() bool { return served.Load() == http2Streams })
	more := make(chan *http3Request, 1)
	go func() {
		r, _ := c.tryOpen(h3Head(http3Get))
		r.CloseWrite()
		more <- r
	}()
	for _, r := range all[:10] {
		r.cancel()
	}
	eventually(t, "the cancels have arrived", func() bool {
		gone := 0
		p.hasHTTP3Stream(func(s *http3Stream) bool {
			if s.stream.IsGone() {
				gone++
			}
			return false
		})
		return gone == 10
	})
	p.sweptFor(4 * socket.SweepInterval)
	verify.That(t, len(more) == 0 && served.Load() == http2Streams, "a request was accepted in place of one that was canceled: %d are served", served.Load())
	close(proceed)
	all = append(all[10:], <-more)
	for _, r := range all {
		a := r.response()
		verify.That(t, a.status == "200", "got %+v", a)
	}
	verify.Equal(t, served.Load(), http2Streams+1, "requests that were served")
	eventually(t, "nothing is open", func() bool { return p.inflight() == 0 && p.openHTTP3Streams() == 0 })
	p.expectNothingCounted()
}

// Streams count as connections for the limit of an address, while they are used. More of them are
// rejected, so that the client sends them again elsewhere, and that is no fault of the client.
func TestHTTP3StreamsCountAsConnections(t *testing.T) {
	t.Parallel()
	const limit = 10
	origin, proceed := startGatedOrigin(t)
	defer proceed()
	p, address := startHTTP3Proxy(t, Options{Limits: Limits{ConnectionsPerAddress: limit}}, origin.address())
	c := dialHTTP3(t, address)
	var all []*http3Request
	for range limit {
		all = append(all, c.request(http3Get, true))
	}
	eventually(t, "as many as allowed are in flight", func() bool { return p.inflight() == limit })
	for n := range uint64(http2Resets + 10) {
		a := c.ask(http3Get)
		verify.Require(t, a.reset == own.RequestRejected, "request %d: got %+v", n, a)
		verify.Equal(t, p.http3.refusedConnections.Load(), n+1, "rejected")
	}
	verify.Equal(t, p.admission.total(), limit, "admitted")
	_, err := dialQUIC(t, "127.0.0.1", address, quicClient())
	if err == nil {
		eventually(t, "another connection is refused", func() bool { return p.Connections() == 1 })
	}
	proceed()
	for _, r := range all {
		a := r.response()
		verify.Equal(t, a.status, "200", "status")
	}
	eventually(t, "only the connection counts", func() bool { return p.admission.total() == 1 && p.streamMemory.Taken() == 0 })
	c.expectAlive()
}

// A client gets the credit of a request that has ended before it has none left, also if most of its
// requests last.
func TestHTTP3CreditComesInTime(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		if r.URL.Path == "/hang" {
			io.Copy(io.Discard, c.Reader)
			return false
		}
		return c.write(okResponse)
	}))
	p, address := startHTTP3Proxy(t, Options{}, origin.address())
	c := dialHTTP3(t, address)
	for range 3 * http2Streams {
		verify.Equal(t, c.ask(http3Get).status, "200", "status")
	}
	for range http2Streams - 10 {
		c.request(http3GetOf("/hang"), true)
	}
	eventually(t, "most requests last", func() bool { return p.inflight() == http2Streams-10 })
	for range 3 * http2Streams {
		verify.Equal(t, c.ask(http3Get).status, "200", "status beside requests that last")
	}
}

// Bodies that wait to be forwarded are bounded for an address: above that, requests are refused.
func TestHTTP3BodiesAreBoundedInMemory(t *testing.T) {
	t.Parallel()
	const share = 8 * http3RequestBytes
	origin, proceed := startGatedOrigin(t)
	defer proceed()
	p, address := startHTTP3Proxy(t, Options{Limits: Limits{StreamBytes: 8 * share}}, origin.address())
	c := dialHTTP3(t, address)
	var waiting, refused []*http3Request
	for range 20 {
		r := c.request(http3Post, false)
		r.send(h3Data("a part"))
		eventually(t, "it waits, or is refused", func() bool {
			return p.inflight() == len(waiting)+1 || p.http3.refusedConnections.Load() == uint64(len(refused)+1)
		})
		if p.inflight() == len(waiting)+1 {
			waiting = append(waiting, r)
		} else {
			refused = append(refused, r)
		}
	}
	verify.That(t, len(waiting) >= 4 && len(waiting) <= 9, "%d requests wait", len(waiting))
	for _, r := range refused {
		a := r.response()
		verify.That(t, a.status == "503" && a.header["x-sluice-reason"] == "too_many_connections" || a.reset == own.RequestRejected, "got %+v", a)
	}
	proceed()
	for _, r := range waiting {
		r.CloseWrite()
		a := r.response()
		verify.Equal(t, a.status, "200", "status")
	}
	eventually(t, "the memory is back", func() bool { return p.streamMemory.Taken() == 0 })
}

// The parts of heads are bounded like bodies. A request that has arrived whole is served all the
// same, also one of the same address.
func TestHTTP3HeadsAreBoundedInMemory(t *testing.T) {
	t.Parallel()
	const share = 8*http3RequestBytes + 2*http2StreamBytes
	p, address := startHTTP3Proxy(t, Options{Timeouts: Timeouts{Head: time.Hour}, Limits: Limits{StreamBytes: 8 * share}}, answersOK(t))
	c := dialHTTP3(t, address)
	head := h3Head(http3Get)
	var halves []*http3Request
	for n := range 20 {
		halves = append(halves, c.open(head[:len(head)/2]))
		eventually(t, "it waits, or is refused", func() bool {
			return p.openHTTP3Streams()+int(p.http3.refusedConnections.Load()) == n+1
		})
	}
	refused := p.http3.refusedConnections.Load()
	verify.That(t, refused >= 10 && refused <= 13, "%d of 20 half heads are refused", refused)
	attacker := places.BlockOf(netip.MustParseAddr("127.0.0.1"))
	verify.That(t, p.streamMemory.TakenBy(attacker) <= share, "they have %d bytes", p.streamMemory.TakenBy(attacker))
	eventually(t, "a whole request is served beside them", func() bool { return c.ask(http3Get).status == "200" })
	for _, r := range halves {
		r.cancel()
	}
	eventually(t, "the memory is back", func() bool { return p.openHTTP3Streams() == 0 && p.streamMemory.Taken() == 0 })
}

// A panic in the goroutine of a connection ends the connection, and nothing stays taken.
func TestHTTP3PanicEndsConnection(t *testing.T) {
	if !alone(t) {
		return
	}
	panicked := survivePanics(t)
	origin, proceed := startGatedOrigin(t)
	defer proceed()
	p, address := startHTTP3Proxy(t, Options{}, origin.address())
	other := dialHTTP3(t, address)
	c := dialHTTP3(t, address)
	for range 3 {
		c.request(http3Get, true)
	}
	eventually(t, "the requests are in flight", func() bool { return p.inflight() == 3 })
	all := connections[*http3ClientConn](p.Server)
	h := all[slices.IndexFunc(all, func(h *http3ClientConn) bool { h.mu.Lock(); defer h.mu.Unlock(); return len(h.open) == 3 })]
	h.mu.Lock()
	h.open = nil // the next stream cannot be added
	h.mu.Unlock()
	c.request(http3Get, true)
	c.expectEnd(own.InternalError)
	proceed()
	eventually(t, "the other connection is left", func() bool { return p.Connections() == 1 && p.admission.total() == 1 && p.inflight() == 0 })
	verify.That(t, panicked() >= 1 && panics.Total(panics.Connection) >= 1, "%d panics", panicked())
	other.expectAlive()
}
