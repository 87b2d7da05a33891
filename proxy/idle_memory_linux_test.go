//go:build !race

package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"

	"sluice/test/verify"
)

// An idle connection has a clientConn and a place in two tables, and no goroutine.
func TestIdleConnectionHoldsLittle(t *testing.T) {
	if !alone(t) {
		return
	}
	const (
		conns = 1000
		limit = 1500 // bytes for each, with some 500 for the socket of the test itself
	)
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	for _, conn := range p.idleClients(conns) { // so that there are as many goroutines to reuse
		conn.Close()
	}
	eventually(t, "no connection is left", func() bool { return p.Connections() == 0 })
	before := memory()
	p.idleClients(conns)
	expectMemory(t, before, conns, limit)
}

// An idle connection with TLS has, besides, what crypto/tls keeps: the connection (0.9 kB),
// two ciphers (1.8 kB), secrets (0.3 kB), and two buffers as large as the client's first
// message, which nobody can release.
func TestIdleTLSConnectionHoldsLittle(t *testing.T) {
	if !alone(t) {
		return
	}
	const conns = 300
	for _, test := range []struct {
		name   string
		curves []tls.CurveID // nil: the default, with X25519MLKEM768
		limit  int64         // bytes for each, with some 500 for the socket of the test itself
	}{
		{"X25519MLKEM768", nil, 9000}, {"X25519", []tls.CurveID{tls.X25519}, 6500},
	} {
		t.Run(test.name, func(t *testing.T) {
			origin := startOrigin(t, answering(okResponse))
			p := startProxy(t, Options{}, origin.address())
			address := p.serveWith(ListenerOptions{Name: "secure", TLS: &tls.Config{Certificates: []tls.Certificate{certificate()}}})
			open := func() (sockets []net.Conn) {
				for range conns {
					conn := verify.Result(net.Dial("tcp", address)).Must(t)
					t.Cleanup(func() { conn.Close() })
					sockets = append(sockets, conn)
					client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, CurvePreferences: test.curves}) // garbage from the response on
					io.WriteString(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
					response := verify.Result(http.ReadResponse(bufio.NewReader(client), nil)).Must(t)
					body, err := io.ReadAll(response.Body)
					verify.Require(t, err == nil && string(body) == "ok", "got %q, %v", body, err)
				}
				eventually(t, "all connections rest", func() bool { return p.idleConnCount() == conns })
				return sockets
			}
			for _, conn := range open() { // so that there are as many goroutines to reuse
				conn.Close()
			}
			eventually(t, "no connection is left", func() bool { return p.Connections() == 0 })
			before := memory()
			open()
			expectMemory(t, before, conns, test.limit)
		})
	}
}
