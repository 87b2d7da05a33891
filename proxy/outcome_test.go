package proxy

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/healthcheck"
	"sluice/proxy/grpc"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// Peers of TestWhatClientsDoIsNotCounted.

// expecting asks for the body where the client waits for that.
var expecting = withHead(func(c *originConn, r *http.Request) bool {
	c.write("HTTP/1.1 100 Continue\r\n\r\n")
	_, err := io.Copy(io.Discard, r.Body)
	return err == nil && c.write(okResponse)
})

// early begins its answer before it has got the body, and ends it with that.
var early = withHead(func(c *originConn, r *http.Request) bool {
	c.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
	_, err := io.Copy(io.Discard, r.Body)
	return err == nil && c.write("0\r\n\r\n")
})

// echoes sends the body back while it comes.
var echoes = withHead(func(c *originConn, r *http.Request) bool {
	c.write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
	io.Copy(c.Conn, r.Body)
	return false
})

// longBody is more than there is room for on the way to a client that does not
// read.
const longBody = 32 << 20

// longText is what bodies that are as long are cut from: to make one for each takes more than to
// send it.
var longText = sync.OnceValue(func() string { return strings.Repeat("x", longBody) })

// sendLong sends a long body, framed as the path says.
var sendLong = withRequest(func(c *originConn, r *http.Request) bool {
	block, end := strings.Repeat("x", 64<<10), ""
	switch r.URL.Path {
	case "/length":
		c.write(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", longBody))
	case "/chunked":
		c.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		block, end = fmt.Sprintf("%x\r\n%s\r\n", len(block), block), "0\r\n\r\n"
	case "/close":
		c.write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
	}
	for range longBody / (64 << 10) {
		if !c.write(block) {
			return false
		}
	}
	c.write(end)
	return false
})

// agreeing switches to a protocol whatever it was asked for.
func agreeing(protocol string) func(*originConn) bool {
	return afterRequest(func(c *originConn) bool {
		io.WriteString(c.Conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
		io.Copy(io.Discard, c)
		return false
	})
}

// A misdeed is what a client does after it has sent its request.
type misdeed struct {
	*net.TCPConn
	t      *testing.T
	proxy  *testProxy
	origin *origin
}

func stall(m *misdeed)     { io.Copy(io.Discard, m) }
func leave(m *misdeed)     { m.Close() }
func breakOff(m *misdeed)  { m.SetLinger(0); m.Close() }
func halfClose(m *misdeed) { m.CloseWrite(); io.Copy(io.Discard, m) }

// amid waits for the response to begin.
func amid(deed func(*misdeed)) func(*misdeed) {
	return func(m *misdeed) {
		m.Read(make([]byte, 1))
		deed(m)
	}
}

// sending sends more before the deed.
func sending(more string, deed func(*misdeed)) func(*misdeed) {
	return func(m *misdeed) {
		io.WriteString(m, more)
		deed(m)
	}
}

// outlast neither sends nor reads, until the peer gives up.
func outlast(m *misdeed) {
	eventually(m.t, "the client is waited for", func() bool {
		c := m.proxy.onlyClient()
		return c.client.Entry.Deadline.Load() != 0 || c.client.Entry.WriteDeadline.Load() != 0
	})
	m.origin.close()
	io.Copy(io.Discard, m)
}

// stopReading reads nothing until the connection has been ended.
func stopReading(m *misdeed) {
	eventually(m.t, "the connection has been ended", func() bool { return m.proxy.Connections() == 0 })
}

// sendOnly sends without an end and reads nothing.
func sendOnly(m *misdeed) {
	block := []byte(fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("x", 64<<10)))
	for {
		if _, err := m.Write(block); err != nil {
			return
		}
	}
}

// A client can not have a peer ejected that works, whatever it does or leaves
// undone: no outcome of that speaks against the peer.
func TestWhatClientsDoIsNotCounted(t *testing.T) {
	t.Parallel()
	const (
		length  = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\nabc"
		longer  = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\nabc" // spliced
		chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
		expect  = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
		trailer = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: "
		upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: "
	)
	short := Options{Timeouts: Timeouts{Body: 2 * time.Second, Write: 2 * time.Second}}
	patient := Options{}
	// Less than all that clients are given, and enough for a peer on a busy machine.
	const shorter = 1500 * time.Millisecond

	deeds := map[string]func(*misdeed){"leaves": leave, "breaks off": breakOff, "half-closes": halfClose}
	withOutlast := maps.Clone(deeds)
	withOutlast["outlasts the peer"] = outlast

	type test struct {
		request string
		client  func(*misdeed)
		peer    func(*originConn) bool
		options Options
		idle    time.Duration // timeouts.idle of the service, if not the default
	}
	tests := make(map[string]test)
	add := func(name, request string, client func(*misdeed), peer func(*originConn) bool, o Options, idle time.Duration) {
		tests[name] = test{request, client, peer, o, idle}
	}

	for _, body := range []struct{ name, request string }{
		{"length", length}, {"longer", longer}, {"chunked", chunked}, {"100-continue", expect}, {"trailer", trailer},
	} {
		for _, peer := range []struct {
			name  string
			serve func(*originConn) bool
		}{{"waits", expecting}, {"answers early", early}} {
			name := body.name + ", peer " + peer.name + ": "
			add(name+"stalls", body.request, stall, peer.serve, short, 0)
			add(name+"stalls for longer than idle", body.request, stall, peer.serve, short, shorter)
			for deed, do := range withOutlast {
				add(name+deed, body.request, do, peer.serve, patient, 0)
				if peer.name == "answers early" || body.name == "100-continue" {
					add(name+deed+", amid", body.request, amid(do), peer.serve, patient, 0)
				}
			}
		}
	}
	limited := Options{Limits: Limits{BodyBytes: 100}}
	for name, malformed := range map[string]string{
		"malformed chunk": chunked + "x\r\n", "malformed trailer": trailer + "\n\r\n", "body over its limit": chunked + "65\r\n" + strings.Repeat("x", 0x65) + "\r\n",
	} {
		add(name, malformed, stall, expecting, limited, 0)
		add(name+", early answer", malformed, stall, early, limited, 0)
		add(name+", amid", chunked, amid(sending(strings.TrimPrefix(malformed, chunked), stall)), early, limited, 0)
	}
	for _, framing := range []string{"/length", "/chunked", "/close"} {
		for _, version := range []string{"1.1", "1.0"} {
			get := "GET " + framing + " HTTP/" + version + "\r\nHost: a\r\nConnection: close\r\n\r\n"
			name := framing + " to HTTP/" + version + ": "
			add(name+"stops reading", get, stopReading, sendLong, short, 0)
			add(name+"stops reading for longer than idle", get, stopReading, sendLong, short, shorter)
			for deed, do := range withOutlast {
				add(name+deed, get, amid(do), sendLong, patient, 0)
			}
		}
	}
	for deed, do := range deeds {
		add(deed+" waiting", getRequest, do, hanging, patient, 0)
		add(deed+" waiting, body sent", strings.Replace(length, "20000", "3", 1), do, hanging, patient, 0)
		add(deed+" waiting, chunks sent", chunked+"0\r\n\r\n", do, hanging, patient, 0)
		add(deed+" waiting for the upgrade", upgrade+"x\r\n\r\n", do, hanging, patient, 0)
		add(deed+" in the tunnel", upgrade+"x\r\n\r\n", amid(do), agreeing("x"), patient, 0)
	}
	add("sends and does not read", strings.TrimSuffix(chunked, "3\r\nabc\r\n"), sendOnly, echoes, short, shorter)
	for _, upgrades := range [][2]string{
		{"x\r\nUpgrade: y", "y"}, {"x\r\nUpgrade: y", "x"}, {"a, X/1 ,b", "x/1"}, {"x/2", "x"}, {"x y", "y"}, {"h2c, x", "h2c"}, {"x, h2c", "x"},
	} {
		add("upgrade to "+upgrades[0]+", agreed to "+upgrades[1], upgrade+upgrades[0]+"\r\n\r\n", amid(leave), agreeing(upgrades[1]), patient, 0)
	}
	add("a target that makes a head too long", "GET /"+strings.Repeat("\"", 6000)+" HTTP/1.1\r\nHost: a\r\n\r\n", amid(leave), withRequest(func(c *originConn, r *http.Request) bool {
		fmt.Fprintf(c.Conn, "HTTP/1.1 302 Found\r\nLocation: %s/\r\nContent-Length: 0\r\n\r\n", strings.ReplaceAll(r.RequestURI, "\"", "%22"))
		return false
	}), patient, 0)

	eachCase(t, tests, func(t *testing.T, test test) {
		origin := startOrigin(t, test.peer)
		p := startProxy(t, test.options, origin.address())
		timeouts := defaultTimeouts()
		if test.idle > 0 {
			timeouts.Idle = test.idle
		}
		p.setService(route.Service{Timeouts: timeouts, Retry: route.Retry{Attempts: 1}})
		conn := p.dial().(*net.TCPConn)
		verify.Result(io.WriteString(conn, test.request)).Must(t)
		ended := func() uint64 { return p.pool.Snapshot().All[0].Requests() }
		eventually(t, "the request goes to the peer", func() bool { return p.inflight() > 0 || ended() > 0 })
		test.client(&misdeed{conn, t, p, origin})
		conn.Close()
		eventually(t, "the attempt has ended", func() bool { return ended() == 1 && p.inflight() == 0 })
		p.expectNothingCounted()
	})
}

// What a peer does by itself counts, whatever the client does at the time.
func TestWhatPeersDoIsCounted(t *testing.T) {
	t.Parallel()
	const upload = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	closing := func(c *originConn) bool { c.request(); return false }
	const part = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"
	cut := afterRequest(func(c *originConn) bool { c.write(part); return false })
	stalling := afterRequest(func(c *originConn) bool { c.write(part); io.Copy(io.Discard, c); return false })
	type test struct {
		request string
		peer    func(*originConn) bool
	}
	eachCase(t, map[string]test{
		"closes behind an upload":             {upload, closing},
		"closes behind a small body":          {"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", closing},
		"cuts its response":                   {closingRequest, cut},
		"cuts its response to an upload":      {upload, cut},
		"stalls in its response":              {closingRequest, stalling},
		"stalls in its response to an upload": {upload, stalling},
		"does not answer an upload":           {upload, hanging},
		"does not take an upload":             {"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 33554432\r\n\r\n" + longText(), nil},
		"does not take a chunked upload":      {"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2000000\r\n" + longText(), nil},
		"agrees to what was not asked for":    {closingRequest, agreeing("x")},
	}, func(t *testing.T, test test) {
		peer := test.peer
		if peer == nil {
			ended := make(chan struct{})
			defer close(ended)
			peer = func(c *originConn) bool {
				http.ReadRequest(c.Reader)
				<-ended
				return false
			}
		}
		origin := startOrigin(t, peer)
		p := startProxy(t, Options{}, origin.address())
		timeouts := defaultTimeouts()
		timeouts.Idle, timeouts.ResponseHeader = 200*time.Millisecond, 200*time.Millisecond
		p.setService(route.Service{Timeouts: timeouts, Retry: route.Retry{Attempts: 1}})
		conn := p.dial()
		go io.WriteString(conn, test.request)
		_, err := http.ReadResponse(bufio.NewReader(conn), nil)
		verify.Succeeds(t, err)
		io.Copy(io.Discard, conn)
		eventually(t, "the failure is counted", func() bool { return p.pool.Snapshot().All[0].Failures() == 1 })
	})
}

// The time that a client takes to send a request is not the peer's.
func TestLatencyWithoutTheClientsTime(t *testing.T) {
	t.Parallel()
	for _, request := range []string{
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 20000),
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n" + strings.Repeat("x", 40000), // which is kept
	} {
		p := startProxy(t, Options{}, answersOK(t))
		p.setService(route.Service{Retry: route.Retry{Attempts: 3, BodyBytes: 64 << 10}})
		conn := p.send(request[:len(request)-1])
		eventually(t, "the request has reached the peer, or is kept", func() bool { return p.inflight() == 1 || p.keptBodies.Taken() > 0 })
		time.Sleep(200 * time.Millisecond) // the client's time
		start := time.Now()
		io.WriteString(conn, request[len(request)-1:])
		expectResponse(t, conn, 200)
		longest := time.Since(start)
		eventually(t, "the attempt has ended", func() bool { return p.inflight() == 0 })
		got := p.pool.Snapshot().All[0].Latency()
		verify.That(t, got <= longest, "%.60q: latency %v, though the peer had the whole request for %v at most", request, got, longest)
	}
}

// The status of an outcome selects what passive health checks count.
func TestGRPCOutcomeStatus(t *testing.T) {
	for code, want := range map[grpc.Code]balancer.Outcome{
		grpc.Unavailable: {Class: balancer.OutcomeServerError, Status: 503},
		4:                {Class: balancer.OutcomeServerError, Status: 504},
		grpc.Internal:    {Class: balancer.OutcomeServerError, Status: 500},
		99:               {Class: balancer.OutcomeServerError, Status: 500},
		5:                {Class: balancer.OutcomeOK, Status: 200},
		grpc.Unset:       {Class: balancer.OutcomeReset, Status: 200},
	} {
		x := &newExchange().answer
		x.grpcCode = code
		x.response.Status, x.response.GRPC = 200, true
		verify.Equal(t, x.grpcOutcome(balancer.Outcome{Class: balancer.OutcomeOK, Status: 200}), want, "%v", code)
	}
	other := &newExchange().answer // an answer of a server without gRPC
	other.grpcCode, other.response.Status = grpc.Unset, 200
	got := other.grpcOutcome(balancer.Outcome{Class: balancer.OutcomeOK, Status: 200})
	verify.That(t, got.Class == balancer.OutcomeOK && other.grpcCode == grpc.Unknown, "without gRPC: got %+v, %v", got, other.grpcCode)
	x := &newExchange().answer
	x.grpcCode = grpc.DeadlineExceeded
	x.request.deadline = time.Now()
	got = x.grpcOutcome(balancer.Outcome{})
	verify.That(t, got.Class == balancer.OutcomeOK, "deadline of the client: got %+v", got)
}

// Client A asks for what no peer answers well, again and again, and client B for what all do: B
// keeps all peers, whatever A is answered.
func TestPoisonousURLEjectsNone(t *testing.T) {
	t.Parallel()
	const status = "HTTP/1.1 200 OK\r\n"
	type test struct {
		answer  string // of the poisonous URL; then the peer closes
		class   balancer.OutcomeClass
		because string // the status that A gets
	}
	eachCase(t, map[string]test{
		"close":              {"", balancer.OutcomeReset, "502"},
		"not HTTP":           {"nonsense\r\n", balancer.OutcomeReset, "502"},
		"a wrong length":     {status + "Content-Length: 20\r\n\r\n{}", balancer.OutcomeReset, "200"},
		"two lengths":        {status + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", balancer.OutcomeRefused, "502"},
		"a malformed field":  {status + "A: \x00\r\nContent-Length: 2\r\n\r\nok", balancer.OutcomeRefused, "502"},
		"a folded line":      {status + "A: b\r\n c\r\nContent-Length: 2\r\n\r\nok", balancer.OutcomeRefused, "502"},
		"500 head and close": {"HTTP/1.1 500 Oops\r\nContent-Length: 999\r\n\r\n", balancer.OutcomeReset, "500"},
	}, func(t *testing.T, test test) {
		const peers, rounds = 4, 40
		var addresses []string
		for range peers {
			addresses = append(addresses, startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
				if r.URL.Path != "/poison" {
					return c.write(okResponse)
				}
				io.WriteString(c.Conn, test.answer)
				return false
			})).address())
		}
		p := startProxy(t, Options{}, addresses...)
		settings := healthcheck.Settings{Passive: healthcheck.Passive{
			ConsecutiveFailures: 5, Consecutive5xx: 5, Interval: time.Hour, Ejection: time.Hour, MaxEjection: time.Hour, MaxEjected: 1,
		}}
		monitor := healthcheck.NewMonitor(healthcheck.Options{MaxChecks: 1})
		defer monitor.Close()
		checker := monitor.NewChecker()
		options := balancer.Options{Policy: balancer.PolicyRoundRobin, NewTransport: p.NewTransport(transportOf(t))}
		checker.Start(p.pool, settings)
		checker.Reconfigure(checker.Adapt(balancertest.Complete(options), settings), settings)
		for i := range rounds {
			a, _ := io.ReadAll(p.send("GET /poison HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
			verify.That(t, strings.HasPrefix(string(a), "HTTP/1.1 "+test.because+" "), "A got %q", a)
			if i%2 == 0 {
				b, _ := io.ReadAll(p.send(closingRequest))
				verify.That(t, strings.HasPrefix(string(b), "HTTP/1.1 200 "), "B got %q", b)
			}
		}
		checker.Stop() // its verdicts are in the pool
		for _, peer := range p.pool.Snapshot().All {
			verify.That(t, peer.State() == balancer.StateUp, "%s is %v: %v", peer.Address(), peer.State(), peer.Reasons())
			verify.That(t, peer.Outcomes()[test.class] > 0, "%s has no outcome %q: %v", peer.Address(), test.class, peer.Outcomes())
		}
	})
}
