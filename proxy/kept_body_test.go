package proxy

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	xhttp2 "golang.org/x/net/http2"

	"sluice/balancer"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/route/places"
	"sluice/test/long"
	"sluice/test/verify"
)

// startReader starts a peer by HTTP/1.1 and HTTP/2 that answers with the sum of a body. With
// the path /again it ends the first attempt after the body, with /early at once; with /hang it
// answers no first attempt.
func startReader(t testing.TB) (address string) {
	return startServer(t, func(w http.ResponseWriter, r *http.Request) {
		first := r.Header.Get("X-Sluice-Attempts") == ""
		if first && r.URL.Path == "/early" {
			panic(http.ErrAbortHandler)
		}
		body, err := io.ReadAll(r.Body)
		switch {
		case err != nil, first && r.URL.Path == "/again":
			panic(http.ErrAbortHandler)
		case first && r.URL.Path == "/hang":
			<-r.Context().Done()
		default:
			fmt.Fprintf(w, "%x", sha256.Sum256(body))
		}
	})
}

func sumOf(body []byte) string { return fmt.Sprintf("%x", sha256.Sum256(body)) }

// blockAt returns the address block of a loopback address.
func blockAt(t testing.TB, address string) places.Block {
	t.Helper()
	ip := verify.Result(netip.ParseAddr(address)).Must(t)
	return places.BlockOf(ip)
}

// putFrom sends the start of a PUT request from a loopback address.
func (p *testProxy) putFrom(address, path string, body []byte, part int) net.Conn {
	p.t.Helper()
	return p.sendFrom(address, append(fmt.Appendf(nil, "PUT %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", path, len(body)), body[:part]...))
}

// The bodies of one client that are kept have their share of the memory, and what does not fit
// it is streamed, complete and in order. Others keep theirs.
func TestKeptBodiesHaveAShare(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		for _, held := range []int{1, 20_000, 60_000} { // bytes of another request of the client
			p := startProxy(t, Options{Limits: Limits{KeptBodyBytes: 8 * socket.RelayBufferBytes}})
			p.usePeers(http2, someTransport, balancer.Options{}, startReader(t), startReader(t))
			p.setService(route.Service{Retry: route.Retry{Attempts: 3, BodyBytes: 1 << 20}})
			bad := blockAt(t, badClient)
			good := ""
			for i := 10; good == ""; i++ { // that does not have the same share by chance
				address := fmt.Sprint("127.0.0.", i)
				before := p.keptBodies.TakenBy(bad)
				p.keptBodies.Take(blockAt(t, address), 1, 1<<20)
				if p.keptBodies.TakenBy(bad) == before {
					good = address
				}
				p.keptBodies.Give(blockAt(t, address), 1)
			}

			whole := make([]byte, 300_000) // spliced, where it is streamed to HTTP/1
			for i := range whole {
				whole[i] = byte(i * i >> 5)
			}
			body := whole[:61_000]
			first := p.putFrom(badClient, "/again", body, held)
			eventually(t, "a part is kept", func() bool { return p.keptBodies.Taken() >= int64(held) })
			for _, test := range []struct {
				address, path string
				body          []byte
				status        int
			}{
				{badClient, "/ok", body, 200}, {badClient, "/again", body, 502}, {badClient, "/ok", whole, 200},
				{good, "/again", body, 200}, {good, "/ok", whole, 200}, {good, "/again", whole, 502},
			} {
				body := test.body
				conn := p.putFrom(test.address, test.path, body, 100)
				for sent := 100; sent < len(body); sent += 1015 {
					conn.Write(body[sent:min(sent+1015, len(body))])
				}
				status, got := readResponseFrom(t, bufio.NewReader(conn), "PUT")
				verify.That(t, status == test.status && (status != 200 || got == sumOf(body)), "HTTP/2 %v, beside %d bytes, %s%s, %d bytes: got %d %q", http2, held, test.address, test.path, len(body), status, got)
				conn.Close()
			}
			first.Write(body[held:])
			status, got := readResponseFrom(t, bufio.NewReader(first), "PUT")
			verify.That(t, held != len(body) || status == 200 && got == sumOf(body), "HTTP/2 %v, the first of %d bytes: got %d %q", http2, held, status, got)
			eventually(t, "the memory is given back", func() bool { return p.keptBodies.Taken() == 0 && p.keptBodies.TakenBy(bad) == 0 })
		}
	}
}

// A body is kept for as long as its request may be sent again, and not while the answer goes on.
func TestKeptBodyIsDroppedDuringTheAnswer(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]struct{ http2, long bool }{
		"HTTP/1": {false, false}, "HTTP/2": {true, false}, "HTTP/1, spliced": {false, true},
	}, func(t *testing.T, test struct{ http2, long bool }) {
		const rest = 1 << 20 // of a long answer
		ends := make(chan struct{})
		end := sync.OnceFunc(func() { close(ends) })
		p := startProxyTo(t, test.http2, Options{}, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			sum := sumOf(body)
			if test.long {
				w.Header().Set("Content-Length", strconv.Itoa(len(sum)+rest))
			}
			io.WriteString(w, sum)
			http.NewResponseController(w).Flush()
			<-ends
			if test.long {
				w.Write(make([]byte, rest))
			}
		})
		t.Cleanup(end)
		p.setService(route.Service{Retry: route.Retry{Attempts: 3, BodyBytes: 1 << 20}})
		body := make([]byte, 200_000)
		conn := p.putFrom("127.0.0.1", "/", body, len(body)-1)
		eventually(t, "the body is kept", func() bool { return p.keptBodies.Taken() > 0 })
		conn.Write(body[:1])
		answer := bufio.NewReader(conn)
		verify.Result(answer.Peek(1)).Must(t)
		eventually(t, "the memory is given back", func() bool { return p.keptBodies.Taken() == 0 })
		end()
		status, got := readResponseFrom(t, answer, "PUT")
		if test.long {
			verify.Equal(t, len(got), len(sumOf(body))+rest, "bytes of the answer")
			got = got[:len(sumOf(body))]
		}
		verify.That(t, status == 200 && got == sumOf(body), "got %d %q", status, got)
	})
}

// A stream of HTTP/2 whose body has just begun takes little memory.
func TestHTTP2BodyTakesMemoryAsItComes(t *testing.T) {
	if !alone(t) {
		return
	}
	var taken atomic.Int64 // bytes
	countBytes(&taken, socket.RequestBuffers, socket.SmallBodies, socket.BodyBuffers)
	p := startProxy(t, Options{Timeouts: Timeouts{Body: time.Hour}}, startReader(t))
	p.setService(route.Service{Retry: route.Retry{Attempts: 3, BodyBytes: 64 << 10}})
	c := p.dialFrames()
	const streams = 40
	body := make([]byte, 60_000)
	length := func(id uint32) int { return 10_000 + int(id%4)*20_000 } // 30,000 or 70,000: kept in a buffer, or streamed
	for id := uint32(1); id < 2*streams; id += 2 {
		c.request(id, http2Post+fmt.Sprint("|content-length=", length(id)), false)
		c.WriteData(id, false, body[:1])
	}
	c.expectAnswered(func(xhttp2.Frame) {})
	eventually(t, "the first bytes are kept", func() bool { return p.keptBodies.Taken() == streams/2*socket.SmallBodyBytes })
	n := taken.Load()
	verify.That(t, n <= streams*2*socket.SmallBodyBytes, "%d bytes for %d streams", n, streams)
	c.conn.Close()
	p.expectNothingLeft(t, 0)
}

// A peer may answer before it has got all of a body that is kept, and read no
// more of it: its answer counts, however the connection ends.
func TestEarlyAnswerToKeptBody(t *testing.T) {
	t.Parallel()
	const length = 8 << 20
	const unauthorized = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\n\r\nwho are you?"
	goOn := make(chan struct{})
	answers := func(then func(c *originConn)) string {
		return startOrigin(t, func(c *originConn) bool {
			c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			if _, err := http.ReadRequest(c.Reader); err != nil {
				return false
			}
			io.WriteString(c.Conn, unauthorized)
			then(c)
			return false
		}).address()
	}
	tests := map[string]string{
		"a server of Go's": startServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(401)
			io.WriteString(w, "who are you?")
		}),
		"closes": answers(func(*originConn) {}),
		"closes its sending side and reads no more": answers(func(c *originConn) {
			c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			<-goOn
		}),
		"reads no more": answers(func(*originConn) { <-goOn }),
	}
	t.Cleanup(func() { close(goOn) })
	for name, address := range tests {
		for _, attempts := range []int{1, 2} {
			t.Run(fmt.Sprint(name, ", attempts ", attempts), func(t *testing.T) {
				p := startProxy(t, Options{}, address)
				p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: attempts, BodyBytes: length}})
				for range 3 {
					conn := p.send(fmt.Sprintf("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", length))
					go io.WriteString(conn, longText()[:length])
					status, body := readResponseFrom(t, bufio.NewReader(conn), "PUT")
					verify.That(t, status == 401 && body == "who are you?", "got %d %q", status, body)
					conn.Close()
				}
				eventually(t, "nothing in flight", func() bool { return p.inflight() == 0 })
				peer := p.pool.Snapshot().All[0]
				outcomes := peer.Outcomes()
				verify.That(t, outcomes[balancer.OutcomeOK] == 3 && peer.Failures() <= 0, "outcomes %v", outcomes)
			})
		}
	}
}

// A peer that begins to answer while it still reads gets the whole of a body
// that is kept, and its connection is used again.
func TestKeptBodyGoesOnBehindEarlyAnswer(t *testing.T) {
	t.Parallel()
	const length = 8 << 20 // more than a socket has room for at first
	origin := startOrigin(t, withHead(func(c *originConn, r *http.Request) bool {
		io.WriteString(c.Conn, "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
		n, err := io.Copy(io.Discard, r.Body)
		last := fmt.Sprintf("%d bytes, %v", n, err)
		_, err = fmt.Fprintf(c.Conn, "%x\r\n%s\r\n0\r\n\r\n", len(last), last)
		return err == nil
	}))
	p := startProxy(t, Options{}, origin.address())
	p.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 2, BodyBytes: length}})
	conn := p.dial()
	reader := bufio.NewReader(conn)
	// Not used again is the connection of a request whose end is noticed too late.
	for requests := 0; requests < 3 || origin.connections() == requests; requests++ {
		verify.Require(t, requests != 30, "no connection to the peer was used again")
		fmt.Fprintf(conn, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", length)
		go io.WriteString(conn, longText()[:length])
		status, _ := readResponseFrom(t, reader, "PUT")
		verify.Require(t, status == 103, "got %d, want 103", status)
		want := fmt.Sprintf("ok%d bytes, <nil>", length)
		status, body := readResponseFrom(t, reader, "PUT")
		verify.Require(t, status == 200 && body == want, "got %d %q, want %q", status, body, want)
	}
}

// countBytes adds the sizes of buffers that are made.
func countBytes(made *atomic.Int64, pools ...*sync.Pool) {
	for _, pool := range pools {
		create := pool.New
		pool.New = func() any {
			b := create().(*socket.Buffer)
			made.Add(int64(len(b.Bytes)))
			return b
		}
	}
}

// A slowUpload is a PUT request whose body is sent in parts.
type slowUpload struct {
	address, path string
	conn          net.Conn
	frames        *frameClient // nil: HTTP/1.1
	body          []byte
	sent          int
}

// send sends n bytes more.
func (u *slowUpload) send(n int) {
	part := u.body[u.sent : u.sent+n]
	u.sent += n
	if u.frames != nil {
		for first := true; first || len(part) > 0; first = false {
			n := min(len(part), 16<<10)
			u.frames.WriteData(1, u.sent == len(u.body) && n == len(part), part[:n])
			part = part[n:]
		}
		return
	}
	u.conn.Write(part) // fails if it was answered early
}

// check checks the answer.
func (u *slowUpload) check(t *testing.T) {
	status, got := "cut", ""
	if u.frames != nil {
		r := u.frames.response(1)
		status, got = r.status, r.body
	} else if r, err := http.ReadResponse(bufio.NewReader(u.conn), nil); err == nil {
		text, _ := io.ReadAll(r.Body)
		status, got = strconv.Itoa(r.StatusCode), string(text)
	}
	if (status != "200" || got != sumOf(u.body)) && (u.path == "/ok" || status == "200") {
		t.Errorf("%s%s, %d bytes, HTTP/2 %v: got %s %q", u.address, u.path, len(u.body), u.frames != nil, status, got)
	}
}

// Whatever slow uploads, retries, clients that leave and the end of sluice do to each other: bodies
// arrive as they were sent, nobody has more memory than its share, and at the end all memory,
// places, goroutines and descriptors are back.
func TestKeptBodiesAtRandom(t *testing.T) {
	if !alone(t) {
		return
	}
	seed := verify.Seed(t)
	buffers, descriptors := countBuffers(t), openDescriptors()+8 // of the runtime itself
	rounds := long.Count[uint64](t, 3, 8)
	t.Run("rounds", func(t *testing.T) {
		for round := range rounds {
			if testKeptBodies(t, rand.New(rand.NewPCG(seed, round))); t.Failed() {
				t.Fatalf("SLUICE_SEED=%d, round %d", seed, round)
			}
		}
	})
	verify.Succeeds(t, goleak.Find(goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1")))
	buffers.check(t)
	eventually(t, "descriptors are closed", func() bool {
		runtime.GC() // which closes the pipes in a sync.Pool
		return openDescriptors() <= descriptors
	})
}

// openDescriptors returns how many descriptors this process has, or 0 where that cannot be told.
func openDescriptors() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

func testKeptBodies(t *testing.T, random *rand.Rand) {
	const limit = 8 * 2 * socket.RelayBufferBytes
	p := newUnmanagedProxy(t, Options{Limits: Limits{KeptBodyBytes: limit}, Timeouts: Timeouts{Body: patience}})
	defer p.pool.Close()
	options := balancer.Options{Policy: balancer.PolicyRoundRobin, RetryBudget: &balancer.RetryBudget{Ratio: 10, MinPerSecond: 1000}}
	p.usePeers(random.IntN(2) == 0, someTransport, options, startReader(t), startReader(t), startReader(t))
	p.setService(route.Service{Retry: route.Retry{Attempts: 3, BodyBytes: 100_000}})
	plain, secure := p.address, p.serveWith(ListenerOptions{Name: "secure", TLS: &tls.Config{Certificates: []tls.Certificate{certificate()}}})

	addresses := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"}
	var open []*slowUpload
	begin := func() {
		u := &slowUpload{address: addresses[random.IntN(len(addresses))], path: []string{"/ok", "/again", "/early", "/hang"}[random.IntN(4)]}
		u.body = make([]byte, []int{1, 3000, 20_000, 60_000, 100_000, 200_000}[random.IntN(6)])
		for i := range u.body {
			u.body[i] = byte(random.Uint32())
		}
		p.address = plain
		switch random.IntN(3) {
		case 0:
			u.address, u.body = addresses[0], u.body[:min(len(u.body), 60_000)] // less than the window
			u.frames = p.dialFrames()
			u.conn = u.frames.conn
			u.frames.request(1, fmt.Sprintf(":method=PUT|:scheme=http|:authority=a|:path=%s|content-length=%d", u.path, len(u.body)), false)
		case 1:
			p.address = secure
			u.conn = tls.Client(p.dialFrom(u.address), &tls.Config{InsecureSkipVerify: true})
		default:
			u.conn = p.dialFrom(u.address)
		}
		if u.frames == nil {
			fmt.Fprintf(u.conn, "PUT %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", u.path, len(u.body))
		}
		u.send(random.IntN(len(u.body)))
		open = append(open, u)
	}
	take := func() *slowUpload {
		i := random.IntN(len(open))
		u := open[i]
		open = append(open[:i], open[i+1:]...)
		return u
	}
	for range 120 {
		switch n := random.IntN(10); {
		case len(open) == 0 || n < 4 && len(open) < 25:
			begin()
		case n < 7:
			u := open[random.IntN(len(open))]
			u.send(random.IntN(len(u.body) - u.sent))
		case n == 7:
			u := take()
			if c, ok := u.conn.(socket.Conn); ok && random.IntN(2) == 0 {
				socket.ResetOnClose(c)
			}
			u.conn.Close()
		case n == 8:
			u := take()
			u.send(len(u.body) - u.sent)
			if u.path != "/hang" {
				u.check(t)
			}
			u.conn.Close()
		default: // a request that is tried again
			p.address = plain
			p.expect("GET /again HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200")
		}
	}
	eventually(t, "all have at most their share", func() bool {
		within := p.keptBodies.Taken() <= limit
		for _, address := range addresses {
			within = within && p.keptBodies.TakenBy(blockAt(t, address)) <= limit/8
		}
		return within
	})
	if random.IntN(2) == 0 { // else the end finds them open
		for _, u := range open {
			u.conn.Close()
		}
		p.expectNothingLeft(t, 0)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.Shutdown(ctx, 0)
	p.expectNothingLeft(t, 0)
	for _, address := range addresses {
		verify.Equal(t, p.keptBodies.TakenBy(blockAt(t, address)), 0, "%s has bytes at the end", address)
	}
	if h := p.Stats().Handshakes; h.InProgress+h.Waiting+p.handshakes.Turns.Taken() != 0 || p.pool.Admission.Pending() != 0 {
		t.Errorf("at the end: %+v, %d wait for a connection", h, p.pool.Admission.Pending())
	}
	for _, u := range open {
		u.conn.Close()
	}
}
