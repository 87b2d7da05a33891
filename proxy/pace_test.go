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

const (
	pauseTimeout = 4 * time.Second       // the longest pause that is allowed
	slowness     = 2 * pauseTimeout      // for how long the slow sides take something
	pause        = 20 * time.Millisecond // after each piece
)

// someOf pieces fill the smaller buffers of both sides, so that the sender knows of room again.
const someOf = 32

// readSlowly takes a piece now and then. It returns the longest time that someOf pieces took.
func readSlowly(r io.Reader, piece int) (longest time.Duration, err error) {
	b := make([]byte, piece)
	start := time.Now()
	var taken [someOf]time.Time
	for n := range taken {
		taken[n] = start
	}
	for n := 0; time.Since(start) < slowness; n++ {
		_, err = io.ReadFull(r, b)
		longest = max(longest, time.Since(taken[n%someOf])) // also before an error, which it may have caused
		if err != nil {
			return longest, err
		}
		taken[n%someOf] = time.Now()
		time.Sleep(pause)
	}
	return longest, nil
}

// dialWithBuffer connects with a buffer of that size for what is to be read.
func dialWithBuffer(t *testing.T, address string, size int) net.Conn {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, size) })
	}}
	conn := verify.Result(d.Dial("tcp", address)).Must(t)
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// stoodStill reports whether the sender may have waited too long for room: on a machine that
// stands still, the test does what it must not do. The kernel may tell the sender of room only
// after twice as many pieces.
func stoodStill(longest time.Duration) bool { return longest >= pauseTimeout/2 }

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
				p := startProxy(t, Options{Timeouts: Timeouts{Write: pauseTimeout}}, startOrigin(t, sendLong).address())
				read := func() (time.Duration, error) {
					conn := dialWithBuffer(t, p.address, 4<<10)
					defer conn.Close()
					eventually(t, "the connection is served", func() bool { return p.Connections() == 1 })
					p.onlyClient().wire.Conn.(*net.TCPConn).SetWriteBuffer(buffer)
					fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", framing)
					longest, err := readSlowly(conn, 512)
					if err == nil && p.inflight() == 0 {
						err = errors.New("there will be no more than what is on its way")
					}
					return longest, err
				}
				longest, err := read()
				for stoodStill(longest) {
					eventually(t, "the connection is closed", func() bool { return p.Connections() == 0 })
					longest, err = read()
				}
				verify.That(t, err == nil, "cut, though it took no %d pieces longer than %v: %v", someOf, longest, err)
			})
		}
	}
}

// So it is with a peer that takes a request's body slowly.
func TestPeerThatReadsSlowlyIsNotCut(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]bool{"length": false, "chunked": true}, func(t *testing.T, chunked bool) {
		type result struct {
			longest time.Duration
			err     error
		}
		results := make(chan result, 1)
		origin := startOrigin(t, func(c *originConn) bool {
			c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			return withHead(func(_ *originConn, r *http.Request) bool {
				longest, err := readSlowly(r.Body, 1<<10)
				results <- result{longest, err}
				return false
			})(c)
		})
		p := startProxy(t, Options{}, origin.address())
		p.setService(route.Service{Timeouts: route.Timeouts{Idle: pauseTimeout}, Retry: route.Retry{Attempts: 1}})
		send := func() result {
			conn := p.dial()
			defer conn.Close()
			if !chunked {
				fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", longBody)
			} else {
				fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", longBody)
			}
			go io.WriteString(conn, longText())
			return <-results
		}
		got := send()
		for stoodStill(got.longest) {
			got = send()
		}
		verify.That(t, got.err == nil, "cut, though it took no %d pieces longer than %v: %v", someOf, got.longest, got.err)
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
