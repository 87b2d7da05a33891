package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/test/verify"
)

const allowWeb = "consul intention create -allow -replace sluice web"

// requests that a denied service refuses alike.
var requestsToMesh = map[string]string{
	"GET":     closingRequest,
	"POST":    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
	"upload":  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\nConnection: close\r\n\r\n" + strings.Repeat("x", 200_000),
	"upgrade": "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
}

var denyModes = []denyMode{byAlert, inHandshake, byClose}

// eachDenial calls f beside the others for each of these ways to deny connections, and for each
// protocol of peers.
func eachDenial(t *testing.T, modes []denyMode, f func(t *testing.T, mode denyMode, http2 bool)) {
	for _, mode := range modes {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP2 %v", mode, http2), func(t *testing.T) {
				t.Parallel()
				f(t, mode, http2)
			})
		}
	}
}

// A request to a service that the intentions deny is answered 403 with both names, by one attempt,
// whatever way the peer has to deny it and whatever protocol it has; nobody is at fault. An allow
// counts for the next request.
func TestDeniedByIntentions(t *testing.T) {
	t.Parallel()
	eachDenial(t, denyModes, func(t *testing.T, mode denyMode, http2 bool) {
		consul, p := newConsulOfTest(), startProxy(t, Options{})
		peers := []*meshPeer{startMeshPeer(t, "web", mode, false), startMeshPeer(t, "web", mode, false)}
		p.useMesh(consul, http2, peers...)
		connections := func() int64 { return peers[0].accepted.Load() + peers[1].accepted.Load() }
		client := dialGRPC(t, p.address)
		p.expect(closingRequest, "200")
		p.turn(consul, true, peers...)
		want := uint64(0)
		for name, request := range requestsToMesh {
			before := connections()
			got, reason, body := p.ask(request)
			verify.That(t, got == 403 && reason == "intention" && strings.Contains(body, allowWeb), "%s: got %d %s %q", name, got, reason, body)
			verify.Equal(t, connections()-before, 1, "connections for %s", name)
			want++
		}
		if http2 {
			_, err := client.UnaryCall(patientContext(t), unary(0, 0))
			verify.That(t, status.Code(err) == codes.PermissionDenied && strings.Contains(err.Error(), allowWeb), "got %v", err)
			want++
		}
		p.expectNothingCounted()
		denied := uint64(0)
		for _, peer := range p.pool.Snapshot().All {
			denied += peer.Outcomes()[balancer.OutcomeDenied]
		}
		verify.Equal(t, denied, want, "attempts that were denied")

		p.turn(consul, false, peers...)
		p.expect(closingRequest, "200")
		if http2 {
			verify.Result(client.UnaryCall(patientContext(t), unary(0, 0))).Must(t)
		}
	})
}

// What denies connections in a peered cluster, whose intentions nobody here knows, is a failure of
// its instances: another one is tried, and the answer is 502.
func TestDeniedElsewhere(t *testing.T) {
	t.Parallel()
	eachDenial(t, denyModes, func(t *testing.T, mode denyMode, http2 bool) {
		want := "upstream_reset"
		if mode == inHandshake {
			want = "upstream_tls_failed"
		} else if http2 {
			// The peer has ended the connection before its SETTINGS.
			want = "connect_failed"
		}
		p := startProxy(t, Options{})
		peers := []*meshPeer{startMeshPeer(t, "web", mode, false), startMeshPeer(t, "web", mode, false)}
		for _, peer := range peers {
			peer.denies.Store(true)
		}
		p.useMesh(nil, http2, peers...)
		for range 2 {
			got, reason, _ := p.ask(closingRequest)
			verify.That(t, got == 502 && reason == want, "got %d %s", got, reason)
		}
		verify.That(t, peers[0].accepted.Load() > 0 && peers[1].accepted.Load() > 0, "one instance only was asked")
	})
}

// A peer that rejects sluice may know of the denial first: then the request waits for it. Where
// none comes, and for other failures of peers, requests are tried again as ever; those of a peer
// that cannot be reached are never explained by intentions.
func TestDenialThatComesLater(t *testing.T) {
	t.Parallel()
	eachDenial(t, []denyMode{byAlert, inHandshake}, func(t *testing.T, mode denyMode, http2 bool) {
		consul, p := newConsulOfTest(), startProxy(t, Options{})
		peer := startMeshPeer(t, "web", mode, false)
		p.useMesh(consul, http2, peer)
		peer.denies.Store(true)
		conn := p.send(getRequest)
		eventually(t, "the request waits for Consul", func() bool { return consul.waits.Load() == 1 })
		consul.say("web", true)
		expectResponse(t, conn, 403)
		p.expectNothingCounted()
	})
	eachCase(t, map[string]func(*consulOfTest, *meshPeer){
		"a peer that breaks off": func(_ *consulOfTest, bad *meshPeer) { bad.denies.Store(true) },
		"a peer that is not there": func(consul *consulOfTest, bad *meshPeer) {
			at := netip.MustParseAddrPort(nowhere[0])
			bad.Address, bad.Port = at.Addr().String(), int(at.Port())
			consul.say("web", true) // the good one does not know yet
		},
	}, func(t *testing.T, spoil func(*consulOfTest, *meshPeer)) {
		consul, p := newConsulOfTest(), startProxy(t, Options{})
		bad, good := startMeshPeer(t, "web", byClose, false), startMeshPeer(t, "web", byClose, false)
		spoil(consul, bad)
		p.useMesh(consul, false, bad, good)
		for range 4 {
			p.expect(closingRequest, "200")
		}
		verify.Equal(t, consul.waits.Load(), 0, "waits")
	})
}

// When the intentions begin to deny a service, its connections end with what is on them, and those
// to another service in the same pool stay.
func TestTurnToDenyEndsConnections(t *testing.T) {
	t.Parallel()
	eachCase(t, peerProtocols, func(t *testing.T, http2 bool) {
		consul, p := newConsulOfTest(), startLogged(t, Options{})
		web, other := startMeshPeer(t, "web", byClose, false), startMeshPeer(t, "other", byClose, false)
		p.useMesh(consul, http2, web, other)
		var conns []net.Conn // two with the same request are to different peers
		// An answer has begun when the client has a part of it. Before, it may be denied.
		begin := func(request string, answers bool) {
			for range 2 {
				before := web.begun.Load() + other.begun.Load()
				conn := p.send(request)
				eventually(t, "the request has begun", func() bool { return web.begun.Load()+other.begun.Load() == before+1 })
				if answers {
					verify.Result(conn.Read(make([]byte, 1))).Must(t)
				}
				conns = append(conns, conn)
			}
		}
		begin("POST /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false)
		begin("GET /long HTTP/1.1\r\nHost: a\r\n\r\n", true)
		ends := int64(2)
		if !http2 {
			begin("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", true)
			ends++
		}
		verify.Equal(t, web.begun.Load(), ends, "requests at the first")
		ended := make(chan string, len(conns))
		for _, conn := range conns {
			go func() {
				rest, _ := io.ReadAll(conn)
				ended <- string(rest)
			}()
		}
		p.turn(consul, true, web)

		refused := 0
		for range ends {
			// It is the one without an answer.
			if strings.HasPrefix(<-ended, "HTTP/1.1 403 ") {
				refused++
			}
		}
		verify.Equal(t, refused, 1, "requests were refused")
		eventually(t, "nothing of the first is in flight", func() bool { return p.inflight() == int(ends) })
		verify.Equal(t, len(ended), 0, "requests to the other service have ended")
		p.turn(consul, false, web)
		p.expect(closingRequest, "200")
		p.expect(closingRequest, "200")
		p.expectNothingCounted()
		for _, conn := range conns {
			conn.Close()
		}
		reasons := 0
		for _, line := range p.lines() {
			if line.Reason == "intention" {
				reasons++
			}
		}
		verify.Equal(t, reasons, int(ends), "lines of the log with the reason")
	})
}

// askedDenial counts the questions why the mesh has ended a connection, each of which may wait.
type askedDenial struct {
	upstream.Connector
	asked atomic.Int64
}

func (c *askedDenial) Denial(err error, waiting func(time.Duration) (context.Context, context.CancelFunc)) *discovery.Denial {
	c.asked.Add(1)
	return c.Connector.Denial(err, waiting)
}

// Nobody asks, nor waits, why a peer has ended an answer when sluice has cut it.
func TestDenialOfCutAnswer(t *testing.T) {
	t.Parallel()
	for _, cut := range []bool{false, true} {
		p := startProxy(t, Options{})
		peer := startServer(t, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
			p.cutting.Store(cut)
			panic(http.ErrAbortHandler)
		})
		var asked *askedDenial
		usual := p.NewTransport(someTransport)
		p.reconfigure(balancer.Options{NewTransport: func(of *balancer.Peer) balancer.Transport {
			asked = &askedDenial{Connector: usual(of).(upstream.Connector)}
			return asked
		}})
		p.setPeers(peer)
		p.setService(*p.service)
		conn := p.send(closingRequest)
		_, _ = io.Copy(io.Discard, conn)
		eventually(t, "the request has ended", func() bool { return p.inflight() == 0 })
		verify.That(t, (asked.asked.Load() == 0) == cut, "cut %v: asked %d times", cut, asked.asked.Load())
	}
}

// A connection of a listener for TCP to a denied service ends, with status 403 in the log, and so
// does one that was open, with status 200.
func TestDeniedStream(t *testing.T) {
	t.Parallel()
	for _, mode := range denyModes {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			consul, p := newConsulOfTest(), startLogged(t, Options{})
			peer := startMeshPeer(t, "web", mode, true)
			p.useMesh(consul, false, peer)
			p.address = p.serveWith(ListenerOptions{Name: "db", Streams: p.target})
			open := p.stream()
			io.WriteString(open, "hello")
			expectNext(t, open, "hello")
			p.turn(consul, true, peer)
			_, _ = io.ReadAll(open)
			open.Close()
			if denied, err := net.Dial("tcp", p.address); err == nil { // else it was reset before the dialer looked
				denied.SetDeadline(time.Now().Add(patience))
				io.WriteString(denied, "hello")
				got, _ := io.ReadAll(denied)
				denied.Close()
				verify.Equal(t, len(got), 0, "bytes of the peer")
			}
			p.expectNothingCounted()
			lines := p.lines()
			verify.That(t, len(lines) == 2 && lines[0].Status == 200 && lines[1].Status == 403 && lines[0].Reason == "intention" && lines[1].Reason == "intention", "lines %+v", lines)
		})
	}
}

// ask sends a request on a connection of its own, and returns the status of its answer, with 101 as
// 200, its reason and its body; 0: there is no answer.
func (p *testProxy) ask(request string) (status int, reason, body string) {
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		return 0, "", ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	go io.WriteString(conn, request)
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	switch {
	case err != nil:
		return 0, "", ""
	case r.StatusCode == 101:
		return 200, "", ""
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	return r.StatusCode, r.Header.Get("X-Sluice-Reason"), string(text)
}

// While intentions of several services turn, with requests of all kinds and retries, each answer is
// right: 200 or the peer's bytes where the service is allowed, 403 where it is denied, either
// around a turn, and nothing else ever.
func TestIntentionsTurnUnderLoad(t *testing.T) {
	t.Parallel()
	seed := verify.Seed(t)
	consul := newConsulOfTest()
	type service struct {
		proxy  *testProxy
		peers  []*meshPeer
		http2  bool
		asking sync.RWMutex // held by a request
		// turns is odd during a turn, and then again even; its second bit is what holds.
		turns atomic.Int64
		done  [2]atomic.Int64 // answers while it was allowed, and denied
	}
	var services []*service
	for n := range 4 {
		s := &service{proxy: startProxy(t, Options{}), http2: n%2 == 1}
		for range 2 {
			s.peers = append(s.peers, startMeshPeer(t, fmt.Sprint("web", n), denyModes[n%len(denyModes)], false))
		}
		s.proxy.useMesh(consul, s.http2, s.peers...)
		s.proxy.setService(route.Service{Retry: route.Retry{Attempts: 3}})
		services = append(services, s)
	}
	var requests []string
	for _, request := range requestsToMesh {
		requests = append(requests, request)
	}
	var asking sync.WaitGroup
	stop := make(chan struct{})
	for n, s := range services {
		for worker := range 3 {
			asking.Go(func() {
				random := rand.New(rand.NewPCG(seed, uint64(10*n+worker)))
				client := dialGRPC(t, s.proxy.address)
				for {
					select {
					case <-stop:
						return
					default:
					}
					s.asking.RLock()
					before := s.turns.Load()
					var got int
					if s.http2 && random.IntN(3) == 0 {
						_, err := client.UnaryCall(patientContext(t), &grpc_testing.SimpleRequest{})
						got = map[codes.Code]int{codes.OK: 200, codes.PermissionDenied: 403}[status.Code(err)]
						if got == 0 {
							t.Errorf("web%d: %v", n, err)
						}
					} else {
						got, _, _ = s.proxy.ask(requests[random.IntN(len(requests))])
					}
					after := s.turns.Load()
					s.asking.RUnlock()
					switch {
					case got != 200 && got != 403:
						t.Errorf("web%d: status %d", n, got)
					case before != after || before&1 != 0: // around a turn
					case (got == 403) != (before&2 != 0):
						t.Errorf("web%d: status %d, denied %v", n, got, before&2 != 0)
					default:
						s.done[before>>1&1].Add(1)
					}
				}
			})
		}
	}
	random := rand.New(rand.NewPCG(seed, 1000))
	for range 16 {
		s := services[random.IntN(len(services))]
		held := s.turns.Add(1) >> 1 & 1 // what held until now
		s.proxy.turn(consul, held == 0, s.peers...)
		if held != 0 { // a peer may have denied a connection, and sluice not know yet
			s.asking.Lock()
			s.proxy.cut(s.peers[0].Service)
			eventually(t, "no connection is left", func() bool { return s.proxy.peerConnections() == 0 })
			s.asking.Unlock()
		}
		before := s.done[1-held].Load()
		s.turns.Add(1)
		eventually(t, "answers after the turn", func() bool { return s.done[1-held].Load() > before+2 || t.Failed() })
	}
	close(stop)
	asking.Wait()
	for _, s := range services {
		s.proxy.expectNothingCounted()
		eventually(t, "nothing is in flight", func() bool { return s.proxy.inflight() == 0 })
		for _, peer := range s.proxy.pool.Snapshot().All {
			verify.Equal(t, peer.State(), balancer.StateUp, "state")
		}
	}
}
