package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/test/verify"
)

// A peer may answer before it has got all of a body that is kept, and read no
// more of it: its answer counts, however the connection ends.
func TestEarlyAnswerToKeptBody(t *testing.T) {
	t.Parallel()
	const length = 8 << 20
	const unauthorized = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\n\r\nwho are you?"
	goOn := make(chan struct{})
	answers := func(then func(c *originConn)) string {
		return startOrigin(t, func(c *originConn) bool {
			c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			if _, err := http.ReadRequest(c.Reader); err != nil {
				return false
			}
			io.WriteString(c.Conn, unauthorized)
			then(c)
			return false
		}).address()
	}
	tests := map[string]string{
		"a server of Go's": startServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(401)
			io.WriteString(w, "who are you?")
		}),
		"closes": answers(func(*originConn) {}),
		"closes its sending side and reads no more": answers(func(c *originConn) {
			c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			<-goOn
		}),
		"reads no more": answers(func(*originConn) { <-goOn }),
	}
	t.Cleanup(func() { close(goOn) })
	for name, address := range tests {
		for _, attempts := range []int{1, 2} {
			t.Run(fmt.Sprint(name, ", attempts ", attempts), func(t *testing.T) {
				p := startProxy(t, Options{}, address)
				p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: attempts, BodyBytes: length}})
				for range 3 {
					conn := p.send(fmt.Sprintf("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", length))
					go io.WriteString(conn, longText()[:length])
					status, body := readResponseFrom(t, bufio.NewReader(conn), "PUT")
					verify.That(t, status == 401 && body == "who are you?", "got %d %q", status, body)
					conn.Close()
				}
				eventually(t, "nothing in flight", func() bool { return p.inflight() == 0 })
				peer := p.pool.Snapshot().All[0]
				outcomes := peer.Outcomes()
				verify.That(t, outcomes[balancer.OutcomeOK] == 3 && peer.Failures() <= 0, "outcomes %v", outcomes)
			})
		}
	}
}

// patientTimeouts do not come into play.
func patientTimeouts() route.Timeouts {
	return route.Timeouts{Connect: patience, ResponseHeader: patience, Idle: patience}
}

// A peer that begins to answer while it still reads gets the whole of a body
// that is kept, and its connection is used again.
func TestKeptBodyGoesOnBehindEarlyAnswer(t *testing.T) {
	t.Parallel()
	const length = 8 << 20 // more than a socket has room for at first
	origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
		io.WriteString(c.Conn, "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
		n, err := io.Copy(io.Discard, r.Body)
		last := fmt.Sprintf("%d bytes, %v", n, err)
		_, err = fmt.Fprintf(c.Conn, "%x\r\n%s\r\n0\r\n\r\n", len(last), last)
		return err == nil
	}))
	p := startProxy(t, Options{}, origin.address())
	p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 2, BodyBytes: length}})
	conn := p.dial()
	reader := bufio.NewReader(conn)
	// Not used again is the connection of a request whose end is noticed too late.
	for requests := 0; requests < 3 || origin.connections() == requests; requests++ {
		verify.Require(t, requests != 30, "no connection to the peer was used again")
		fmt.Fprintf(conn, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", length)
		go io.WriteString(conn, longText()[:length])
		status, _ := readResponseFrom(t, reader, "PUT")
		verify.Require(t, status == 103, "got %d, want 103", status)
		want := fmt.Sprintf("ok%d bytes, <nil>", length)
		status, body := readResponseFrom(t, reader, "PUT")
		verify.Require(t, status == 200 && body == want, "got %d %q, want %q", status, body, want)
	}
}

// A request whose body does not come takes no memory for it.
func TestNoBufferBeforeTheFirstByteOfABody(t *testing.T) {
	if !alone(t) {
		return
	}
	var taken atomic.Int64 // bytes
	countBytes(&taken, socket.BodyBuffers, socket.SmallBodies)
	const long = 10000 * time.Hour
	p := startProxy(t, Options{Timeouts: Timeouts{Head: time.Hour, Body: long}}, answersOK(t))
	p.setService(route.Service{Retry: route.Retry{Attempts: 3, BodyBytes: 64 << 10}})
	const clients = 20
	var conns []net.Conn
	for range clients {
		conns = append(conns, p.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n"))
	}
	waiting := func() (n int) {
		p.eachConn(func(c *clientConn) {
			if c.client.Entry.Deadline.Load()-p.sweeper.Now() > int64(long/2) {
				n++
			}
		})
		return n
	}
	eventually(t, "all bodies are awaited", func() bool { return waiting() == clients })
	verify.Equal(t, taken.Load(), 0, "bytes for %d requests", clients)
	// The first bytes take little more than they are.
	for _, conn := range conns {
		io.WriteString(conn, "x")
	}
	eventually(t, "the first bytes are kept", func() bool { return taken.Load() >= clients*socket.SmallBodyBytes })
	n := taken.Load()
	verify.That(t, n <= clients*socket.SmallBodyBytes && p.keptBodies.Taken() == n, "%d bytes for %d requests, and %d are counted", n, clients, p.keptBodies.Taken())
	for _, conn := range conns {
		io.WriteString(conn, strings.Repeat("x", 59999))
		expectResponse(t, conn, 200)
	}
	eventually(t, "the memory is given back", func() bool { return p.keptBodies.Taken() == 0 })
}

// countBytes adds the sizes of buffers that are made.
func countBytes(made *atomic.Int64, pools ...*sync.Pool) {
	for _, pool := range pools {
		create := pool.New
		pool.New = func() any {
			b := create().(*socket.Buffer)
			made.Add(int64(len(b.Bytes)))
			return b
		}
	}
}

// eachConn calls do for each connection of a client.
func (p *testProxy) eachConn(do func(*clientConn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		do(c)
	}
}
