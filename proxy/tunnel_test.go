package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sluice/route"
)

const upgradeRequest = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: Echo\r\n\r\n"

// echoing agrees to the protocol echo and sends back what it gets.
func echoing(c *originConn) bool {
	r, ok := c.request()
	if !ok {
		return false
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "echo") || r.Header.Get("Connection") != "Upgrade" {
		io.WriteString(c.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad")
		return true
	}
	io.WriteString(c.Conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\nX: 1\r\n\r\nhello ")
	io.Copy(c.Conn, c.Reader)
	c.Conn.(interface{ CloseWrite() error }).CloseWrite()
	return false
}

func TestTunnel(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoing)
	p := startProxy(t, Options{}, origin.address())
	conn := p.dial()
	io.WriteString(conn, upgradeRequest+"early ") // before the 101
	reader := bufio.NewReader(conn)
	r, err := http.ReadResponse(reader, nil)
	if err != nil || r.StatusCode != 101 || r.Header.Get("Upgrade") != "echo" || r.Header.Get("Connection") != "Upgrade" || r.Header.Get("X") != "1" {
		t.Fatalf("got %+v, %v", r, err)
	}
	io.WriteString(conn, "late")
	if p.inflight() != 1 {
		t.Errorf("%d in flight, want 1", p.inflight())
	}
	closeWrite(t, conn) // the other direction goes on
	if got, err := io.ReadAll(reader); err != nil || string(got) != "hello early late" {
		t.Errorf("got %q, %v", got, err)
	}
	eventually(t, "no request in flight", func() bool { return p.inflight() == 0 })
	eventually(t, "connections closed", func() bool { return origin.open() == 0 && p.Connections() == 0 })
}

// An upgrade that the peer does not agree to is an ordinary request.
func TestRefusedUpgrade(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoing)
	p := startProxy(t, Options{}, origin.address())
	conn := p.dial()
	for range 2 {
		io.WriteString(conn, strings.Replace(upgradeRequest, "Echo", "other", 1))
		if status, body := readResponse(t, conn); status != 400 || body != "bad" {
			t.Errorf("got %d %q", status, body)
		}
	}
	if n := origin.connections(); n != 1 {
		t.Errorf("%d connections to the peer, want 1", n)
	}
}

func TestUpgradeToOtherThanAskedFor(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ asked, agreed string }{
		{"Echo", "evil"},
		{"Echo", "echo, evil"},
		{"Echo", "echo\r\nUpgrade: evil"},
		{"Echo", ","},
		{"Echo, h2c", "h2c"}, // it was not passed on
	} {
		origin := startOrigin(t, answering("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: "+test.agreed+"\r\n\r\n"))
		p := startProxy(t, Options{}, origin.address())
		conn := p.dial()
		io.WriteString(conn, strings.Replace(upgradeRequest, "Echo", test.asked, 1))
		if status, _ := readResponse(t, conn); status != 502 {
			t.Errorf("asked for %q, agreed %q: got %d, want 502", test.asked, test.agreed, status)
		}
	}
}

func TestTunnelIdleTimeout(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoing)
	p := startProxy(t, Options{}, origin.address())
	timeouts := defaultTimeouts()
	timeouts.Tunnel = 300 * time.Millisecond
	p.setService(route.Service{Timeouts: timeouts, Retry: route.Retry{Attempts: 1}})
	// use has a tunnel in use for longer than it may be idle. The longest time from one write to
	// the end of the next exchange says whether it may have been cut.
	use := func() (conn net.Conn, pause time.Duration, err error) {
		conn = p.dial()
		last := time.Now()
		io.WriteString(conn, upgradeRequest)
		b := make([]byte, 500)
		conn.Read(b)
		for range 10 { // each byte puts the end off
			time.Sleep(timeouts.Tunnel / 5)
			written := time.Now()
			io.WriteString(conn, "x")
			_, err := conn.Read(b)
			pause = max(pause, time.Since(last))
			if err != nil {
				return conn, pause, err
			}
			last = written
		}
		return conn, pause, nil
	}
	conn, pause, err := use()
	for err != nil && pause >= timeouts.Tunnel-sweepInterval { // the machine stood still
		conn, pause, err = use()
	}
	if err != nil {
		t.Fatalf("a tunnel was cut, though no pause was longer than %v: %v", pause, err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an idle tunnel was not cut: %v", err)
	}
	eventually(t, "connections closed", func() bool { return origin.open() == 0 && p.Connections() == 0 })
}

// A tunnel keeps neither a drained peer nor a stopping server for ever.
func TestTunnelEndsWithServer(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, echoing)
	p := newUnmanagedProxy(t, Options{}, origin.address())
	conn := p.dial()
	io.WriteString(conn, upgradeRequest)
	conn.Read(make([]byte, 500))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.Shutdown(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the tunnel is still open")
	}
	eventually(t, "the peer's connection closed", func() bool { return origin.open() == 0 })
}

// A client may name several protocols, in one line or in several; the peer
// chooses one, or one upon the other.
func TestUpgradeToOneOfSeveral(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ asked, agreed string }{
		{"other/2, Echo", "echo"},
		{"other\r\nUpgrade: Echo", "ECHO"},
		{"tls/1.3\r\nUpgrade: x, echo", "TLS/1.3\r\nUpgrade: echo"},
		{"tls/1.3, echo", "tls/1.3, echo"},
		{"h2c, echo", "echo"},
	} {
		t.Run(test.asked, func(t *testing.T) {
			origin := startOrigin(t, func(c *originConn) bool {
				if _, ok := c.request(); !ok {
					return false
				}
				io.WriteString(c.Conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: "+test.agreed+"\r\n\r\nhello")
				return false
			})
			p := startProxy(t, Options{}, origin.address())
			conn := p.dial()
			io.WriteString(conn, strings.Replace(upgradeRequest, "Echo", test.asked, 1))
			closeWrite(t, conn)
			if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 101 ") || !strings.HasSuffix(string(answer), "\r\n\r\nhello") {
				t.Errorf("got %q, %v", answer, err)
			}
		})
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, message); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	p := startProxy(t, Options{}, strings.TrimPrefix(server.URL, "http://"))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+p.address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	for _, size := range []int{1, 1000, 300_000} {
		message := strings.Repeat("x", size)
		if err := c.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != message {
			t.Fatalf("got %d bytes, %v, want %d", len(got), err, size)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Error(err)
	}
}
