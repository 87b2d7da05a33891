package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/proxy/accesslog"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/test/verify"
)

// A request leaves a peer whose checks fail as soon as there is another one, if it may be sent
// twice. Package attempt has what peers do meanwhile.
func TestSuspectedPeerIsLeft(t *testing.T) {
	t.Parallel()
	const body = " / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
	type test struct {
		request      string
		http2, stays bool
	}
	tests := map[string]test{
		"WebSocket": {strings.Replace(upgradeRequest, "Echo", "websocket", 1), false, false},
	}
	for _, http2 := range []bool{false, true} {
		for name, test := range map[string]test{
			"GET": {getRequest, http2, false}, "kept body": {"PUT" + body, http2, false}, "not idempotent": {"POST" + body, http2, true},
			"upload": {"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", http2, true},
		} {
			tests[fmt.Sprintf("%s, HTTP/2 %v", name, http2)] = test
		}
	}
	eachCase(t, tests, func(t *testing.T, test test) {
		asked, answer := make(chan string, 3), make(chan struct{})
		peer := func(name string, waits <-chan struct{}) (address string) {
			return startServer(t, func(w http.ResponseWriter, r *http.Request) {
				if asked <- name; r.ContentLength > 0 { // net/http looks for the end of the connection behind the body
					io.Copy(io.Discard, r.Body)
				}
				select {
				case <-waits:
					io.WriteString(w, name)
				case <-r.Context().Done():
				}
			})
		}
		at := make(chan struct{})
		close(at)
		first, second := peer("first", answer), peer("second", at)
		p := startProxy(t, Options{})
		p.usePeers(test.http2, someTransport, balancer.Options{Policy: balancer.PolicyRoundRobin}, first)
		p.setService(route.Service{Retry: route.Retry{Attempts: 2, BodyBytes: 100}})
		conn := p.send(test.request)
		<-asked
		p.suspect()
		p.sweptFor(socket.SweepInterval) // there is no other peer yet
		p.setPeers(first, second)
		want := "second"
		if test.stays {
			p.sweptFor(4 * socket.SweepInterval)
			verify.Equal(t, len(asked), 0, "peers that are asked too")
			want = "first"
			close(answer)
			if strings.Contains(test.request, "chunked") {
				io.WriteString(conn, "0\r\n\r\n")
			}
		}
		expectResponse(t, conn, 200, want)
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
		p.expectNothingCounted()
	})
}

// suspect has the checks of the peer with a request in flight fail.
func (p *testProxy) suspect() {
	p.t.Helper()
	all := p.pool.Snapshot().All
	i := slices.IndexFunc(all, func(peer *balancer.Peer) bool { return peer.Inflight() > 0 })
	verify.Require(p.t, i >= 0, "no peer is asked")
	p.pool.SetReasons(balancer.ReasonActive, balancer.Verdict{Peer: all[i], Down: true})
}

// The wait for a connection to a peer ends when the client leaves, whatever the protocols,
// and the peer is not to blame.
func TestConnectingEndsWithTheClient(t *testing.T) {
	t.Parallel()
	silent := startOrigin(t, hanging) // takes part in no handshake, and sends no SETTINGS
	for _, secure := range []bool{false, true} {
		for _, byDeadline := range []bool{false, true} {
			t.Run(fmt.Sprintf("TLS %v, deadline %v", secure, byDeadline), func(t *testing.T) {
				t.Parallel()
				p := startProxy(t, Options{})
				options := someTransport
				if secure {
					options.TLS = anyCertificate
				}
				p.http2 = true // so that the client may have a deadline
				p.reconfigure(balancer.Options{NewTransport: over(!secure, p.NewTransport(options))})
				p.setPeers(silent.address())
				p.setService(route.Service{Timeouts: route.Timeouts{Connect: time.Hour}, Retry: route.Retry{Attempts: 3}})
				c := p.dialFrames()
				if byDeadline {
					c.request(1, grpcPost+"|grpc-timeout=50m", false)
					r := c.response(1)
					verify.That(t, r.header["grpc-status"] == "4", "got %+v", r)
				} else {
					c.request(1, grpcPost, false)
					eventually(t, "the request is in flight", func() bool { return p.inflight() == 1 })
				}
				c.conn.Close()
				p.expectNothingOpen()
				p.expectNothingCounted()
			})
		}
	}
}

// full returns the address of a listener whose queue of connections is full: to connect there takes
// until a timeout.
func full(t *testing.T) string {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	raw := verify.Result(l.(*net.TCPListener).SyscallConn()).Must(t)
	verify.NoError(t, raw.Control(func(fd uintptr) { verify.NoError(t, syscall.Listen(int(fd), 0)) }))
	only := verify.Result(net.Dial("tcp", l.Addr().String())).Must(t)
	t.Cleanup(func() { only.Close() })
	return l.Addr().String()
}

// silent returns the address of a peer that takes connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// Who is being connected to a peer that no longer leads gets the next leader at once, and the
// former one is not blamed. client would wait for timeouts.connect, which is longer here than the
// test has patience.
func TestDemotionEndsTheWaitForTheFormerLeader(t *testing.T) {
	t.Parallel()
	config := withALPN(&tls.Config{Certificates: []tls.Certificate{certificate()}})
	next := serveMember(t, config, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "next") })
	const each = 3 // those by HTTP/2 wait for the dial of one
	for former, address := range map[string]func(*testing.T) string{"does not accept": full, "says nothing": silent} {
		for _, by := range []string{"HTTP/1.1", "HTTP/2", "TCP"} {
			p := startLogged(t, Options{})
			o := someTransport
			o.TLS = anyCertificate
			p.service.Timeouts.Connect = 10 * patience
			p.usePeers(by == "HTTP/2", o, balancer.Options{OneLeader: true, CutRemoved: true}, address(t))
			if by == "TCP" {
				p.address = p.serveWith(ListenerOptions{Name: "db", Streams: p.target})
			}
			var clients []net.Conn
			for range each {
				clients = append(clients, p.send(strings.Replace(getRequest, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)))
			}
			leader := p.pool.Snapshot().All[0]
			eventually(t, "all wait for the leader", func() bool { return leader.Inflight() == each })
			p.setPeers(next)
			for _, client := range clients {
				text, err := io.ReadAll(client)
				what := fmt.Sprintf("%s, the former leader %s: got %q, %v", by, former, text, err)
				verify.That(t, err == nil && strings.HasPrefix(string(text), "HTTP/1.1 200 ") && strings.Contains(string(text), "next"), "%s", what)
			}
			verify.Equal(t, leader.Failures(), 0, "%s, the former leader %s: failures", by, former)
		}
	}
}

// The access log says of sessions that were cut whether their peer no longer leads, in the way that
// the service wants. A leader of a service that is removed has not been demoted. Whoever comes then
// learns that there is no leader.
func TestWhySessionsOfALeaderEnd(t *testing.T) {
	t.Parallel()
	const short = 50 * time.Millisecond
	for _, c := range []struct {
		cut, removed bool
		timeout      time.Duration // of the drain
		want         string
	}{
		{true, false, time.Hour, "demoted"},
		{false, false, short, "demoted"},
		{true, true, short, "drain_timeout"},
		{false, true, short, "drain_timeout"},
	} {
		p := startProxy(t, Options{}, startOrigin(t, echoing).address()).logged(accesslog.Options{Slow: time.Hour}) // of what has not failed, none
		p.reconfigure(balancer.Options{OneLeader: true, CutRemoved: c.cut, DrainTimeout: c.timeout})
		requests := p.address
		tunnel := p.send(upgradeRequest)
		verify.NoError(t, awaitHello(tunnel))
		p.address = p.serveWith(ListenerOptions{Name: "db", Streams: p.target})
		stream := p.send(strings.Replace(upgradeRequest, "keep-alive, ", "", 1))
		verify.NoError(t, awaitHello(stream))
		want := []string{"101 " + c.want, "200 " + c.want}
		if c.removed {
			p.pool.Close()
		} else {
			p.setPeers()
			want = append(want, "503 no_leader", "503 no_leader")
		}
		expectCut(t, tunnel, "a tunnel")
		expectCut(t, stream, "a stream")
		if !c.removed {
			expectCut(t, p.stream(), "a stream that has no peer")
			p.address = requests
			verify.Contains(t, p.raw(strings.Replace(getRequest, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)), "X-Sluice-Reason: no_leader\r\n", "the answer of a request")
		}
		verify.Slices(t, p.ends(), want, "cut %v, removed %v: the lines of the access log", c.cut, c.removed)
	}
}

// Whoever is connected to a leader that no longer is the one when the connection is open learns
// what the next client learns.
func TestLeaderGoesWhileClientsAreConnected(t *testing.T) {
	t.Parallel()
	arrived, proceed := make(chan struct{}, 10), make(chan struct{})
	origin := startOrigin(t, func(c *originConn) bool {
		arrived <- struct{}{}
		<-proceed
		io.Copy(io.Discard, tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate()}}))
		return false
	})
	goOn := sync.OnceFunc(func() { close(proceed) })
	t.Cleanup(goOn) // before origin waits for its connections
	p := startLogged(t, Options{})
	o := someTransport
	o.TLS = anyCertificate
	p.service.Timeouts.Connect = patience
	p.usePeers(false, o, balancer.Options{OneLeader: true, CutRemoved: true}, origin.address())
	request := p.send(strings.Replace(getRequest, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
	p.address = p.serveWith(ListenerOptions{Name: "db", Streams: p.target})
	stream := p.stream()
	<-arrived
	<-arrived
	p.setPeers()
	goOn()
	expectCut(t, request, "a request")
	expectCut(t, stream, "a stream")
	verify.Slices(t, p.ends(), []string{"503 no_leader", "503 no_leader"}, "the lines of the access log")
}
