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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	verify.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprintln(conn, name)
				io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

// A tcpClient is a connection to a listener for TCP.
type tcpClient struct {
	net.Conn
	lines *bufio.Scanner
}

func (r *running) connect(listener string) *tcpClient {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.Address(listener).String())
	verify.NoError(r.t, err)
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
		return "listeners: [" + listeners + "]\nadmin: { address: '127.0.0.1:0' }\naccess_log: { path: 'off' }\nshutdown: { idle: 100ms }\nservices: { " + strings.Join(services, ", ") + " }\n"
	}
	service := func(name, more string) string {
		return fmt.Sprintf("%s: { peers: [%q]%s }", name, greeter(t, name), more)
	}
	a, b := service("a", ""), service("b", "")
	address := fmt.Sprintf("127.0.0.1:%d", consultest.ReservePort(t))
	db := fmt.Sprintf("name: db, address: %q", address)
	r := start(t, text("{ "+db+", protocol: tcp, service: a }", a))
	first := r.connect("db")
	if got := first.line(); got != "a" {
		t.Fatalf("got %q, want a", got)
	}

	change := func(text string) {
		t.Helper()
		before := r.history.Current().Number
		r.write(text)
		r.Reload()
		r.await("it is applied", func() bool { return r.history.Current().Number > before })
	}
	// The service of an unchanged listener changes.
	other := service("a", "")
	change(text("{ "+db+", protocol: tcp, service: a }", other, b))
	verify.Equal(t, r.connect("db").line(), "a", "after a change of the service")
	// The listener gets another service.
	change(text("{ "+db+", protocol: tcp, service: b }", other, b))
	if got := r.connect("db").line(); got != "b" || r.Address("db").String() != address {
		t.Errorf("with another service: got %q at %v, want b at %s", got, r.Address("db"), address)
	}
	fmt.Fprintln(first, "still here")
	verify.Equal(t, first.line(), "still here", "the first connection")
	// It changes its protocol, and back.
	change(text("{ "+db+" }", b) + "routes: [{ service: b }]\n")
	plain := r.connect("db")
	fmt.Fprint(plain, "GET / HTTP/1.0\r\n\r\n")
	if got := plain.line(); !strings.HasPrefix(got, "HTTP/1.1 ") {
		t.Errorf("with protocol http: got %q", got)
	}
	change(text("{ "+db+", protocol: tcp, service: b }", b))
	last := r.connect("db")
	verify.Equal(t, last.line(), "b", "with protocol tcp again")
	// It goes.
	change(text("{ name: other, address: '127.0.0.2:0', protocol: tcp, service: b }", b))
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("a listener that was removed accepts")
	}
	fmt.Fprintln(last, "still here")
	verify.Equal(t, last.line(), "still here", "a connection of a listener that was removed")
	verify.Equal(t, r.connect("other").line(), "b", "a new listener")
}
