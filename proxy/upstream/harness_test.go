package upstream

import (
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/proxy/http1"
	"sluice/proxy/socket"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// patience bounds what a working program does at once.
const patience = 2 * time.Minute

// startTransport returns a transport for a peer that serves each connection with serve.
func startTransport(t *testing.T, o Options, serve func(net.Conn)) *http1Transport {
	t.Helper()
	return startPeer(t, o, serve).http1Transport
}

// startPeer returns what owns the connections to a peer that serves each one with serve.
func startPeer(t *testing.T, o Options, serve func(net.Conn)) *peerTransport {
	t.Helper()
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	sweeper, stop := socket.NewSweeper(), make(chan struct{})
	running.Go(func() { sweeper.Run(stop) })
	o.IdleTimeout, o.MaxIdle, o.HeadBytes, o.Fields = time.Minute, 512, 16<<10, http1.UsualFields
	pool := balancer.NewPool("star", balancertest.Complete(balancer.Options{
		Policy: balancer.PolicyRoundRobin, NewTransport: NewConnectors(sweeper, zerolog.Nop()).NewTransport(o),
	}))
	host, port, _ := net.SplitHostPort(l.Addr().String())
	number, _ := strconv.Atoi(port)
	pool.Apply([]discovery.Instance{{Service: "star", ID: "a", Address: host, Port: number, Weight: 1}})
	transport := pool.Snapshot().All[0].Transport.(*peerTransport)
	t.Cleanup(func() {
		transport.Close()
		pool.Close()
		l.Close()
		close(stop)
		running.Wait()
	})
	return transport
}

// connected returns both ends of a connection.
func connected(t *testing.T) (ours *net.TCPConn, theirs net.Conn) {
	t.Helper()
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	defer l.Close()
	conn := verify.Result(net.Dial("tcp", l.Addr().String())).Must(t)
	t.Cleanup(func() { conn.Close() })
	theirs = verify.Result(l.Accept()).Must(t)
	t.Cleanup(func() { theirs.Close() })
	return conn.(*net.TCPConn), theirs
}

// hanging takes what comes, and does not answer.
func hanging(conn net.Conn) { io.Copy(io.Discard, conn) }

// answering answers the first bytes, which are a request.
func answering(response string) func(net.Conn) {
	return func(conn net.Conn) {
		conn.Read(make([]byte, 4096))
		io.WriteString(conn, response)
		io.Copy(io.Discard, conn)
	}
}

const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// opened opens a connection in a slot that has none.
func (t *http1Transport) opened(test *testing.T) *HTTP1Conn {
	test.Helper()
	return t.dialed(test, t.acquire(time.Now()))
}

// dialed opens a connection in s.
func (t *http1Transport) dialed(test *testing.T, s *slot) *HTTP1Conn {
	test.Helper()
	return verify.Result(t.dial(test.Context(), s, time.Now(), patience, 0, agreement{}, "")).Must(test)
}

// there is a client that stays.
type there struct{}

func (there) IsGone() bool { return false }

func (there) Parties() (client, peer any) { return "a client", nil }

// exchange sends a request to the peer, and returns the connection, which is idle then.
func (t *http1Transport) exchange(test *testing.T) *HTTP1Conn {
	test.Helper()
	c, _, err := t.Connect(test.Context(), by(false), nil)
	verify.NoError(test, err)
	_, _, err = receive(c)
	verify.NoError(test, err)
	c.Finish(true)
	t.expect(test, 1, 0, 1)
	return c.(*HTTP1Conn)
}

// receive sends a request on u, and returns all that the peer answers.
func receive(u Conn) (statuses []int, body string, err error) {
	u.WaitAtMost(patience)
	b := new(socket.Buffers)
	b.Borrow()
	defer b.GiveBack()
	b.Out = append(b.Out, request...)
	if _, err = u.Send(b, nil, nil, Until{}); err != nil {
		return nil, "", err
	}
	var head http1.ResponseHead
	var text []byte
	for len(statuses) == 0 || head.Interim() {
		if text, err = u.ReadHead(b, &head); err != nil {
			return statuses, "", err
		}
		statuses = append(statuses, head.Status)
	}
	if err = u.StartBody(b, &head, text, head.Bodiless(false)); err != nil {
		return statuses, "", err
	}
	for last := head.Bodiless(false); !last; {
		p, err := u.ReadBody(b, false)
		if err != nil {
			return statuses, body, err
		}
		body, last = body+string(p.Text), p.Last
	}
	return statuses, body, nil
}

// eventually waits until condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(2 * time.Millisecond) {
		verify.Require(t, !time.Now().After(deadline), "waited in vain for: %s", what)
	}
}
