package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cespare/xxhash/v2"
	xhttp2 "golang.org/x/net/http2"

	"sluice/config/units"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/test/verify"
)

const upgradeRequest = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: Echo\r\n\r\n"

// echoing agrees to the protocol echo and sends back what it gets.
var echoing = withRequest(func(c *originConn, r *http.Request) bool {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "echo") || r.Header.Get("Connection") != "Upgrade" {
		return c.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad")
	}
	io.WriteString(c.Conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\nX: 1\r\n\r\nhello ")
	io.Copy(c.Conn, c.Reader)
	c.Conn.(interface{ CloseWrite() error }).CloseWrite()
	return false
})

// awaitHello reads all that echoing sends first: it may come in several pieces.
func awaitHello(conn net.Conn) error {
	var got []byte
	for b := make([]byte, 500); !bytes.HasSuffix(got, []byte("\r\n\r\nhello ")); {
		n, err := conn.Read(b)
		if err != nil {
			return fmt.Errorf("after %q: %w", got, err)
		}
		got = append(got, b[:n]...)
	}
	return nil
}

func TestTunnel(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoing)
	p := startProxy(t, Options{}, origin.address())
	edits := headerEdits(t, map[string]string{"X": "1"}, nil, "X-Gone")
	for _, actions := range []*route.Actions{nil, {RequestHeaders: edits, ResponseHeaders: edits, HostOfPeer: true}} {
		p.setActions(actions)
		conn := p.dial()
		io.WriteString(conn, upgradeRequest+"early ") // before the 101
		reader := bufio.NewReader(conn)
		r, err := http.ReadResponse(reader, nil)
		verify.Require(t, err == nil && r.StatusCode == 101 && r.Header.Get("Upgrade") == "echo" && r.Header.Get("Connection") == "Upgrade" && r.Header.Get("X") == "1", "got %+v, %v", r, err)
		io.WriteString(conn, "late")
		verify.Equal(t, p.inflight(), 1, "in flight")
		closeWrite(t, conn) // the other direction goes on
		expectRest(t, reader, "hello early late")
		p.expectNothingOpen()
	}
	eventually(t, "connections closed", func() bool { return origin.open() == 0 })
}

// A request for an upgrade may have a body, as docker exec sends it. The peer gets all of it, and
// then the bytes of the tunnel, whether it agrees before it has read the body or after.
func TestUpgradeWithBody(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcdef", 20<<10) // neither memory for retries nor the sockets' buffers have all of it
	chunked := func(body string) string {
		return fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	}
	withLength := func(body string) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body) }
	for _, test := range []struct {
		name, body string
		kept       units.Size // most bytes of a body that are kept for a retry
		framed     func(string) string
	}{
		{"in the buffer of the request", "{}", 0, withLength},
		{"kept", strings.Repeat("x", 40<<10), 64 << 10, withLength},
		{"long and kept", long, 1 << 20, withLength},
		{"streamed", long, 0, withLength},
		{"chunked", "{}", 0, chunked},
		{"long and chunked", long, 0, chunked},
	} {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, agrees early: %v", test.name, early), func(t *testing.T) {
				t.Parallel()
				origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
					if r.Header.Get("Upgrade") != "tcp" || r.Header.Get("Connection") != "Upgrade" {
						return c.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
					}
					var body []byte
					if !early {
						body, _ = io.ReadAll(r.Body)
					}
					c.write("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello ")
					if early {
						body, _ = io.ReadAll(r.Body)
					}
					io.WriteString(c.Conn, fmt.Sprint(len(body), xxhash.Sum64(body))+" ")
					io.Copy(c.Conn, c.Reader)
					c.Conn.(interface{ CloseWrite() error }).CloseWrite()
					return false
				}))
				p := startProxy(t, Options{}, origin.address())
				p.setService(route.Service{Retry: route.Retry{Attempts: 3, BodyBytes: test.kept}})
				conn := p.dial()
				go io.WriteString(conn, "POST /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"+test.framed(test.body)+"first ")
				reader := bufio.NewReader(conn)
				r, err := http.ReadResponse(reader, nil)
				verify.Require(t, err == nil && r.StatusCode == 101 && r.Header.Get("Upgrade") == "tcp", "got %+v, %v", r, err)
				io.WriteString(conn, "last")
				closeWrite(t, conn)
				expectRest(t, reader, "hello "+fmt.Sprint(len(test.body), xxhash.Sum64String(test.body))+" first last")
				p.expectNothingOpen()
			})
		}
	}
}

func TestTunnelIdleTimeout(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoing)
	p := startProxy(t, Options{}, origin.address())
	timeout := defaultTimeouts().Tunnel
	conn := p.send(upgradeRequest)
	verify.NoError(t, awaitHello(conn))
	for range 5 { // each byte puts the end off
		p.skip(timeout * 6 / 10)
		io.WriteString(conn, "x")
		expectNext(t, conn, "x")
	}
	eventually(t, "an idle tunnel is cut", func() bool {
		p.skip(timeout)
		return origin.open() == 0 && p.Connections() == 0
	})
	expectCut(t, conn, "the client's end")
}

// A client may name several protocols, in one line or in several; the peer
// chooses one, or one upon the other, and nothing else.
func TestUpgradeToOneOfSeveral(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		asked, agreed string
		refused       bool
	}{
		{"other/2, Echo", "echo", false},
		{"other\r\nUpgrade: Echo", "ECHO", false},
		{"tls/1.3\r\nUpgrade: x, echo", "TLS/1.3\r\nUpgrade: echo", false},
		{"tls/1.3, echo", "tls/1.3, echo", false},
		{"h2c, echo", "echo", false},
		{"Echo", "evil", true},
		{"Echo", "echo, evil", true},
		{"Echo", "echo\r\nUpgrade: evil", true},
		{"Echo", ",", true},
		{"Echo, h2c", "h2c", true}, // it was not passed on
	} {
		t.Run(test.asked+" to "+test.agreed, func(t *testing.T) {
			origin := startOrigin(t, afterRequest(func(c *originConn) bool {
				c.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: " + test.agreed + "\r\n\r\nhello ")
				return false
			}))
			p := startProxy(t, Options{}, origin.address())
			conn := p.send(strings.Replace(upgradeRequest, "Echo", test.asked, 1))
			if test.refused {
				expectResponse(t, conn, 502)
				return
			}
			expectNext(t, conn, "HTTP/1.1 101 ")
			verify.NoError(t, awaitHello(conn))
			closeWrite(t, conn) // before the answer, the client would count as gone
			expectRest(t, conn, "")
		})
	}
}

// A tunnel that was cut on one side is reset on the other: its end must not look like the
// end of the bytes. It is nobody's failure.
func TestCutTunnelIsCut(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]bool{"by the client": false, "by the peer": true}, func(t *testing.T, byPeer bool) {
		ended := make(chan error, 1)
		origin := startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
			io.WriteString(c.Conn, switching(r.Header.Get("Sec-WebSocket-Key"))+"hello ")
			if byPeer {
				c.ReadByte()
				socket.ResetOnClose(c.Conn.(socket.Conn))
				return false
			}
			_, err := io.Copy(io.Discard, c)
			ended <- err
			return false
		}))
		p := startProxy(t, Options{}, origin.address())
		c := p.dialFrames()
		for _, address := range []string{p.address, p.serveWith(ListenerOptions{Name: "db", Streams: p.target})} {
			p.address = address // for HTTP/1.1, and for TCP
			conn := p.stream()
			io.WriteString(conn, strings.Replace(upgradeRequest, "Echo", "websocket", 1))
			verify.NoError(t, awaitHello(conn))
			if byPeer {
				io.WriteString(conn, "x")
				expectReset(t, conn)
				continue
			}
			socket.ResetOnClose(conn)
			conn.Close()
			err := <-ended
			verify.That(t, errors.Is(err, syscall.ECONNRESET), "the peer got %v", err)
		}
		c.openTunnel(1)
		if byPeer {
			c.WriteData(1, false, []byte("x"))
			r := c.response(1)
			verify.That(t, !r.ended && r.reset == xhttp2.ErrCodeCancel, "HTTP/2: got %+v", r)
		} else {
			c.WriteRSTStream(1, xhttp2.ErrCodeCancel)
			err := <-ended
			verify.That(t, errors.Is(err, syscall.ECONNRESET), "HTTP/2: the peer got %v", err)
		}
		eventually(t, "nothing in flight", func() bool { return p.inflight() == 0 })
		p.expectNothingCounted()
	})
}

// With TLS, the end of the bytes is a close_notify; a connection that ends without it was cut,
// also if its last bytes and its end come at once.
func TestOverTLSTunnelEndsWithCloseNotify(t *testing.T) {
	t.Parallel()
	for _, notified := range []bool{true, false} {
		ended := make(chan error, 1)
		p := startProxy(t, Options{}, startOrigin(t, afterRequest(func(c *originConn) bool {
			c.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
			_, err := io.Copy(io.Discard, c)
			ended <- err
			return false
		})).address())
		conn := p.send(upgradeRequest)
		expectNext(t, conn, "HTTP/1.1 101 ")
		io.WriteString(conn, "the last bytes")
		if secured := conn.(*tls.Conn); notified {
			secured.CloseWrite()
		} else {
			secured.NetConn().(*net.TCPConn).CloseWrite()
		}
		err := <-ended
		verify.That(t, (err == nil) == notified && (err == nil || errors.Is(err, syscall.ECONNRESET)), "close_notify: %v, the peer got %v", notified, err)
	}
}

// A tunnel whose one side takes nothing any more is idle, however much the other one sends.
func TestTunnelOfStalledReader(t *testing.T) {
	t.Parallel()
	for _, stream := range []bool{false, true} {
		if stream && (overTLS(t) || peersOverTLS(t)) {
			continue // it has no TLS of its own
		}
		for _, halfClosed := range []bool{false, true} {
			t.Run(fmt.Sprintf("stream %v, half-closed %v", stream, halfClosed), func(t *testing.T) {
				t.Parallel()
				var sent atomic.Int64
				origin := startOrigin(t, afterRequest(func(c *originConn) bool {
					c.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
					for {
						n, err := c.Conn.Write(make([]byte, 64<<10))
						if sent.Add(int64(n)); err != nil {
							return false
						}
					}
				}))
				p := startProxy(t, Options{}, origin.address())
				if stream {
					p.address = p.serveWith(ListenerOptions{Name: "db", Streams: p.target})
				}
				conn := p.send(upgradeRequest)
				expectNext(t, conn, "HTTP/1.1 101")
				if halfClosed {
					closeWrite(t, conn)
				}
				// Both sockets fill, and then no byte moves.
				eventually(t, "the tunnel ends", func() bool {
					before := sent.Load()
					p.skip(defaultTimeouts().Tunnel / 2)
					return sent.Load() == before && p.inflight() == 0 && origin.open() == 0
				})
				expectReset(t, conn)
			})
		}
	}
}

// A tunnel whose client has left before the 101 is logged with the reason.
func TestTunnelOfAGoneClient(t *testing.T) {
	t.Parallel()
	arrived, left := make(chan struct{}), make(chan struct{})
	leave := sync.OnceFunc(func() { close(left) })
	origin := startOrigin(t, afterRequest(func(c *originConn) bool {
		close(arrived)
		<-left
		io.WriteString(c.Conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n")
		io.ReadAll(c.Conn)
		return false
	}))
	t.Cleanup(leave) // the peer ends whatever happens
	p := startLogged(t, Options{Switches: Switches{KeepForGoneClients: true}}, origin.address())
	conn := p.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n")
	<-arrived
	socket.ResetOnClose(conn.(socket.Conn))
	conn.Close()
	leave()
	lines := p.lines()
	verify.That(t, len(lines) == 1 && lines[0].Status == 101 && lines[0].Reason == "client_gone", "lines %+v", lines)
}
