package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"sluice/balancer"
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
