package proxy

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/observe/metrics"
	"sluice/route"
	"sluice/test/verify"
)

// A mirrorTest is a proxy whose requests are copied to another service.
type mirrorTest struct {
	*testProxy
	mirror      *balancer.Pool
	mirrorHTTP2 bool // the protocol of the mirror
	copies      *route.Copies
}

// startMirror has p copy requests to a mirror at these addresses, by HTTP/2 or HTTP/1.1, whose
// requests are those of m.
func startMirror(t testing.TB, p *testProxy, m route.Mirror, actions *route.Actions, http2 bool, mirrors ...string) *mirrorTest {
	t.Helper()
	service := p.newService("next", balancer.Options{NewTransport: p.NewTransport(someTransport)}, mirrors...)
	mt := &mirrorTest{p, service.Pool, http2, route.NewCopies("star", "next", "")}
	mt.setMirror(m, actions)
	return mt
}

// setMirror sets the mirror of all requests. What m leaves open allows everything.
func (p *mirrorTest) setMirror(m route.Mirror, actions *route.Actions) {
	p.t.Helper()
	m.Share, m.InFlight = cmp.Or(m.Share, 1), cmp.Or(m.InFlight, 1000)
	m.Service = route.MirrorService(&route.Service{
		Name: "next", Pool: p.mirror, HTTP2: p.mirrorHTTP2, Timeouts: route.Timeouts{Connect: patience, ResponseHeader: time.Hour, Idle: time.Hour}, Affinity: &route.Affinity{Cookie: "c"},
		Retry: route.Retry{Attempts: 3},
	})
	m.Actions, m.Copies = route.MirrorActions(actions, "star"), p.copies
	p.setRoutes(route.Route{Path: "/", Service: p.service, Actions: actions, Mirror: &m})
}

// ended waits until so many copies were sent, and none is in flight.
func (p *mirrorTest) ended(sent int) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%d copies", sent), func() bool {
		return p.copies.InFlight() == 0 && p.sent() >= sent
	})
	verify.Equal(p.t, p.sent(), sent, "copies were sent")
}

func (p *mirrorTest) sent() int {
	answers := p.copies.Answers().Snapshot()
	return int(answers.Total())
}

// expectDropped checks how many copies were dropped, one for each of these reasons.
func (p *mirrorTest) expectDropped(reasons ...route.Dropped) {
	p.t.Helper()
	want := make(map[route.Dropped]uint64)
	for _, reason := range reasons {
		want[reason]++
	}
	for why, n := range p.copies.Dropped() {
		verify.Equal(p.t, n, want[route.Dropped(why)], "copies dropped by %v", route.Dropped(why))
	}
}

// sight is what a server got.
type sight struct{ request, body, mark string }

// recording answers with 200, and passes on what it got.
func recording(t testing.TB, got chan<- sight) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		verify.That(t, err == nil, "body: %v", err)
		got <- sight{
			fmt.Sprintf("%s %s %s %s %s", r.Method, r.URL, r.Host, r.Header.Get("X-Mine"), r.Header.Get("X-Forwarded-For")),
			string(body), r.Header.Get(route.MirrorField),
		}
		w.Write(body)
	}
}

// A copy has the method, target, fields and body that the peer of the service gets, over all
// protocols and for all ways in which a body arrives.
func TestCopyIsIdentical(t *testing.T) {
	eachCase(t, map[string]bool{"HTTP/1": false, "HTTP/2": true}, func(t *testing.T, http2 bool) {
		got, copied := make(chan sight, 1), make(chan sight, 1)
		p := startProxy(t, Options{}, startServer(t, recording(t, got)))
		p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 3, BodyBytes: 20 << 10}})
		const most = 200 << 10
		mt := startMirror(t, p, route.Mirror{BodyBytes: most}, &route.Actions{
			Path: pathEdits(t, route.PathOptions{Strip: "/api", Add: "/v1"}), Host: "app.internal",
			RequestHeaders:  headerEdits(t, map[string]string{"X-Mine": "$host $path"}, nil),
			ResponseHeaders: headerEdits(t, map[string]string{"X-Theirs": "1"}, nil),
		}, http2, startServer(t, recording(t, copied)))
		sent, tooLong := 0, 0
		for _, client := range []*http.Client{{Transport: new(http.Transport), Timeout: patience}, http2Client(t)} {
			defer client.CloseIdleConnections()
			for _, length := range []int{0, 1, 1000, 15 << 10, 19 << 10, 21 << 10, 100 << 10, most, most + 1, 1 << 20} {
				for _, chunked := range []bool{false, true} {
					want := strings.Repeat("0123456789", (length+9)/10)[:length]
					var body io.Reader = strings.NewReader(want)
					if chunked {
						body = io.MultiReader(body)
					}
					request, _ := http.NewRequest("PUT", "http://"+p.address+"/api/x%20y?q=1", body)
					request.Header.Set("X-Mine", "from the client")
					request.Header.Set(route.MirrorField, "forged")
					response := verify.Result(client.Do(request)).Must(t)
					answer, err := io.ReadAll(response.Body)
					response.Body.Close()
					original := <-got
					verify.Require(t, err == nil && string(answer) == want && original.body == want && original.mark == "" && response.Header.Get("X-Theirs") == "1",
						"%d bytes, chunked %v: answer of %d bytes, %v; the peer got %q, mark %q", length, chunked, len(answer), err, original.request, original.mark)
					if length > most {
						tooLong++
						continue
					}
					sent++
					c := <-copied
					verify.That(t, c.request == original.request && c.body == want && c.mark == "star", "%d bytes, chunked %v: the mirror got %q, %d bytes, mark %q, the peer %q", length, chunked, c.request, len(c.body), c.mark, original.request)
					edited := strings.HasPrefix(c.request, "PUT /v1/x%20y?q=1 app.internal ")
					verify.That(t, edited && strings.HasSuffix(c.request, " 127.0.0.1"), "the mirror got %q", c.request)
				}
			}
		}
		mt.ended(sent)
		mt.expectDropped(slices.Repeat([]route.Dropped{route.DroppedBodyTooLong}, tooLong)...)
		verify.Equal(t, mt.copies.Failed(), 0, "copies failed")
	})
}

// Whatever a mirror does, clients get the answers of the service at once, and not more copies
// than allowed are in flight.
func TestMirrorDisturbsNobody(t *testing.T) {
	const long = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
	then := func(answer string, end func(*originConn)) func(*originConn) bool {
		return afterRequest(func(c *originConn) bool { c.write(answer); end(c); return false })
	}
	closes, waits := func(*originConn) {}, func(c *originConn) { io.Copy(io.Discard, c.Conn) }
	type test struct {
		mirror func(*originConn) bool // nil: nobody listens
		failed uint64                 // of 20 copies
		hangs  bool                   // three are sent, and have no end
	}
	eachCase(t, map[string]test{
		"dead":        {nil, 20, false},
		"hanging":     {hanging, 0, true},
		"resetting":   {then("", closes), 20, false},
		"failing":     {answering("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), 0, false},
		"no HTTP":     {answering("no HTTP\r\n\r\n"), 20, false},
		"cut":         {then(long+strings.Repeat("x", 50_000), closes), 20, false},
		"switches":    {answering("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), 20, false},
		"interim":     {answering("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + okResponse), 0, false},
		"much":        {answering(long + strings.Repeat("x", 100_000)), 0, false},
		"silent":      {func(c *originConn) bool { waits(c); return false }, 0, true},
		"half a head": {then("HTTP/1.1 200 OK\r\n", waits), 0, true},
		"endless": {then("HTTP/1.1 200 OK\r\n\r\n", func(c *originConn) { // is read no further than a bounded number of bytes
			for c.write(strings.Repeat("x", 1<<16)) {
			}
		}), 0, false},
	}, func(t *testing.T, test test) {
		p := startProxy(t, Options{}, answersOK(t))
		address, mirror := nowhere[0], (*origin)(nil)
		if test.mirror != nil {
			mirror = startOrigin(t, test.mirror)
			address = mirror.address()
		}
		mt := startMirror(t, p, route.Mirror{InFlight: 3, BodyBytes: 100}, nil, false, address)
		conn := p.dial()
		for range 20 {
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
			expectResponse(t, conn, 200, "ok")
			if !test.hangs {
				eventually(t, "the end of the copy", func() bool { return mt.copies.InFlight() == 0 })
			}
		}
		if test.hangs {
			verify.Equal(t, mt.copies.InFlight(), 3, "copies in flight")
			mirror.close()
			eventually(t, "the end of the copies", func() bool { return mt.copies.InFlight() == 0 })
			mt.expectDropped(slices.Repeat([]route.Dropped{route.DroppedInFlight}, 17)...)
		} else {
			mt.ended(20)
			verify.Equal(t, mt.copies.Failed(), test.failed, "copies failed")
			mt.expectDropped()
		}
		eventually(t, "20 counted requests", func() bool { requests := p.pool.Requests.Snapshot(); return requests.Total() == 20 })
		requests, others := p.pool.Requests.Snapshot(), mt.mirror.Requests.Snapshot()
		verify.That(t, requests.Class(metrics.Class2xx) == 20 && requests.Retries == 0 && others.Total() == 0,
			"%d answers of the class 2xx, %d retries, %d copies that count as requests to their service", requests.Class(metrics.Class2xx), requests.Retries, others.Total())
		p.expectNothingCounted()
	})
}

// The peer of a mirror has the outcomes of copies, which are made of the share of requests.
func TestCopiesCountForTheirPeer(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, answersOK(t))
	mt := startMirror(t, p, route.Mirror{Share: .25}, nil, false, nowhere[0])
	const requests = 100
	for range requests {
		p.get("/")
	}
	eventually(t, "the end of the copies", func() bool { return mt.copies.InFlight() == 0 })
	n, o, answers := mt.sent(), mt.mirror.Snapshot().All[0].Outcomes(), mt.copies.Answers().Snapshot()
	verify.That(t, n >= requests/4-3 && n <= requests/4+3, "%d of %d requests were copied", n, requests)
	verify.That(t, o[balancer.OutcomeConnectFailure] == uint64(n) && answers.Class(metrics.Class5xx) == uint64(n), "outcomes %v and statuses %v, want %d connect failures", o, answers.Ended, n)
}

const halfAChunkedBody = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"

// Upgrades, streams of gRPC and copies are not copied, and neither is a body that no peer got, or
// one that no peer takes. Without a peer of the mirror there are none.
func TestNotCopied(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{TrustedProxies: loopback}, origin.address())
	mirror := startOrigin(t, answering(okResponse))
	mt := startMirror(t, p, route.Mirror{BodyBytes: 1000}, nil, false, mirror.address())

	p.get("/", "Connection: upgrade", "Upgrade: websocket")
	mt.expectDropped(route.DroppedProtocol)

	answer, _ := p.get("/", "X-Sluice-Mirror: other")
	verify.Contains(t, origin.got(), "\r\nX-Sluice-Mirror: other\r\n", "a trusted proxy's mark was removed; answer %q", answer)
	mt.expectDropped(route.DroppedProtocol, route.DroppedMirrored)

	conn := p.send(halfAChunkedBody)
	eventually(t, "a copy waits for the body", func() bool { return strings.Contains(origin.got(), "abc") && mt.copies.InFlight() == 1 })
	conn.Close()
	mt.ended(0)
	p.setPeers(nowhere[0])
	expectResponse(t, p.send(halfAChunkedBody), 502)
	mt.ended(0)
	p.setPeers(origin.address())
	mt.mirror.Apply(nil)
	p.get("/")
	mt.ended(0)
	mt.expectDropped(route.DroppedProtocol, route.DroppedMirrored, route.DroppedBodyIncomplete, route.DroppedBodyIncomplete, route.DroppedNoPeer)
	verify.Equal(t, mirror.got(), "", "the mirror")
}

// One client's slow uploads take an eighth of the places of copies, and the copies of others go on.
func TestSlowUploadsLeaveCopiesToOthers(t *testing.T) {
	t.Parallel()
	p := startProxy(t, Options{}, answersOK(t))
	mt := startMirror(t, p, route.Mirror{BodyBytes: 1000, InFlight: 16}, nil, false, answersOK(t))
	waiting := func(n int, dropped uint64) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d copies wait", n), func() bool {
			return mt.copies.InFlight() == n && mt.copies.Dropped()[route.DroppedInFlight] == dropped
		})
	}
	first := p.send(halfAChunkedBody)
	waiting(1, 0)
	for range 19 {
		p.send(halfAChunkedBody)
	}
	waiting(2, 18)
	p.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
	eventually(t, "a whole request is copied", func() bool { return mt.sent() == 1 })
	io.WriteString(p.dialFrom("127.0.0.2"), halfAChunkedBody)
	waiting(3, 18)
	io.WriteString(first, "0\r\n\r\n")
	first.Close()
	waiting(2, 18)
	p.send(halfAChunkedBody)
	waiting(3, 18)
}

// Shutdown waits shortly for copies, and cuts those that hang.
func TestShutdownCutsCopies(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]bool{"hanging": false, "slow": true}, func(t *testing.T, proceeds bool) {
		arrived, proceed := make(chan struct{}), make(chan struct{})
		mirror := startOrigin(t, afterRequest(func(c *originConn) bool {
			close(arrived)
			if proceeds {
				<-proceed
				io.WriteString(c.Conn, okResponse)
			}
			io.Copy(io.Discard, c.Conn)
			return false
		}))
		p := newUnmanagedProxy(t, Options{}, answersOK(t))
		mt := startMirror(t, p, route.Mirror{}, nil, false, mirror.address())
		p.get("/")
		<-arrived
		ended, begin := make(chan error, 1), time.Now()
		go func() { ended <- p.Shutdown(context.Background(), 0) }()
		close(proceed)
		verify.Succeeds(t, <-ended)
		verify.Equal(t, mt.copies.InFlight(), 0, "copies in flight after the shutdown")
		cut := !proceeds || time.Since(begin) >= copiesGrace // the machine may stand still
		failed := mt.copies.Failed()
		verify.That(t, (failed != 0 || proceeds) && (failed <= 0 || cut), "%d copies failed", failed)
		p.pool.Close()
	})
}

// Copies of unary calls of gRPC are sent, those of streams are not.
func TestCopiesOfGRPC(t *testing.T) {
	t.Parallel()
	got := make(chan sight, 8)
	origin := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "0")
	})
	mirror := startServer(t, recording(t, got))
	p := startProxyToH2C(t, origin)
	mt := startMirror(t, p, route.Mirror{BodyBytes: 1000}, nil, true, mirror)
	call := func(body io.Reader) {
		t.Helper()
		request, _ := http.NewRequest("POST", "http://"+p.address+"/service/method", body)
		request.Header.Set("Content-Type", "application/grpc")
		request.Header.Set("TE", "trailers")
		response := verify.Result(http2Client(t).Do(request)).Must(t)
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	call(strings.NewReader("whole"))
	c := <-got
	verify.That(t, c.body == "whole", "the mirror got %q", c.body)
	reader, writer := io.Pipe()
	go func() {
		io.WriteString(writer, "first")
		eventually(t, "the stream is not copied", func() bool { return mt.copies.Dropped()[route.DroppedProtocol] == 1 })
		writer.Close()
	}()
	call(reader)
	mt.ended(1)
	mt.expectDropped(route.DroppedProtocol)
}
