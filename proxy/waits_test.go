package proxy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/test/verify"
)

// A request leaves a peer whose checks fail as soon as there is another one, if it may be sent twice.
// Package attempt has what peers do meanwhile.
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
