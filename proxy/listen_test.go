package proxy

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"sluice/config/units"
	"sluice/proxy/socket"
	"sluice/test/verify"
)

// A client that connects and waits is let in like one that speaks at once.
func TestListen(t *testing.T) {
	t.Parallel()
	l := verify.Result(socket.Listen("tcp", "127.0.0.1:0")).Must(t)
	s := newTestServer(Options{})
	p := &testProxy{Server: s, t: t, address: l.Addr().String()}
	served := make(chan error)
	go func() { served <- s.Serve(context.Background(), l, ListenerOptions{Name: "test"}) }()
	for _, wait := range []time.Duration{0, 100 * time.Millisecond, 2500 * time.Millisecond} {
		conn := p.dial()
		time.Sleep(wait)
		io.WriteString(conn, closingRequest)
		answer, err := io.ReadAll(conn)
		verify.That(t, err == nil && strings.HasPrefix(string(answer), "HTTP/1.1 404 "), "after %v: got %.60q, %v", wait, answer, err)
	}
	verify.Succeeds(t, s.Shutdown(context.Background(), 0))
	verify.Equal(t, <-served, ErrServerClosed, "served")
}

func TestOptionsOfTheNextRequest(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, answersOK(t))
	conn := p.dial()
	for _, step := range []struct {
		limit  units.Size
		status int
	}{{100, 200}, {5, 414}} {
		p.change(func(o *Options) { o.Limits.TargetBytes = step.limit })
		io.WriteString(conn, "GET /abcdefgh HTTP/1.1\r\nHost: a\r\n\r\n")
		expectResponse(t, conn, step.status)
	}
}
