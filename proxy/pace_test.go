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
