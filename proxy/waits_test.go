package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/test/verify"
)

// What a group of peers does with requests, also with those that it has.
type peerMode uint8

const (
	peersHang peerMode = iota
	peersAnswer
	peersBreak
)

// modalPeers are peers by HTTP/1.1 and HTTP/2 that all do the same. A request for an upgrade
// with the path /open is agreed to at once, and the mode is for the tunnel.
type modalPeers struct {
	t testing.TB

	mu sync.Mutex
	// mu guards the fields below.
	mode       peerMode
	changed    chan struct{} // closed when mode changes
	breakFirst bool          // the first request breaks, whatever the mode
	asked      map[string]int
	requests   int
	open       int // requests that have no end
}

func newModalPeers(t testing.TB) *modalPeers {
	return &modalPeers{t: t, changed: make(chan struct{}), asked: make(map[string]int)}
}

// start starts a peer and returns its address.
func (m *modalPeers) start() string {
	m.t.Helper()
	return startServer(m.t, func(w http.ResponseWriter, r *http.Request) {
		broken := m.enter(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
		defer m.leave()
		if broken {
			panic(http.ErrAbortHandler)
		}
		m.serve(w, r)
	})
}

func (m *modalPeers) enter(address string) (broken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open++
	m.requests++
	m.asked[address]++
	broken, m.breakFirst = m.breakFirst, false
	return broken
}

func (m *modalPeers) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open--
}

func (m *modalPeers) set(mode peerMode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mode = mode
	close(m.changed)
	m.changed = make(chan struct{})
}

// counts returns the requests so far, and those that have no end, in one view.
func (m *modalPeers) counts() (requests, open int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.requests, m.open
}

// await waits until the peers do not hang, or gone is closed.
func (m *modalPeers) await(gone <-chan struct{}) peerMode {
	for {
		m.mu.Lock()
		mode, changed := m.mode, m.changed
		m.mu.Unlock()
		if mode != peersHang {
			return mode
		}
		select {
		case <-changed:
		case <-gone:
			return peersHang
		}
	}
}

func (m *modalPeers) serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" {
		m.serveUpgrade(w, r)
		return
	}
	gone := make(chan struct{})
	end := sync.OnceFunc(func() { close(gone) })
	go func() { // the end of a connection is found where it is read
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			end()
			return
		}
		<-r.Context().Done()
		end()
	}()
	switch m.await(gone) {
	case peersBreak:
		// A read of the body that begins after the panic would keep net/http from closing the
		// connection.
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
		panic(http.ErrAbortHandler)
	case peersAnswer:
		if r.Header.Get("Content-Type") == "application/grpc" {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			return
		}
		w.Header().Set("Connection", "close")
		io.WriteString(w, "ok")
	}
}

// serveUpgrade takes the connection.
func (m *modalPeers) serveUpgrade(w http.ResponseWriter, r *http.Request) {
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		m.t.Error(err)
		return
	}
	defer conn.Close()
	gone := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(gone)
		io.Copy(io.Discard, buffered)
	})
	defer reading.Wait()
	defer conn.Close()
	agree := func() { io.WriteString(conn, switching(r.Header.Get("Sec-WebSocket-Key"))) }
	early := r.URL.Path == "/open"
	if early {
		agree()
	}
	switch m.await(gone) {
	case peersAnswer:
		if !early {
			agree()
		}
		io.WriteString(conn, "ok")
	case peersBreak:
		socket.ResetOnClose(conn.(socket.Conn))
	}
}

// A waitKind is a kind of exchange with its client.
type waitKind struct {
	name   string
	http2  bool // the peers use HTTP/2
	second bool // the first try breaks
	leaves bool // a peer whose checks fail
	stream bool // through a listener for TCP
	cut    bool // the client has the start of an answer, so that a failure cuts it
	// timeout is the reason if neither side does anything, if not upstream_timeout.
	timeout string
	client  func(p *testProxy) waitClient
}

// A waitClient is one exchange.
type waitClient interface {
	result() string // "ok", a reason, "cut", or "nothing" before the end of patience; at the end
	leave()
}

// A textClient uses HTTP/1.1.
type textClient struct {
	net.Conn
	switched bool // the head of a 101 was read
}

func sendText(request string) func(*testProxy) waitClient {
	return func(p *testProxy) waitClient {
		conn := p.send(request)
		return &textClient{Conn: conn}
	}
}

func (c *textClient) leave() {
	socket.ResetOnClose(c.Conn.(socket.Conn))
	c.Close()
}

// awaitSwitch reads the head of a 101.
func (c *textClient) awaitSwitch(t *testing.T) {
	r, err := http.ReadResponse(bufio.NewReader(oneByteReader{c.Conn}), nil)
	verify.Require(t, err == nil && r.StatusCode == 101, "got %v, %v", r, err)
	c.switched = true
}

func (c *textClient) result() string {
	var reader io.Reader = c.Conn
	r, err := &http.Response{StatusCode: 101}, error(nil)
	if !c.switched {
		buffered := bufio.NewReader(c.Conn)
		r, err = http.ReadResponse(buffered, nil)
		reader = buffered
	}
	if err == nil && r.Header.Get("X-Sluice-Reason") != "" {
		return r.Header.Get("X-Sluice-Reason")
	}
	var b []byte
	switch {
	case err != nil:
	case r.StatusCode == 101:
		b, err = io.ReadAll(reader)
	default:
		b, err = io.ReadAll(r.Body)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded): // of the test: neither an answer nor a cut
		return "nothing"
	case err != nil || r.StatusCode == 101 && len(b) == 0:
		return "cut"
	}
	return string(b)
}

// A grpcWaitClient opens a stream of gRPC, and does not end it.
type grpcWaitClient struct{ *frameClient }

func (c grpcWaitClient) leave() { c.conn.Close() }

func (c grpcWaitClient) result() string {
	r := c.response(1)
	switch {
	case r.grpc("grpc-status") == "0":
		return "ok"
	case r.header["x-sluice-reason"] != "":
		return r.header["x-sluice-reason"]
	}
	return fmt.Sprintf("%+v", r)
}

const waitHead = " HTTP/1.1\r\nHost: a\r\n"

// waitKinds are all waits for peers of requests.
func waitKinds() (kinds []waitKind) {
	get := sendText(getRequest)
	upload := sendText("PUT /" + waitHead + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	const upgrade = waitHead + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	for _, peers := range []bool{false, true} {
		name := map[bool]string{false: "", true: " to HTTP/2"}[peers]
		kinds = append(kinds,
			waitKind{name: "first try" + name, http2: peers, leaves: true, client: get},
			waitKind{name: "retry" + name, http2: peers, second: true, leaves: true, client: get},
			waitKind{name: "kept body" + name, http2: peers, leaves: true, client: sendText("PUT /" + waitHead + "Content-Length: 5\r\n\r\nhello")},
			waitKind{name: "not idempotent" + name, http2: peers, client: sendText("POST /" + waitHead + "Content-Length: 5\r\n\r\nhello")},
			waitKind{name: "upload" + name, http2: peers, timeout: "body_timeout", client: upload},
		)
	}
	return append(kinds,
		waitKind{name: "handshake of WebSocket", leaves: true, client: sendText("GET /" + upgrade)},
		waitKind{name: "WebSocket", cut: true, client: sendText("GET /open" + upgrade)},
		waitKind{name: "tunnel", cut: true, stream: true, client: sendText("GET /open" + upgrade)},
		waitKind{name: "stream of gRPC", http2: true, timeout: "body_timeout", client: func(p *testProxy) waitClient {
			c := p.dialFrames()
			c.request(1, grpcPost, false)
			return grpcWaitClient{c}
		}},
	)
}

// Every wait for a peer ends, for whatever reason, and leaves nothing behind. Before the end,
// in random order: no connection is free, which for HTTP/2 means no request in flight more, checks
// fail, peers come, and those that are asked are ejected or removed.
func TestEveryWaitEnds(t *testing.T) {
	t.Parallel()
	seed := verify.Seed(t)
	for k, kind := range waitKinds() {
		for e, end := range []string{"answer", "reset", "timeout", "client gone"} {
			t.Run(kind.name+"/"+end, func(t *testing.T) {
				t.Parallel()
				testWait(t, kind, end, rand.New(rand.NewPCG(seed, uint64(100*k+e))))
			})
		}
	}
}

func testWait(t *testing.T, kind waitKind, end string, random *rand.Rand) {
	peers := newModalPeers(t)
	peers.breakFirst = kind.second
	addresses := []string{peers.start(), peers.start(), peers.start(), peers.start()}
	last := peers.start() // of the set, which no request asks before the others are removed
	start := startProxy
	if kind.stream {
		start = startStreams
	}
	p := start(t, Options{})
	inSet := 2
	p.usePeers(kind.http2, someTransport, balancer.Options{Policy: balancer.PolicyRoundRobin, Limits: balancer.Limits{PeerConnections: 1, Pending: 1}}, addresses[:inSet]...)
	service := route.Service{Timeouts: defaultTimeouts(), ConnectionWait: patience, Retry: route.Retry{Attempts: 3, BodyBytes: 100}}
	service.Timeouts.Tunnel = patience
	service.Timeouts.Connect = 10_000 * time.Hour // the clock is skipped
	p.setService(service)

	var steps []string
	defer func() {
		if t.Failed() {
			t.Logf("steps: %q", steps)
		}
	}()
	var held []balancer.Token
	if random.IntN(2) == 0 { // all connections are in use; for the retry, but one
		steps = append(steps, "limit")
		n := inSet
		if kind.second {
			n--
		}
		for range n {
			token := verify.Result(p.pool.Pick(nil)).Must(t)
			held = append(held, token)
		}
	}
	release := sync.OnceFunc(func() {
		for _, token := range held {
			token.Done(balancer.Outcome{Class: balancer.OutcomeSuperseded})
		}
	})
	defer release()
	client := kind.client(p)
	if len(held) > 0 {
		eventually(t, "the request waits for a connection", func() bool { return p.pool.Admission.Pending() == 1 })
		if end == "client gone" && random.IntN(2) == 0 {
			steps = append(steps, "leave")
			client.leave()
			eventually(t, "it does not wait any more", func() bool { return p.pool.Admission.Pending() == 0 })
			release()
			peers.expectNothingOpen(p)
			return
		}
		release()
	}
	want := 1
	if kind.second {
		want = 2
	}
	eventually(t, "the peers are asked", func() bool { requests, _ := peers.counts(); return requests == want })
	if kind.cut {
		client.(*textClient).awaitSwitch(t)
	}
	for (end == "answer" && inSet == 2 || random.IntN(2) == 0) && inSet < len(addresses) {
		steps = append(steps, "suspicion")
		p.suspect(random)
		if random.IntN(2) == 0 {
			p.sweptFor(socket.SweepInterval) // there is no other peer yet
		}
		inSet++
		p.setPeers(addresses[:inSet]...)
		if kind.leaves {
			want++
			eventually(t, "another peer is asked", func() bool { requests, _ := peers.counts(); return requests == want })
		} else {
			break
		}
	}
	switch random.IntN(3) { // of the peers that are asked
	case 0:
		steps = append(steps, "ejection")
		for _, peer := range p.pool.Snapshot().All {
			if peer.Inflight() > 0 {
				p.pool.SetReasons(balancer.ReasonEjected, balancer.Verdict{Peer: peer, Down: true})
			}
		}
	case 1:
		steps = append(steps, "removal")
		p.setPeers(last)
	}
	steps = append(steps, end)
	expect := map[string]string{"answer": "ok", "reset": "upstream_reset", "timeout": "upstream_timeout"}[end]
	switch {
	case kind.cut && end != "answer":
		expect = "cut"
	case kind.timeout != "" && end == "timeout":
		expect = kind.timeout
	}
	result := make(chan string, 1)
	switch end {
	case "answer":
		peers.set(peersAnswer)
	case "reset":
		peers.set(peersBreak)
	case "client gone":
		client.leave()
		peers.expectNothingOpen(p)
		return
	}
	go func() { result <- client.result() }()
	var got string
	eventually(t, "the exchange ends", func() bool {
		if end == "timeout" {
			p.skip(patience)
		}
		select {
		case got = <-result:
			return true
		default:
			return false
		}
	})
	verify.Equal(t, got, expect, "got")
	client.leave()
	peers.expectNothingOpen(p)
	requests, _ := peers.counts()
	verify.That(t, kind.leaves || requests == want, "the peers have got it %d times, want %d", requests, want)
	if end == "answer" && !kind.second { // whose first peer breaks
		p.expectNothingCounted()
	}
}

// suspect has the checks of a peer with a request in flight fail.
func (p *testProxy) suspect(random *rand.Rand) {
	p.t.Helper()
	all := p.pool.Snapshot().All
	for _, i := range random.Perm(len(all)) {
		if peer := all[i]; peer.Inflight() > 0 && !peer.Has(balancer.ReasonActive) {
			p.pool.SetReasons(balancer.ReasonActive, balancer.Verdict{Peer: peer, Down: true})
			return
		}
	}
	p.t.Fatal("no peer is asked")
}

// expectNothingOpen waits until no attempt and no wait is in flight, and no peer has the
// request.
func (m *modalPeers) expectNothingOpen(p *testProxy) {
	p.t.Helper()
	eventually(p.t, "nothing is open", func() bool {
		_, open := m.counts()
		return open == 0 && p.inflight() == 0 && p.pool.Admission.Pending() == 0
	})
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
