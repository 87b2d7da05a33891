package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/config/units"
	"sluice/route"
	"sluice/test/verify"
)

// slowSteps are so many pieces of 64 KiB, each taken after two thirds of the longest pause: the whole takes
// far longer than that.
const (
	slowSteps = 4
	slowPause = time.Minute
)

// A client that reads slowly, but steadily, gets all of a response: a pause is
// what counts, however large the pieces in which sluice writes.
func TestSlowReaderIsNotCut(t *testing.T) {
	t.Parallel()
	for _, framing := range []string{"/length", "/chunked", "/close"} {
		// The smaller the client's buffer is in comparison with sluice's, the longer
		// it takes until there is room in that again.
		for _, buffer := range []int{8 << 10, 1 << 20} {
			t.Run(fmt.Sprint(framing, ", buffer ", buffer), func(t *testing.T) {
				t.Parallel()
				p := startProxy(t, Options{Timeouts: Timeouts{Write: slowPause}}, startOrigin(t, sendLong).address())
				p.setService(route.Service{Timeouts: route.Timeouts{Idle: time.Hour}})
				d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
					return raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) })
				}}
				conn := verify.Result(d.Dial("tcp", p.address)).Must(t)
				conn.SetDeadline(time.Now().Add(patience))
				eventually(t, "the connection is served", func() bool { return p.Connections() == 1 })
				c := p.onlyClient()
				c.wire.Conn.(*net.TCPConn).SetWriteBuffer(buffer)
				fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", framing)
				for step := range slowSteps {
					_, err := io.CopyN(io.Discard, conn, 64<<10)
					verify.Require(t, err == nil, "cut after %d pieces: %v", step, err)
					eventually(t, "sluice waits for the client", func() bool { return c.client.Entry.WriteDeadline.Load() != 0 })
					p.skip(slowPause * 2 / 3)
				}
				verify.Equal(t, p.inflight(), 1, "responses that go on")
				conn.Close()
			})
		}
	}
}

// So it is with a peer that takes a request's body slowly.
func TestPeerThatReadsSlowlyIsNotCut(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]string{
		"length": fmt.Sprintf("Content-Length: %d\r\n\r\n", longBody), "chunked": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", longBody),
	}, func(t *testing.T, framing string) {
		steps, taken := make(chan struct{}), make(chan error)
		origin := startOrigin(t, func(c *originConn) bool {
			c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			return withHead(func(_ *originConn, r *http.Request) bool {
				for range steps {
					_, err := io.CopyN(io.Discard, r.Body, 64<<10)
					taken <- err
				}
				return false
			})(c)
		})
		p := startProxy(t, Options{Timeouts: Timeouts{Body: time.Hour}}, origin.address())
		p.setService(route.Service{Timeouts: route.Timeouts{Idle: slowPause}, Retry: route.Retry{Attempts: 1}})
		conn := p.send("POST / HTTP/1.1\r\nHost: a\r\n" + framing)
		go io.WriteString(conn, longText())
		for step := range slowSteps {
			steps <- struct{}{}
			err := <-taken
			verify.That(t, err == nil, "cut after %d pieces: %v", step, err)
			p.skip(slowPause * 2 / 3)
		}
		close(steps)
	})
}

// Each piece of a body puts its deadline off, also where the body is short and
// waited for as a whole.
func TestSlowBodyPutsDeadlineOff(t *testing.T) {
	t.Parallel()
	type test struct {
		length int
		keep   units.Size
	}
	eachCase(t, map[string]test{
		"small": {10, 0}, "kept": {20000, 20000}, "streamed": {20000, 0},
	}, func(t *testing.T, test test) {
		p := startProxy(t, Options{}, answersOK(t))
		p.setService(route.Service{Retry: route.Retry{Attempts: 1, BodyBytes: test.keep}})
		conn := p.dial()
		body := strings.Repeat("x", test.length)
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", test.length, body[5:])
		eventually(t, "the connection is served", func() bool { return p.Connections() == 1 })
		c := p.onlyClient()
		last := int64(0)
		for range 5 {
			eventually(t, "the deadline is put off", func() bool {
				d := c.client.Entry.Deadline.Load()
				later := d > last && d > p.sweeper.Now()+int64(20*time.Second) && d <= p.sweeper.Now()+int64(30*time.Second)
				if later {
					last = d
				}
				return later
			})
			clock := p.sweeper.Now()
			eventually(t, "time passes", func() bool { return p.sweeper.Now() > clock })
			io.WriteString(conn, "x")
		}
		expectResponse(t, conn, 200)
	})
}

// A client that still sends when it is answered for the last time gets the
// whole answer and the end of the connection, not a reset, which would make
// many systems throw the answer away.
func TestAnswerReachesClientThatSendsOn(t *testing.T) {
	t.Parallel()
	const post = "POST / HTTP/1.1\r\nHost: a\r\n"
	block := strings.Repeat("x", 1000)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", len(block), block)
	type test struct {
		request string
		more    string // is sent again and again
		answer  string // of the peer, given at once; okResponse if empty
		status  int
	}
	eachCase(t, map[string]test{
		"malformed head":                     {"POST / HTTP/1.1\r\nHost a\r\n\r\n", block, "", 400},
		"head too long":                      {"GET / HTTP/1.1\r\nHost: a\r\n", "X-Long: " + block + "\r\n", "", 431},
		"target too long":                    {"GET /", block, "", 414},
		"body too long":                      {post + "Content-Length: 1000000\r\n\r\n", block, "", 413},
		"chunked body too long":              {post + "Transfer-Encoding: chunked\r\n\r\n", chunk, "", 413},
		"malformed chunk":                    {post + "Transfer-Encoding: chunked\r\n\r\n" + chunk + "x\r\n", chunk, "", 400},
		"no route":                           {"POST / HTTP/1.1\r\nHost: nowhere\r\nContent-Length: 80000\r\n\r\n", block, "", 404},
		"early answer":                       {post + "Content-Length: 80000\r\n\r\n", block, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403},
		"early answer of unknown length":     {post + "Content-Length: 80000\r\n\r\n", block, "HTTP/1.1 403 Forbidden\r\n\r\nno", 403},
		"more than was announced":            {post + "Connection: close\r\nContent-Length: 3\r\n\r\nabc\r\n", "x", "", 200},
		"more than was announced, in chunks": {post + "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\r\n", "x", "", 200},
	}, func(t *testing.T, test test) {
		origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
			if test.answer == "" {
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					return false
				}
				return c.write(okResponse)
			}
			io.WriteString(c.Conn, test.answer)
			c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			io.Copy(io.Discard, c.Conn)
			return false
		}))
		p := startProxy(t, Options{Limits: Limits{BodyBytes: 100000}}, origin.address())
		p.setRoutes(route.Route{Host: "a", Path: "/", Service: p.service})
		for {
			begin := time.Now()
			answer, err := p.sendOn(test.request, test.more)
			if err != nil && time.Since(begin) >= lingerTimeout {
				continue // the machine has stood still for longer than a client is waited for
			}
			verify.Succeeds(t, err)
			want := fmt.Sprintf("HTTP/1.1 %d ", test.status)
			// It is told that the rest is of no use (RFC 9110, section 10.1.1).
			verify.That(t, strings.HasPrefix(answer, want) && strings.Contains(answer, "\r\nConnection: close\r\n"), "got %q, want status %d", answer, test.status)
			return
		}
	})
}

// sendOn sends a request and then more again and again, also for a while after it
// has got the answer and the end of the connection.
func (p *testProxy) sendOn(request, more string) (answer string, err error) {
	conn := p.dial()
	defer conn.Close()
	io.WriteString(conn, request)
	answered, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for afterwards := 0; afterwards < 30; {
			if _, err := io.WriteString(conn, more); err != nil {
				stopped <- fmt.Errorf("sending on: %w", err)
				return
			}
			select {
			case <-answered:
				afterwards++
			default:
			}
			time.Sleep(time.Millisecond)
		}
		stopped <- nil
	}()
	data, err := io.ReadAll(conn)
	close(answered)
	return string(data), errors.Join(err, <-stopped)
}

// A client cannot keep a connection by sending on, nor by doing nothing, and
// many of them cannot keep many.
func TestLingeringIsBounded(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{})
	refused := func() net.Conn {
		conn := p.send("GET / HTTP/1.1\r\n\r\n")
		expectResponse(t, conn, 400)
		return conn
	}
	t.Run("time", func(t *testing.T) {
		conn := refused()
		eventually(t, "no connection", func() bool { return p.Connections() == 0 })
		conn.Close()
	})
	t.Run("bytes", func(t *testing.T) {
		conn := refused()
		block := make([]byte, 64<<10)
		sent := 0
		for {
			n, err := conn.Write(block)
			if sent += n; err != nil {
				break
			}
		}
		const buffers = 16 << 20 // of the sockets
		verify.That(t, sent <= lingerBytes+buffers, "%d bytes were taken", sent)
	})
	t.Run("connections", func(t *testing.T) {
		p.lingering.Add(lingerConnections)
		defer p.lingering.Add(-lingerConnections)
		// One that is kept is closed by the timeout. A machine that stands still may
		// make it look as if one was.
		for tries := 0; ; tries++ {
			conn := refused()
			begin := time.Now()
			eventually(t, "the connection is closed", func() bool {
				_, err := conn.Write([]byte("x"))
				return err != nil
			})
			if time.Since(begin) < lingerTimeout/2 {
				return
			}
			verify.Require(t, tries != 5, "one more connection was kept")
		}
	})
}
