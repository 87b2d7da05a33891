package proxy

import (
	"io"
	"testing"
	"time"

	"sluice/proxy/socket"
	"sluice/test/verify"
)

// What ends the wait for a peer may come before the request is sent: then the
// wait does not begin.
func TestSendThatIsWokenBeforeItSends(t *testing.T) {
	t.Parallel()
	request := []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	for name, test := range map[string]struct {
		wake  func(*upstreamConn)
		until until
		want  error
	}{
		"by failing checks": {func(u *upstreamConn) { u.transport.Suspect() }, until{suspicion: true}, errSuspected},
		"by its patience":   {func(u *upstreamConn) {}, until{patience: time.Nanosecond, suspicion: true}, errPatience},
	} {
		t.Run(name, func(t *testing.T) {
			origin := startOrigin(t, hanging)
			p := startProxy(t, Options{}, origin.address())
			transport := p.pool.Snapshot().All[0].Transport.(*Transport)
			u, err := transport.dial(t.Context(), transport.acquire(time.Now()), time.Now(), patience, 0, nil)
			verify.NoError(t, err)
			defer transport.discard(u)
			u.Arm(transport.sweeper, time.Second)
			test.wake(u)
			if sent, err := u.send(&socket.Buffers{Out: request}, nil, nil, test.until); !sent || err != test.want {
				t.Errorf("got %v, %v, want %v", sent, err, test.want)
			}
			eventually(t, "the request has arrived", func() bool { return origin.got() == string(request) })
		})
	}
}

// A connection that is idle holds nothing of the exchange that it served.
func TestIdleConnectionPinsNothing(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	get(t, p, "GET")
	var idle []*upstreamConn
	eventually(t, "an idle connection", func() bool { idle = p.idleUpstream(); return len(idle) == 1 })
	if u := idle[0]; u.request != nil || u.body != nil || u.buffers != nil || u.client.Load() != nil {
		t.Errorf("it holds %d bytes of a request, %d of its body, buffers: %v, a client: %v", cap(u.request), cap(u.body), u.buffers != nil, u.client.Load() != nil)
	}
}

// A peer may answer before it is asked, as one at its limit does when it accepts
// a connection. Its answer is not waited for in vain where all of it has arrived
// before send begins, so that nothing is heard of it any more.
func TestAnswerAtAccept(t *testing.T) {
	t.Parallel()
	const busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	answered := make(chan struct{})
	origin := startOrigin(t, func(c *originConn) bool {
		io.WriteString(c.Conn, busy)
		c.Conn.(interface{ CloseWrite() error }).CloseWrite()
		close(answered)
		io.Copy(io.Discard, c.Conn)
		return false
	})
	p := startProxy(t, Options{}, origin.address())
	transport := p.pool.Snapshot().All[0].Transport.(*Transport)
	u, err := transport.dial(t.Context(), transport.acquire(time.Now()), time.Now(), patience, 0, nil)
	verify.NoError(t, err)
	defer transport.discard(u)
	<-answered
	eventually(t, "the answer has arrived", func() bool { return !u.quiet() })
	u.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	u.raw.Read(func(uintptr) bool { return false }) // hears of it, and leaves it
	u.conn.SetReadDeadline(time.Time{})
	u.Arm(transport.sweeper, time.Second)
	b := socket.Buffers{Out: []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")}
	if _, err := u.send(&b, nil, nil, until{}); err != nil || string(b.From[:u.end]) != busy {
		t.Errorf("got %q, %v", b.From[:u.end], err)
	}
}
