package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/test/verify"
)

// So it does where the peer did not answer at all.
func TestConnectionGoesOnBehindLostUpload(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, func(c *originConn) bool {
		r, ok := c.request()
		if ok && r.Method == "GET" {
			io.WriteString(c.Conn, okResponse)
		}
		return false
	})
	p := startProxy(t, Options{}, origin.address())
	conn := p.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
	expectResponse(t, conn, 502)
	expectResponse(t, conn, 200, "ok")
}

// A client that leaves, or cancels its request, while the peer takes no more of the body ends it at
// the peer too, which it does not hold until timeouts.idle.
func TestClientLeavesPeerThatTakesNoBody(t *testing.T) {
	t.Parallel()
	const put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"
	for name, uploadAndLeave := range map[string]func(p *testProxy){
		"HTTP/1.1": func(p *testProxy) {
			client := p.send(put)
			for err, block := error(nil), make([]byte, 64<<10); err == nil; { // until nobody takes any more
				client.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
				_, err = client.Write(block)
			}
			socket.ResetOnClose(client.(socket.Conn))
			client.Close()
		},
		"HTTP/2": func(p *testProxy) {
			u := uploaderOn(p.dialFrames())
			u.open(1)
			eventually(p.t, "the peer has it", func() bool { return p.inflight() == 1 })
			u.fill(p, []uint32{1})
			verify.Succeeds(p.t, u.WriteRSTStream(1, http2.ErrCodeCancel))
		},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 to peers %v", name, http2), func(t *testing.T) {
				t.Parallel()
				end := make(chan struct{})
				p := startProxyTo(t, http2, Options{}, func(http.ResponseWriter, *http.Request) { <-end })
				t.Cleanup(func() { close(end) })
				p.setService(route.Service{Timeouts: route.Timeouts{Idle: time.Hour}, Retry: route.Retry{Attempts: 1}})
				uploadAndLeave(p)
				eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 && p.peersAreIdle() })
				p.expectNothingCounted()
			})
		}
	}
}

// A client that sends no body after a 100 is the one who does not go on, also if sluice has sent
// the 100 because the peer says nothing. A peer that is at work and sends none is not blamed: it
// may be one that knows no 100.
func TestNobodyContinues(t *testing.T) {
	t.Parallel()
	const continues = "HTTP/1.1 100 Continue\r\n\r\n"
	eachCase(t, map[string]struct {
		answer, first, status, reason string
	}{
		"without an answer": {"", continues, "408", refusal.BodyTimeout.Reason},
		"processing":        {"HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n", "504", refusal.Timeout.Reason},
		"with a 100":        {continues, continues, "408", refusal.BodyTimeout.Reason},
	}, func(t *testing.T, test struct{ answer, first, status, reason string }) {
		origin := startOrigin(t, withHead(func(c *originConn, _ *http.Request) bool {
			c.write(test.answer)
			io.Copy(io.Discard, c)
			return false
		}))
		// What the peer sends at once comes before the timeout, unless the machine stands
		// still: then again, with a longer one.
		for timeout := 200 * time.Millisecond; ; timeout *= 4 {
			p := startProxy(t, Options{Timeouts: Timeouts{Body: timeout}}, origin.address())
			conn := p.dial()
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
			all := string(verify.Result(io.ReadAll(conn)).Must(t))
			final, came := strings.CutPrefix(all, test.first)
			twice := strings.HasPrefix(final, continues) // what the peer sends came after a 100 of sluice's own
			if (!came || twice) && timeout < 10*time.Second {
				continue
			}
			verify.That(t, strings.HasPrefix(final, "HTTP/1.1 "+test.status+" ") && strings.Contains(final, test.reason), "got %q, want %s %s", all, test.status, test.reason)
			p.expectNothingCounted()
			return
		}
	})
}

// A peer that hangs is blamed also by a client that waits for its 100: the client gets one from
// sluice, sends the body, and the peer has the usual time for the answer then. One that knows no
// 100, and only waits for the body, answers.
func TestPeerDoesNotContinue(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]string{"hangs": "504", "knows no 100": "200"}, func(t *testing.T, want string) {
		p := startProxy(t, Options{Timeouts: Timeouts{Body: 8 * time.Second}}, startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
			_, err := io.ReadAll(r.Body)
			if want == "504" {
				io.Copy(io.Discard, c)
			}
			return err == nil && c.write(okResponse)
		})).address())
		timeouts := defaultTimeouts()
		if want == "504" {
			timeouts.ResponseHeader = 200 * time.Millisecond
		}
		p.setService(route.Service{Timeouts: timeouts, Retry: route.Retry{Attempts: 1}})
		conn, c := p.dial(), p.dialFrames()
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
		c.request(1, http2Post+"|expect=100-continue", false)
		expectNext(t, conn, "HTTP/1.1 100 Continue\r\n\r\n")
		io.WriteString(conn, "abc")
		f, ok := c.read().(*http2.MetaHeadersFrame)
		verify.Require(t, ok && f.PseudoValue("status") == "100", "got %v before the body", f)
		c.WriteData(1, true, []byte("abc"))
		status := make([]byte, len("HTTP/1.1 200"))
		io.ReadFull(conn, status)
		verify.Equal(t, string(status), "HTTP/1.1 "+want, "by HTTP/1.1")
		verify.Equal(t, c.response(1).status, want, "by HTTP/2")
		if want == "504" {
			eventually(t, "both are counted", func() bool { return p.pool.Snapshot().All[0].Failures() == 2 })
		} else {
			p.expectNothingCounted()
		}
	})
}

// A request that may be sent twice goes to another peer when its peer breaks the connection before
// anything of its body has arrived: its client waits for a 100.
func TestExpectantRequestIsSentAgain(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"PUT", "POST"} {
		var breaks atomic.Bool
		serve := withHead(func(c *originConn, r *http.Request) bool {
			if breaks.CompareAndSwap(true, false) {
				c.Conn.(*net.TCPConn).SetLinger(0)
				return false
			}
			verify.Equal(t, strings.ToLower(r.Header.Get("Expect")), "100-continue", "Expect")
			c.write("HTTP/1.1 100 Continue\r\n\r\n")
			body, err := io.ReadAll(r.Body)
			return err == nil && c.answer(string(body))
		})
		p := startProxy(t, Options{}, startOrigin(t, serve).address(), startOrigin(t, serve).address())
		conn := p.dial()
		for range 3 {
			breaks.Store(true)
			io.WriteString(conn, method+" / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
			if method == "POST" { // a peer may have begun with it
				expectResponse(t, conn, 502)
				break
			}
			expectNext(t, conn, "HTTP/1.1 100 Continue\r\n\r\n")
			io.WriteString(conn, "abc")
			expectResponse(t, conn, 200, "abc")
		}
		eventually(t, "nothing in flight", func() bool { return p.inflight() == 0 })
	}
}

// With a connection that was used before, it is sent again to the same peer, on a new one.
func TestExpectantRequestOnAReusedConnectionIsSentAgain(t *testing.T) {
	t.Parallel()
	serve := withHead(func(c *originConn, r *http.Request) bool {
		switch {
		case r.Method == "GET":
			return c.write(okResponse)
		case c.served > 0:
			c.Conn.(*net.TCPConn).SetLinger(0)
			return false
		}
		c.write("HTTP/1.1 100 Continue\r\n\r\n")
		_, err := io.ReadAll(r.Body)
		return err == nil && c.write(okResponse)
	})
	p := startProxy(t, Options{}, startOrigin(t, serve).address())
	for {
		conn := p.dial()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		expectResponse(t, conn, 200)
		start := time.Now()
		io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if time.Since(start) < staleWithin { // else the machine stood still
			verify.That(t, err == nil && answer == "HTTP/1.1 100 Continue\r\n", "got %q, %v", answer, err)
			return
		}
	}
}
