package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/route"
	"sluice/test/verify"
)

// greeted is stream with a peer whose first words are greeting's, after them.
func (p *testProxy) greeted() *net.TCPConn {
	p.t.Helper()
	conn := p.stream()
	expectNext(p.t, conn, "220 ready\n")
	return conn
}

// quit is a short conversation with a peer whose first words are greeting's.
func (p *testProxy) quit() {
	p.t.Helper()
	conn := p.stream()
	io.WriteString(conn, "quit\n") // one that closes without a word may be a health check
	conn.CloseWrite()
	expectRest(p.t, conn, "220 ready\nquit\n")
}

func TestStream(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, greeting)
	p := startLogged(t, Options{}, origin.address())
	p.address = p.serveWith(ListenerOptions{Name: "db", Streams: p.target})
	conn := p.greeted()
	verify.That(t, p.inflight() == 1 && p.Connections() == 1, "%d in flight, %d connections, want 1 and 1", p.inflight(), p.Connections())
	io.WriteString(conn, "quit\n")
	conn.CloseWrite() // the other direction goes on
	expectRest(t, conn, "quit\n")
	p.expectNothingOpen()
	eventually(t, "the peer's connection has ended", func() bool { return origin.open() == 0 })
	p.expectNothingCounted()
	s := p.pool.Requests.Snapshot()
	verify.That(t, s.Total() == 1 && s.BytesIn == 5 && s.BytesOut == 15, "%d connections with %d and %d bytes, want 1 with 5 and 15", s.Total(), s.BytesIn, s.BytesOut)
	verify.NoError(t, p.log.Close())
	line, err := os.ReadFile(p.path)
	for _, want := range []string{`"client":"127.0.0.1","proto":"TCP","status":200,"bytes_in":5,"bytes_out":15,"duration_ms":`, `"service":"star","peer":"` + origin.address() + `","attempts":1,"connect_ms":`} {
		verify.That(t, err == nil && strings.Contains(string(line), want), "%s, %v: want %s", line, err, want)
	}
}

// A peer of connections is as fast as it accepts them.
func TestStreamsTellTheTimeOfConnecting(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, startOrigin(t, greeting).address())
	p.address = p.serveWith(ListenerOptions{Name: "db", Streams: p.target})
	eventually(t, "the peer has a latency", func() bool {
		p.greeted().Close() // the first one is no sample
		return p.pool.Snapshot().All[0].Latency() > 0
	})
}

// The line of a connection has the group of its peer, and the TLS that ends here.
func TestStreamLineHasGroupAndTLS(t *testing.T) {
	t.Parallel()
	p := startLogged(t, Options{}, startOrigin(t, greeting).address())
	p.reconfigure(balancer.Options{Groups: []balancer.GroupSelector{{Name: "canary"}}})
	p.address = p.serveWith(ListenerOptions{Name: "db", TLS: &tls.Config{Certificates: []tls.Certificate{certificate()}}, Streams: func() *Streams {
		return &Streams{Other: &route.Route{Service: p.service, EndsTLS: true}}
	}})
	conn := tls.Client(p.stream(), &tls.Config{ServerName: "db.example.com", InsecureSkipVerify: true})
	io.WriteString(conn, "quit\n")
	verify.NoError(t, conn.CloseWrite())
	expectRest(t, conn, "220 ready\nquit\n")
	lines := p.lines()
	verify.Require(t, len(lines) == 1, "got %+v", lines)
	l := lines[0]
	verify.That(t, l.Group == "canary" && l.TLSVersion == "TLSv1.3" && strings.HasPrefix(l.TLSCipher, "TLS_") && l.TLSServerName == "db.example.com", "got %+v", l)
}

// Connections that cannot be opened count, and another peer gets the client.
func TestStreamToAnotherPeer(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, greeting)
	p := startStreams(t, Options{}, nowhere[0], nowhere[1], origin.address())
	for range 3 {
		p.quit()
	}
	eventually(t, "nothing is open", func() bool { return p.Connections() == 0 }) // all is counted before
	failures := 0
	for _, peer := range p.pool.Snapshot().All {
		n := int(peer.Outcomes()[balancer.OutcomeConnectFailure])
		if failures += n; n > 0 && peer.Address() == origin.address() {
			t.Errorf("%d connect failures of the peer that works", n)
		}
	}
	s := p.pool.Requests.Snapshot()
	verify.That(t, failures != 0 && int(s.Retries) == failures, "%d connect failures, %d retries", failures, s.Retries)

	p.setPeers(nowhere...)
	got, err := io.ReadAll(p.stream())
	verify.That(t, len(got) == 0, "without a peer: got %q, %v", got, err)
}

func TestStreamOfManyBytes(t *testing.T) {
	t.Parallel()
	const size = 20 << 20
	origin := startOrigin(t, greeting)
	p := startStreams(t, Options{}, origin.address())
	conn := p.greeted()
	sent, got := sha256.New(), sha256.New()
	random := rand.NewChaCha8([32]byte{1})
	go func() {
		for left := size; left > 0; {
			b := make([]byte, min(left, 1+int(random.Uint64()%200_000)))
			random.Read(b)
			sent.Write(b)
			if _, err := conn.Write(b); err != nil {
				return
			}
			left -= len(b)
		}
		conn.CloseWrite()
	}()
	n, err := io.Copy(got, conn)
	verify.That(t, err == nil && n == size && bytes.Equal(sent.Sum(nil), got.Sum(nil)), "%d bytes of %d came back, %v, or others", n, size, err)
}

// The shorter timeout begins when the side closes, also if the connection was silent before.
func TestStreamHalfClosesAfterAPause(t *testing.T) {
	t.Parallel()
	answers := startOrigin(t, func(c *originConn) bool {
		io.WriteString(c.Conn, "220 ready\n")
		io.Copy(io.Discard, c.Reader)
		io.WriteString(c.Conn, "bye")
		return false
	})
	proceed := make(chan struct{})
	end := sync.OnceFunc(func() { close(proceed) })
	silent := startOrigin(t, func(c *originConn) bool {
		io.WriteString(c.Conn, "220 ready\n")
		<-proceed
		return false
	})
	t.Cleanup(end)
	p := startStreams(t, Options{})
	p.setService(route.Service{Timeouts: route.Timeouts{Tunnel: 10_000 * time.Hour}, Retry: route.Retry{Attempts: 1}})
	pause := 2 * defaultTimeouts().Idle
	for _, origin := range []*origin{answers, silent} {
		p.setPeers(origin.address())
		conn := p.greeted()
		p.skip(pause)
		conn.CloseWrite()
		if origin == answers {
			expectRest(t, conn, "bye")
			continue
		}
		eventually(t, "the peer's side is timed", func() bool {
			p.skip(pause)
			return p.Connections() == 0
		})
		expectReset(t, conn)
	}
}

// The connections of a peer that leaves go on, up to the drain timeout, and are reset then on both
// sides: a stream that is cut must not look complete.
func TestStreamsOfADrainingPeer(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 2)
	origin, other := startOrigin(t, func(c *originConn) bool {
		c.write("220 ready\n")
		_, err := io.Copy(c.Conn, c.Reader)
		ended <- err
		return false
	}), startOrigin(t, greeting)
	p := startStreams(t, Options{}, origin.address())
	conn := p.greeted()
	p.setPeers(other.address())
	io.WriteString(conn, "still here")
	expectNext(t, conn, "still here")
	p.greeted()
	verify.Equal(t, other.connections(), 1, "connections to the new peer")
	p.reconfigure(balancer.Options{DrainTimeout: 50 * time.Millisecond})
	p.setPeers(origin.address())
	next := p.greeted()
	p.setPeers()
	expectReset(t, next)
	err := <-ended
	verify.That(t, errors.Is(err, syscall.ECONNRESET), "the peer got %v, want a reset after the drain timeout", err)
}

func TestShutdownCutsStreams(t *testing.T) {
	t.Parallel()
	p := newUnmanagedProxy(t, Options{}, startOrigin(t, greeting).address())
	defer p.pool.Close()
	p.address = p.serveWith(ListenerOptions{Name: "db", Streams: p.target})
	short, long := p.greeted(), p.greeted()
	ctx, cancel := context.WithCancel(context.Background())
	ended := p.shutDown(ctx, 0)
	io.WriteString(short, "last word")
	short.CloseWrite()
	expectRest(t, short, "last word")
	cancel()
	verify.Equal(t, <-ended, context.Canceled, "shutdown")
	expectReset(t, long)
}

// The streams of a removed listener end after grace.
func TestDrainResetsStreams(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, greeting)
	p := startProxy(t, Options{}, origin.address())
	l, leave := p.serveUntil(ListenerOptions{Name: "db", Streams: p.target})
	p.address = l.Addr().String()
	conn := p.greeted()
	leave()
	p.Drain(l, 0, 100*time.Millisecond)
	expectReset(t, conn)
	p.expectNothingOpen()
	eventually(t, "the peer's connection has ended", func() bool { return origin.open() == 0 })
}

// The end of a stream is seen also where it arrives with the last bytes.
func TestStreamEndWithTheLastBytes(t *testing.T) {
	t.Parallel()
	p := startStreams(t, Options{}, startOrigin(t, func(c *originConn) bool { c.write("bye"); return false }).address())
	for range 200 {
		conn := p.stream()
		io.WriteString(conn, "hello")
		conn.CloseWrite()
		got, err := io.ReadAll(conn)
		verify.Require(t, string(got) == "bye" || errors.Is(err, syscall.ECONNRESET), "got %q, %v", got, err)
		conn.Close()
	}
	p.expectNothingOpen()
}

func TestStreamsPerAddress(t *testing.T) {
	t.Parallel()
	p := startStreams(t, Options{Limits: Limits{ConnectionsPerAddress: 1}}, startOrigin(t, greeting).address())
	p.greeted()
	got, _ := io.ReadAll(p.stream())
	verify.That(t, len(got) == 0 && p.Stats().Refused == 1, "beyond the limit: got %q, %d refused", got, p.Stats().Refused)
}

// During the maintenance of its service, open connections go on, and new ones are closed.
func TestStreamsDuringMaintenance(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, greeting)
	p := startStreams(t, Options{}, origin.address())
	conn := p.greeted()
	p.pool.Maintenance.Store(&balancer.Maintenance{})
	got, _ := io.ReadAll(p.stream())
	verify.That(t, len(got) == 0 && origin.connections() == 1, "during the maintenance: got %q, %d connections", got, origin.connections())
	io.WriteString(conn, "quit\n")
	conn.CloseWrite()
	expectRest(t, conn, "quit\n")
	p.pool.Maintenance.Store(nil)
	p.quit()
}

// With the policy hash a client stays with its peer.
func TestStreamsByClientAddress(t *testing.T) {
	t.Parallel()
	a, b, c := startOrigin(t, greeting), startOrigin(t, greeting), startOrigin(t, greeting)
	p := startStreams(t, Options{}, a.address(), b.address(), c.address())
	p.reconfigure(balancer.Options{Policy: balancer.PolicyHash, HashBound: 100})
	p.setService(route.Service{Retry: route.Retry{Attempts: 1}, Affinity: &route.Affinity{
		Keys: []route.HashKey{{Source: route.HashHeader, Name: "x"}, {Source: route.HashClientAddress}},
	}})
	for range 12 {
		p.quit()
	}
	counts := []int{a.connections(), b.connections(), c.connections()}
	verify.Equal(t, max(counts[0], counts[1], counts[2]), 12, "the peers got %v connections at one of them", counts)
}

// The bytes of a stream are counted while it is open, and once.
func TestStreamBytesAreCountedMeanwhile(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, greeting)
	p := startStreams(t, Options{}, origin.address())
	conn := p.greeted()
	expect := func(in, out int64) {
		t.Helper()
		eventually(t, "the bytes are counted", func() bool {
			s := p.pool.Requests.Snapshot()
			return s.BytesIn == in && s.BytesOut == out
		})
	}
	expect(0, 10)
	const size = 1 << 20 // moved within the kernel
	go conn.Write(make([]byte, size))
	verify.Result(io.ReadFull(conn, make([]byte, size))).Must(t)
	expect(size, 10+size)
	s := p.pool.Requests.Snapshot()
	verify.That(t, s.Total() == 0, "the connection has ended")
	conn.CloseWrite()
	io.ReadAll(conn)
	eventually(t, "nothing is open", func() bool { return p.Connections() == 0 })
	expect(size, 10+size)
}

// A client that leaves while it waits for a peer is noticed; one that waits for an answer
// to what it has sent stays.
func TestStreamClientLeavesWhileItWaits(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, greeting)
	p := startStreams(t, Options{})
	p.setService(route.Service{Retry: route.Retry{Attempts: 1}, WaitForPeer: time.Hour})
	closed, reset, stays := p.stream(), p.stream(), p.stream()
	eventually(t, "all are accepted", func() bool { return p.Connections() == 3 })
	io.WriteString(stays, "question")
	stays.CloseWrite()
	closed.Close()
	reset.SetLinger(0)
	reset.Close()
	eventually(t, "two have left", func() bool { return p.Connections() == 1 })
	p.setPeers(origin.address())
	expectRest(t, stays, "220 ready\nquestion")
}
