package proxy

import (
	"io"
	"net"
	"testing"
	"time"

	"sluice/test/verify"
)

// A client that goes away amid a request is noticed at once, however closely
// the end of its connection follows its last bytes.
func TestClientThatLeavesAmidRequest(t *testing.T) {
	t.Parallel()
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
			conn := verify.Result(net.Dial("tcp", p.address)).Must(t)
			io.WriteString(conn, half)
			closeWrite(t, conn)
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}
	eventually(t, "no connection is left", func() bool { return p.Connections() == 0 })
}

// A tunnel whose client has closed its sending side goes on the other way,
// however long the peer takes.
func TestHalfClosedTunnelGoesOn(t *testing.T) {
	t.Parallel()
	late := make(chan struct{})
	origin := startOrigin(t, afterRequest(func(c *originConn) bool {
		io.WriteString(c.Conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
		io.Copy(io.Discard, c)
		<-late
		io.WriteString(c.Conn, "late")
		return false
	}))
	p := startProxy(t, Options{}, origin.address())
	conn := p.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
	const switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
	verify.Result(io.ReadFull(conn, make([]byte, len(switched)))).Must(t)
	closeWrite(t, conn)
	p.sweptFor(looks)
	close(late)
	expectRest(t, conn, "late")
}
