package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Whatever a peer answers: the client gets the response that the oracle reads
// in it, or a 502, or a connection cut short; never a complete response that
// was not sent as one. The request after it, of this client or another, gets
// its own answer and nothing of this one.
//
// In the input, "\xfe" stands for 20,000 octets.
func FuzzProxyResponse(f *testing.F) {
	for i, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL",
		"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\n3;x\r\nabc\r\n4e20\r\n\xfe\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\nuntil closed \xfe",
		"HTTP/1.0 404 Not Found\r\n\r\n",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 20000\r\n\r\n\xfe",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\nabcde",
		"HTTP/1.1 200 OK\r\nContent-Length: 80000\r\n\r\n\xfe\xfe\xfe\xfe",
		"HTTP/1.1 200 OK\r\nContent-Length: 80001\r\n\r\n\xfe\xfe\xfe\xfe",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
		"HTTP/1.1 200\nA : b\r\n c\r\r\n\x00\t\x7f\r\n\r\n",
	} {
		f.Add([]byte(seed), uint64(i)*0x9e3779b97f4a7c15)
	}
	origin := startScriptedOrigin(f)
	never := time.Hour
	p := startProxy(f, Options{KeepForGoneClients: true, Timeouts: Timeouts{never, never, never, never}}, origin.address())
	var mu sync.Mutex // the cases of a plain test run may be parallel
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		mu.Lock()
		defer mu.Unlock()
		if len(input) > 32<<10 || bytes.Count(input, []byte{0xfe}) > 4 {
			return
		}
		p.t = t
		random := rand.New(rand.NewPCG(seed, 2))
		c := responseCase{
			t: t, p: p, origin: origin, random: random,
			method: []string{"GET", "GET", "HEAD", "POST"}[random.IntN(4)],
			http10: random.IntN(4) == 0,
			sent:   strings.ReplaceAll(string(input), "\xfe", strings.Repeat("x", 20000)),
		}
		c.run()
	})
}

// A responseCase is one answer of a peer, and the request after it.
type responseCase struct {
	t      *testing.T
	p      *testProxy
	origin *scriptedOrigin
	random *rand.Rand
	method string
	http10 bool // the client speaks HTTP/1.0
	sent   string
}

func (c *responseCase) run() {
	want, rest, end := readResponses(c.sent, c.method, true)
	// What does not end by itself ends with the connection.
	closes := end != endsClean || c.random.IntN(2) == 0
	c.origin.set(script{response: c.sent, together: len(rest) + 1, closes: closes, random: c.random})
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Logf("%s, HTTP/1.0 %v: sent %.3000q, which ends %d with %.100q left, closes %v", c.method, c.http10, c.sent, end, rest, closes)
		}
	})
	conn := c.dial()
	defer conn.Close()
	version := "HTTP/1.1"
	if c.http10 {
		version = "HTTP/1.0\r\nConnection: keep-alive"
	}
	fmt.Fprintf(conn, "%s /scripted %s\r\nHost: a\r\n\r\n", c.method, version)
	reader := bufio.NewReader(conn)
	kept := c.checkResponse(reader, want, end)

	// The next request goes out on the connection to the peer that this one used,
	// if any is used again.
	other := c.dial()
	defer other.Close()
	c.next(other, bufio.NewReader(other))
	if kept {
		c.next(conn, reader)
	}
	conn.Close()
	other.Close()
	eventually(c.t, "nothing in flight", func() bool { return c.p.inflight() == 0 && c.p.Connections() == 0 })
}

func (c *responseCase) dial() *net.TCPConn {
	conn, err := net.Dial("tcp", c.p.address)
	if err != nil {
		c.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	conn.(*net.TCPConn).SetLinger(0)
	return conn.(*net.TCPConn)
}

// next sends a request that the peer answers in its ordinary way.
func (c *responseCase) next(conn net.Conn, reader *bufio.Reader) {
	// Safe to send again: the peer may be about to close the connection.
	fmt.Fprintf(conn, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
	r, err := http.ReadResponse(reader, nil)
	if err != nil {
		c.t.Errorf("the next request: %v", err)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != 200 || string(body) != nextBody || len(r.Header) != 1 {
		c.t.Errorf("the next request got %d %q, %v, fields %q", r.StatusCode, body, err, r.Header)
	}
}

// checkResponse reads the response and reports whether the connection goes on.
func (c *responseCase) checkResponse(reader *bufio.Reader, want []*wireMessage, end wireEnd) bool {
	var final *wireMessage
	if n := len(want); n > 0 && want[n-1].status[0] != '1' {
		final, want = want[n-1], want[:n-1]
	}
	for _, interim := range want {
		if interim.status[:3] == "100" || c.http10 {
			continue // was not asked for, or is not known
		}
		r, err := http.ReadResponse(reader, &http.Request{Method: c.method})
		if err != nil {
			c.t.Errorf("an interim response is missing: %v", err)
			return false
		}
		c.compareHead(r, interim)
	}
	r, err := http.ReadResponse(reader, &http.Request{Method: c.method})
	if err != nil {
		if final != nil && final.complete {
			c.t.Errorf("a complete response did not arrive: %v", err)
		}
		return false
	}
	body, err := io.ReadAll(r.Body)
	if final == nil {
		if err != nil || r.StatusCode != 502 || r.Header.Get("X-Sluice-Reason") == "" {
			c.t.Errorf("got %d %q, %v for what is malformed", r.StatusCode, body, err)
		}
		return !r.Close
	}
	c.compareHead(r, final)
	switch {
	case err == nil && !final.complete:
		c.t.Errorf("got a complete body of %d bytes, which was not sent", len(body))
	case err != nil && final.complete:
		c.t.Errorf("a complete body broke off after %d of %d bytes: %v", len(body), len(final.body), err)
	case !strings.HasPrefix(final.body, string(body)) || err == nil && string(body) != final.body:
		c.t.Errorf("got a body of %d bytes, want %d", len(body), len(final.body))
	}
	if length := r.Header.Get("Content-Length"); final.complete && length != "" && length != strconv.Itoa(final.length) && c.method != "HEAD" {
		n, err := strconv.Atoi(length)
		if err != nil || n != final.length {
			c.t.Errorf("got Content-Length %q, want %d", length, final.length)
		}
	}
	return err == nil && !r.Close
}

// compareHead compares a head as the client got it, and net/http reads it, with
// what was sent.
func (c *responseCase) compareHead(r *http.Response, want *wireMessage) {
	if status := strings.TrimLeft(want.status, " "); strings.TrimRight(r.Status, " ") != strings.TrimRight(status, " ") {
		c.t.Errorf("got status %q, want %q", r.Status, want.status)
	}
	got, expected := http.Header{}, http.Header{}
	for _, f := range want.endToEnd(false) {
		expected.Add(f.name, f.value)
	}
	for name, values := range r.Header {
		switch name {
		case "Connection", "Content-Length":
		case "Upgrade":
			if r.StatusCode != 426 {
				got[name] = values
			}
		case "Cache-Control":
			if expected.Get("Pragma") != "no-cache" || expected["Cache-Control"] != nil {
				got[name] = values
			} // else it is net/http's addition
		default:
			got[name] = values
		}
	}
	for name := range expected {
		if !slices.Equal(got[name], expected[name]) {
			c.t.Errorf("got %s: %q, want %q", name, got[name], expected[name])
		}
	}
	for name := range got {
		if expected[name] == nil {
			c.t.Errorf("got %s: %q, which was not sent", name, got[name])
		}
	}
}

const nextBody = "the next"

// A scriptedOrigin answers requests for /scripted by its script, and all others
// in its ordinary way.
type scriptedOrigin struct {
	*origin
	mu     sync.Mutex
	script script // guarded by mu
}

type script struct {
	response string
	// together is how many bytes at the end are sent at once. What comes later
	// than the end of a response, on a connection that has been used again by
	// then, is the answer to the next request to everybody.
	together int
	closes   bool // the connection after it
	random   *rand.Rand
}

func startScriptedOrigin(t testing.TB) *scriptedOrigin {
	o := &scriptedOrigin{}
	o.origin = startOrigin(t, func(c *originConn) bool {
		r, ok := c.request()
		o.origin.forget()
		if !ok {
			return false
		}
		if r.URL.Path != "/scripted" {
			_, err := fmt.Fprintf(c.Conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(nextBody), nextBody)
			return err == nil
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.script.play(c.Conn)
	})
	return o
}

func (o *scriptedOrigin) set(s script) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.script = s
}

// play sends the response in pieces.
func (s *script) play(conn net.Conn) bool {
	for rest := s.response; rest != ""; {
		n := len(rest)
		if s.random.IntN(3) > 0 && n > s.together {
			n = 1 + s.random.IntN(n-s.together)
		}
		if _, err := io.WriteString(conn, rest[:n]); err != nil {
			return false
		}
		if rest = rest[n:]; s.random.IntN(8) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	return !s.closes
}

// forget drops what was recorded and the connections that have ended.
func (o *origin) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.received.Reset()
}
