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

	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/config/units"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/test/verify"
)

// A peer that dies before the end of a short response, or sends a malformed one,
// is no different from one that never answered, as long as the client has got
// nothing and the request may be sent twice: it goes to another peer. Any other request gets what
// there is of the answer if the head is whole, else a 502.
func TestPeerThatDiesWhileItAnswers(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
	large := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", 10*socket.ResponseBufferBytes)
	type test struct {
		method string
		parts  []string // of the response, sent one after the other
		reset  bool     // the peer's end
		status int      // 0: the client gets what there is
	}
	eachCase(t, map[string]test{
		"closed":                          {"GET", []string{head}, false, 200},
		"reset":                           {"GET", []string{head}, true, 200},
		"within the body":                 {"GET", []string{head, "abc"}, false, 200},
		"within the body, in one piece":   {"GET", []string{head + "abc"}, false, 200},
		"before a large body":             {"GET", []string{large}, false, 200},
		"within the head":                 {"GET", []string{head[:20]}, false, 200},
		"not idempotent":                  {"POST", []string{head, "abc"}, false, 0},
		"not idempotent, within the head": {"POST", []string{head[:20]}, false, 502},
		"not idempotent, malformed":       {"POST", []string{"nonsense\r\n"}, false, 502},
		"after an interim response":       {"GET", []string{"HTTP/1.1 103 Early Hints\r\n\r\n" + head}, false, 0},
	}, func(t *testing.T, test test) {
		var dying atomic.Bool
		serve := afterRequest(func(c *originConn) bool {
			if !dying.CompareAndSwap(true, false) { // one of the two dies
				return c.write(okResponse)
			}
			for _, part := range test.parts {
				io.WriteString(c.Conn, part)
				time.Sleep(time.Millisecond)
			}
			if test.reset {
				c.Conn.(*net.TCPConn).SetLinger(0)
			}
			return false
		})
		a, b := startOrigin(t, serve), startOrigin(t, serve)
		p := startProxy(t, Options{}, a.address(), b.address())
		// How long the two parts are apart is up to a machine that may be
		// starved: so some of the tries may find the head passed on.
		tries, whole := uint64(0), 0
		for end := time.Now().Add(patience / 2); tries < 5 || whole == 0 && time.Now().Before(end); tries++ {
			dying.Store(true)
			answer := p.raw(test.method + " / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			if _, final, ok := strings.Cut(answer, "103 Early Hints\r\n\r\n"); ok {
				answer = final
			}
			if test.status == 0 {
				if strings.Contains(answer, "\r\nContent-Length: 10\r\n") && !strings.HasSuffix(answer, "ok") {
					whole++
				}
				continue
			}
			switch want := fmt.Sprintf("HTTP/1.1 %d ", test.status); {
			case strings.HasPrefix(answer, want) && !strings.HasSuffix(answer, "\r\n\r\n") && !strings.HasSuffix(answer, "abc"):
				whole++
			case strings.HasPrefix(answer, "HTTP/1.1 200 "):
			default:
				t.Errorf("got %q, want a whole response of status %d", answer, test.status)
			}
		}
		verify.That(t, whole != 0, "the client got the head of each response that was cut short")
		// The client has its answer a moment before the attempt has ended.
		eventually(t, "nothing in flight", func() bool { return p.inflight() == 0 })
		failed := uint64(0)
		for _, peer := range p.pool.Snapshot().All {
			failed += peer.Outcomes()[balancer.OutcomeReset]
		}
		verify.Equal(t, failed, tries, "failures were noted")
	})
}

// An app that sends a head and then closes has answered: where no other peer may be asked, or none
// has done better, the client gets the app's status and what there is of the body, and then the end
// of its connection.
func TestBrokenOffAnswerKeepsItsStatus(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]string{
		"head":             "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 999\r\n\r\n",
		"head and a part":  "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 999\r\n\r\noops",
		"no chunk":         "HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\n\r\n",
		"a part of chunks": "HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\n\r\n4\r\noops\r\n",
	}, func(t *testing.T, head string) {
		var asked atomic.Int64
		broken := afterRequest(func(c *originConn) bool {
			asked.Add(1)
			io.WriteString(c.Conn, head)
			return false
		})
		p := startProxy(t, Options{}, startOrigin(t, broken).address(), startOrigin(t, broken).address())
		for _, method := range []string{"GET", "POST"} {
			asked.Store(0)
			answer := p.expect(method+" / HTTP/1.1\r\nHost: a\r\n\r\n", "500 Internal Server")
			verify.Equal(t, strings.Contains(answer, "oops"), strings.Contains(head, "oops"), "%s: the body is there", method)
			verify.That(t, !strings.HasSuffix(answer, "0\r\n\r\n"), "%s: the answer looks whole", method)
			if method == "GET" && strings.Contains(head, "Content-Length") {
				verify.Equal(t, asked.Load(), int64(2), "peers that were asked")
			}
		}
		r := p.dialFrames().ask(1, http2Post)
		verify.That(t, r.status == "500" && !r.ended && r.reset != xhttp2.ErrCodeNo, "a client with HTTP/2 got %+v", r)
	})
}

// The same from peers with HTTP/2, which reset the stream.
func TestBrokenOffStreamKeepsItsStatus(t *testing.T) {
	t.Parallel()
	for _, fields := range [][]string{{":status", "500"}, {":status", "500", "content-length", "999"}} {
		for _, body := range []string{"", "oops"} {
			p := startProxyToH2C(t, startFramePeer(t, func(p *framePeer, stream uint32) {
				p.headers(stream, false, fields...)
				if body != "" {
					p.WriteData(stream, false, []byte(body))
				}
				p.WriteRSTStream(stream, xhttp2.ErrCodeInternal)
			}))
			answer := p.expect(getRequest, "500")
			verify.That(t, !strings.HasSuffix(answer, "0\r\n\r\n"), "%v %q: the answer looks whole: %q", fields, body, answer)
		}
	}
}

// A refusingPeer refuses some streams, after their head, after a part of their body, or after all
// of it, and answers the others with their body.
type refusingPeer struct {
	refuse  func(p *framePeer, stream uint32)
	when    string // "head", "part" or "end"
	asks    bool   // for the body, by a 100
	left    atomic.Int64
	refused chan struct{}

	mu     sync.Mutex
	bodies map[*framePeer]map[uint32]string
}

func (r *refusingPeer) frame(p *framePeer, frame xhttp2.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, at := frame.Header().StreamID, "head"
	ends := false
	switch f := frame.(type) {
	case *xhttp2.HeadersFrame:
		if r.bodies[p] == nil {
			r.bodies[p] = make(map[uint32]string)
		}
		r.bodies[p][id] = ""
	case *xhttp2.DataFrame:
		if _, ok := r.bodies[p][id]; !ok {
			return // it was refused
		}
		r.bodies[p][id] += string(f.Data())
		if ends, at = f.StreamEnded(), "part"; ends {
			at = "end"
		}
	default:
		return
	}
	if at == r.when && r.left.Add(-1) >= 0 {
		delete(r.bodies[p], id)
		r.refuse(p, id)
		r.refused <- struct{}{}
		return
	}
	if at == "head" && r.asks {
		p.headers(id, false, ":status", "100")
	}
	if ends {
		p.headers(id, false, ":status", "200")
		p.WriteData(id, true, []byte(r.bodies[p][id]))
	}
}

// A request that a peer has not processed is sent again with its body also if nobody knew how long
// that is, and whatever has arrived of it meanwhile; and one whose client waits for a 100 also if
// nothing of it is kept.
func TestBodyOfUnknownLengthIsSentAgain(t *testing.T) {
	t.Parallel()
	refusals := map[string]func(p *framePeer, stream uint32){
		"REFUSED_STREAM": func(p *framePeer, stream uint32) { p.WriteRSTStream(stream, xhttp2.ErrCodeRefusedStream) },
		"GOAWAY":         func(p *framePeer, stream uint32) { p.WriteGoAway(stream-1, xhttp2.ErrCodeNo, nil) },
	}
	type test struct {
		refuse  func(p *framePeer, stream uint32)
		when    string
		expects bool // the client waits for a 100
	}
	tests := make(map[string]test)
	for name, refuse := range refusals {
		for _, when := range []string{"head", "part", "end"} {
			tests[name+" after the "+when] = test{refuse, when, false}
		}
		tests[name+" before the body"] = test{refuse, "head", true}
	}
	eachCase(t, tests, func(t *testing.T, test test) {
		r := &refusingPeer{refuse: test.refuse, when: test.when, asks: test.expects, refused: make(chan struct{}, 2), bodies: make(map[*framePeer]map[uint32]string)}
		p := startProxyToH2C(t, startFramePeerWith(t, framePeerOptions{frame: r.frame, answer: func(*framePeer, uint32) {}}))
		kept, field1, field2, times := units.Size(1<<10), "", "", 1 // times: refusals
		if test.expects {
			kept, field1, field2, times = 0, "Expect: 100-continue\r\n", "|expect=100-continue", 2
		}
		p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 1, BodyBytes: kept}})
		// between is called after the first part was sent.
		between := func() {
			for n := 0; n < times && test.when != "end"; n++ {
				<-r.refused
			}
		}
		conn := p.dial()
		in := bufio.NewReader(conn)
		for range 2 {
			r.left.Store(int64(times))
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\n"+field1+"Transfer-Encoding: chunked\r\n\r\n")
			if test.expects {
				expectNext(t, in, "HTTP/1.1 100 \r\n\r\n")
			}
			io.WriteString(conn, "6;x=1\r\nhello \r\n")
			between()
			io.WriteString(conn, "5\r\nworld\r\n0\r\n\r\n")
			response := verify.Result(http.ReadResponse(in, nil)).Must(t)
			body, err := io.ReadAll(response.Body)
			verify.That(t, err == nil && response.StatusCode == 200 && string(body) == "hello world", "got %d %q, %v", response.StatusCode, body, err)
			if test.when == "end" {
				<-r.refused
			}
		}
		c := p.dialFrames()
		for id := uint32(1); id < 5; id += 2 {
			r.left.Store(int64(times))
			c.request(id, http2Post+field2, false)
			if test.expects {
				f, ok := c.read().(*xhttp2.MetaHeadersFrame)
				verify.Require(t, ok && f.PseudoValue("status") == "100", "got %v before the body", f)
			}
			c.WriteData(id, false, []byte("hello "))
			between()
			c.WriteData(id, true, []byte("world"))
			got := c.response(id)
			verify.That(t, got.status == "200" && got.body == "hello world", "got %+v", got)
			if test.when == "end" {
				<-r.refused
			}
		}
		conn.Close()
		c.conn.Close()
		eventually(t, "no memory is kept", func() bool { return p.keptBodies.Taken() == 0 })
		p.expectNothingCounted()
	})
}
