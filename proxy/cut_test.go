package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/proxy/accesslog"
	"sluice/route"
	"sluice/test/verify"
)

// What sluice cuts is its own doing, in the access log and in the counts of the peer: neither the
// client has left, nor has the peer failed. Nor is it sent again.
func TestWhatIsCutBlamesNobody(t *testing.T) {
	t.Parallel()
	for n := range 8 {
		http2, peerHTTP2, drain := n&1 != 0, n&2 != 0, n&4 != 0
		t.Run(fmt.Sprintf("client's HTTP/2 %v, peer's %v, drain %v", http2, peerHTTP2, drain), func(t *testing.T) {
			t.Parallel()
			testCut(t, http2, peerHTTP2, drain)
		})
	}
}

func testCut(t *testing.T, http2, peerHTTP2, drain bool) {
	arrived := make(chan struct{}, 10)
	var address string
	if peerHTTP2 {
		address = startFramePeer(t, func(p *framePeer, stream uint32) {
			p.headers(stream, false, ":status", "103")
			arrived <- struct{}{}
		})
	} else {
		address = startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
			arrived <- struct{}{}
			io.ReadAll(c.Conn)
			return false
		})).address()
	}
	p := newUnmanagedProxy(t, Options{}).logged(accesslog.Options{Sample: 1})
	defer p.pool.Close()
	p.usePeers(peerHTTP2, someTransport, balancer.Options{Policy: balancer.PolicyRoundRobin, DrainTimeout: patience}, address)
	p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 3, BodyBytes: 1 << 16}})
	l, leave := p.serveUntil(ListenerOptions{Name: "drains", HTTP2: true})
	p.address = l.Addr().String()
	requests := []struct{ text, fields string }{
		{"GET /get HTTP/1.1\r\nHost: a\r\n\r\n", http2GetOf("/get")},
		{"PUT /put HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok", ":method=PUT|:scheme=http|:authority=a|:path=/put|content-length=2"},
		{"PUT /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", ":method=PUT|:scheme=http|:authority=a|:path=/chunked"},
		{"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc", ":method=POST|:scheme=http|:authority=a|:path=/post|content-length=100000"},
	}
	var c *frameClient
	if http2 {
		c = p.dialFrames()
	}
	for i, r := range requests {
		if http2 {
			id := uint32(2*i + 1)
			c.request(id, r.fields, i == 0)
			if i > 0 {
				c.WriteData(id, i == 1, []byte("ok"))
			}
		} else {
			p.send(r.text)
		}
		<-arrived
	}
	if drain {
		leave()
		p.Drain(l, 0, 20*time.Millisecond)
		eventually(t, "nothing is in flight", func() bool { return p.inflight() == 0 })
		verify.Succeeds(t, p.Shutdown(context.Background(), 0))
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		verify.Equal(t, p.Shutdown(ctx, 0), context.DeadlineExceeded, "shutdown")
	}
	var got []string
	for _, line := range p.lines() {
		verify.Equal(t, line.Attempts, 1, "tries of %s", line.Target)
		got = append(got, fmt.Sprint(line.Target, " ", line.Status, " ", line.Reason))
	}
	slices.Sort(got)
	verify.Slices(t, got, []string{"/chunked 503 drain_timeout", "/get 503 drain_timeout", "/post 503 drain_timeout", "/put 503 drain_timeout"}, "the access log")
	outcomes := p.pool.Snapshot().All[0].Outcomes()
	verify.Equal(t, int(outcomes[balancer.OutcomeLocal]), len(requests), "outcomes of sluice's own, of %v", outcomes)
}
