package proxy

import (
	"io"
	"net"
	"testing"
	"time"
)

// A client that goes away amid a request is noticed at once, however closely
// the end of its connection follows its last bytes.
func TestClientThatLeavesAmidRequest(t *testing.T) {
	origin := startOrigin(t, answering(okResponse))
	never := time.Hour
	p := startProxy(t, Options{Timeouts: Timeouts{never, never, never, never}}, origin.address())
	for _, half := range []string{
		"GET / HTT",
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nab",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
	} {
		for range 20 {
			conn, err := net.Dial("tcp", p.address)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, half)
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}
	eventually(t, "no connection is left", func() bool { return p.Connections() == 0 })
}
