//go:build !race

package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"sluice/test/verify"
)

// An idle connection has a clientConn and a place in two tables, and no goroutine. With TLS it has,
// besides, what crypto/tls keeps: the connection (0.9 kB), two ciphers (1.8 kB), secrets (0.3 kB),
// and two buffers as large as the client's first message, which nobody can release.
func TestIdleConnectionHoldsLittle(t *testing.T) {
	if !alone(t) {
		return
	}
	for _, test := range []struct {
		name   string
		conns  int
		client *tls.Config // nil: without TLS
		limit  int64       // bytes for each, with some 600 for the socket of the test itself
	}{
		{"plain", 1000, nil, 1300},
		{"X25519MLKEM768", 300, &tls.Config{InsecureSkipVerify: true}, 9000}, // the default
		{"X25519", 300, &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}, 6500},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startProxy(t, Options{Timeouts: Timeouts{Head: time.Hour, Idle: time.Hour}}, answersOK(t))
			if test.client != nil {
				p.address = p.serveWith(ListenerOptions{Name: "secure", TLS: &tls.Config{Certificates: []tls.Certificate{certificate()}}})
			}
			open := func() (sockets []net.Conn) {
				for range test.conns {
					client := verify.Result(net.Dial("tcp", p.address)).Must(t) // p.stream has a cleanup for each
					sockets = append(sockets, client)
					client.SetDeadline(time.Now().Add(patience))
					if test.client != nil {
						client = tls.Client(client, test.client) // garbage from the response on
					}
					io.WriteString(client, getRequest)
					expectResponse(t, client, 200, "ok")
				}
				eventually(t, "all connections rest", func() bool { return p.idleConnCount() == test.conns })
				return sockets
			}
			for _, conn := range open() {
				conn.Close()
			}
			startGoroutines(2 * test.conns)
			eventually(t, "no connection is left", func() bool { return p.Connections() == 0 })
			before := memory()
			left := open()
			expectMemory(t, before, int64(test.conns), test.limit)
			verify.Equal(t, p.Connections(), test.conns, "connections")
			for _, conn := range left {
				conn.Close()
			}
		})
	}
}

// startGoroutines starts n goroutines at once, which end. The runtime keeps what describes a
// goroutine (some 400 bytes) for later ones: then the test measures no more of it, however many
// there are at once.
func startGoroutines(n int) {
	end := make(chan struct{})
	var all sync.WaitGroup
	for range n {
		all.Go(func() { <-end })
	}
	close(end)
	all.Wait()
}
