package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// greeter listens as a server that says its name first, and then sends back what it
// gets.
func greeter(t *testing.T, name string) (address string) {
	t.Helper()
	return listen(t, verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t), func(conn net.Conn) {
		fmt.Fprintln(conn, name)
		io.Copy(conn, conn)
	})
}

// A tcpClient is a connection to a listener for TCP.
type tcpClient struct {
	net.Conn
	lines *bufio.Scanner
}

func (r *running) connect(listener string) *tcpClient {
	r.t.Helper()
	conn := verify.Result(net.Dial("tcp", r.Address(listener).String())).Must(r.t)
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &tcpClient{conn, bufio.NewScanner(conn)}
}

// line returns the next line; "": there is none.
func (c *tcpClient) line() string {
	c.SetDeadline(time.Now().Add(patience))
	c.lines.Scan()
	return c.lines.Text()
}

// Listeners for TCP come, change and go; their connections stay.
func TestTCPListenersChange(t *testing.T) {
	t.Parallel()
	text := func(listeners string, services ...string) string {
		return "listeners: [" + listeners + "]\nshutdown: { idle: 100ms, grace: 1h }\nservices: { " + strings.Join(services, ", ") + " }\n"
	}
	service := func(name string) string {
		return fmt.Sprintf("%s: { peers: [%q], drain: { timeout: 1h } }", name, greeter(t, name))
	}
	a, b := service("a"), service("b")
	address := fmt.Sprintf("127.0.0.1:%d", consultest.ReservePort(t))
	db := fmt.Sprintf("name: db, address: %q", address)
	r := start(t, text("{ "+db+", protocol: tcp, service: a }", a))
	first := r.connect("db")
	verify.Equal(t, first.line(), "a", "at first")
	// The service of an unchanged listener changes.
	other := service("a")
	r.replace(text("{ "+db+", protocol: tcp, service: a }", other, b))
	verify.Equal(t, r.connect("db").line(), "a", "after a change of the service")
	// The listener gets another service.
	r.replace(text("{ "+db+", protocol: tcp, service: b }", other, b))
	verify.Equal(t, r.connect("db").line(), "b", "with another service")
	verify.Equal(t, r.Address("db").String(), address, "then")
	fmt.Fprintln(first, "still here")
	verify.Equal(t, first.line(), "still here", "the first connection")
	// It changes its protocol, and back.
	r.replace(text("{ "+db+" }", b) + "routes: [{ service: b }]\n")
	plain := r.connect("db")
	fmt.Fprint(plain, "GET / HTTP/1.0\r\n\r\n")
	verify.Contains(t, plain.line(), "HTTP/1.1 ", "with protocol http")
	r.replace(text("{ "+db+", protocol: tcp, service: b }", b))
	last := r.connect("db")
	verify.Equal(t, last.line(), "b", "with protocol tcp again")
	// It goes.
	removed := r.Address("db")
	r.replace(text("{ name: other, address: '127.0.0.2:0', protocol: tcp, service: b }", b))
	r.awaitRefused(removed)
	fmt.Fprintln(last, "still here")
	verify.Equal(t, last.line(), "still here", "a connection of a listener that was removed")
	verify.Equal(t, r.connect("other").line(), "b", "a new listener")
}

// listen accepts connections for serve until the test ends.
func listen(t *testing.T, l net.Listener, serve func(net.Conn)) (address string) {
	t.Helper()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}
