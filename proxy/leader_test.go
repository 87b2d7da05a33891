package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/proxy/accesslog"
	"sluice/test/verify"
)

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
