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

	"sluice/test/verify"
)

// Whatever a peer answers: the client gets the response that the oracle reads
// in it, or a 502, or a connection cut short; never a complete response that
// was not sent as one. The request after it, of this client or another, gets
// its own answer and nothing of this one.
//
// In the input, "\xfe" stands for 20,000 octets.
func FuzzProxyResponse(f *testing.F) {
	for i, seed := range responseSeeds() {
		for division := range divisionsOfSeeds {
			f.Add([]byte(seed), uint64(i*divisionsOfSeeds+division))
		}
	}
	var lanes [divisionsOfSeeds]*responseLane
	for i := range lanes {
		lanes[i] = newResponseLane(f)
	}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		t.Parallel() // in a plain test run
		lanes[seed%divisionsOfSeeds].run(t, input, seed)
	})
}

// A responseLane is a proxy and its peers, for one input at a time.
type responseLane struct {
	mu     sync.Mutex // is held while an input is sent
	p      *testProxy
	origin *scriptedOrigin
}

func newResponseLane(t testing.TB) *responseLane {
	never, origin := time.Hour, startScriptedOrigin(t)
	p := startProxy(t, Options{Timeouts: Timeouts{never, never, never, never}, Switches: Switches{KeepForGoneClients: true}}, origin.addresses[:]...)
	return &responseLane{p: p, origin: origin}
}

func (l *responseLane) run(t *testing.T, input []byte, seed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(input) > 32<<10 || bytes.Count(input, []byte{0xfe}) > 4 {
		return
	}
	l.p.t = t
	random := rand.New(rand.NewPCG(seed, 2))
	c := responseCase{
		t: t, p: l.p, origin: l.origin, random: random,
		method: []string{"GET", "GET", "HEAD", "POST"}[random.IntN(4)],
		http10: random.IntN(4) == 0, trailers: random.IntN(2) == 0,
		sent: strings.ReplaceAll(string(input), "\xfe", strings.Repeat("x", 20000)),
	}
	c.run()
}

// A responseCase is one answer of a peer, and the request after it.
type responseCase struct {
	t        *testing.T
	p        *testProxy
	origin   *scriptedOrigin
	random   *rand.Rand
	method   string
	http10   bool // the client speaks HTTP/1.0
	trailers bool // the client takes them
	sent     string
}

func (c *responseCase) run() {
	want, rest, end := readResponses(c.sent, c.method, true)
	// What does not end by itself ends with the connection.
	refused := slices.Contains(refusedResponses, c.sent)
	closes := end != endsClean && !refused || c.random.IntN(2) == 0
	last := rest != "" || refused || len(want) > 0 && want[len(want)-1].last()
	c.origin.set(script{response: c.sent, together: len(rest) + 1, closes: closes, last: last, random: c.random})
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
	if c.trailers {
		version += "\r\nTE: trailers"
	}
	fmt.Fprintf(conn, "%s /scripted %s\r\nHost: a\r\n\r\n", c.method, version)
	reader := bufio.NewReader(conn)
	kept := c.checkResponse(reader, want, end)

	complete := len(want) > 0 && want[len(want)-1].complete
	// Three attempts, each of which may lose a connection that was used before.
	n := c.origin.asked()
	verify.That(c.t, n == 1 || n >= 1 && n <= 6 && c.method != "POST" && !complete && end != endsMalformed, "the peers were asked %d times", n)

	// The next requests go out on the connections to the peers that this one used,
	// if any is used again.
	other := c.dial()
	defer other.Close()
	otherReader := bufio.NewReader(other)
	for range c.origin.addresses {
		c.next(other, otherReader)
	}
	if kept {
		c.next(conn, reader)
	}
	conn.Close()
	other.Close()
	eventually(c.t, "nothing in flight", func() bool { return c.p.inflight() == 0 && c.p.Connections() == 0 })
}

func (c *responseCase) dial() net.Conn {
	conn := verify.Result(net.Dial("tcp", c.p.address)).Must(c.t)
	conn.SetDeadline(time.Now().Add(patience))
	conn.(*net.TCPConn).SetLinger(0)
	return clientSide(c.t, conn)
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
	verify.That(c.t, err == nil && r.StatusCode == 200 && string(body) == nextBody && len(r.Header) == 1, "the next request got %d %q, %v, fields %q", r.StatusCode, body, err, r.Header)
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
		verify.That(c.t, final != nil && !final.complete, "no response: %v", err)
		return false
	}
	body, err := io.ReadAll(r.Body)
	if final == nil {
		verify.That(c.t, err == nil && r.StatusCode == 502 && r.Header.Get("X-Sluice-Reason") != "", "got %d %q, %v for what is malformed", r.StatusCode, body, err)
		return !r.Close
	}
	if reason := r.Header.Get("X-Sluice-Reason"); !final.complete && r.StatusCode == 502 && err == nil &&
		(reason == "upstream_reset" && (final.length >= 0 || final.chunked) || reason == "bad_response" && final.chunked) {
		return !r.Close // it had been held back, or was found out at once
	}
	c.compareHead(r, final)
	switch {
	case err == nil && !final.complete:
		c.t.Errorf("got a complete body of %d bytes, which was not sent", len(body))
	case err != nil && final.complete:
		c.t.Errorf("a complete body broke off after %d of %d bytes: %v", len(body), len(final.body), err)
	case c.http10 && r.TransferEncoding != nil:
		c.t.Errorf("got %q in HTTP/1.0", r.TransferEncoding)
	case !strings.HasPrefix(final.body, string(body)) || err == nil && string(body) != final.body:
		c.t.Errorf("got a body of %d bytes, want %d", len(body), len(final.body))
	}
	if length := r.Header.Get("Content-Length"); final.complete && length != "" && length != strconv.Itoa(final.length) && c.method != "HEAD" {
		n, err := strconv.Atoi(length)
		verify.That(c.t, err == nil && n == final.length, "got Content-Length %q, want %d", length, final.length)
	}
	if err == nil {
		c.compareTrailers(r.Trailer, final)
	}
	if err == nil && r.Close {
		rest, err := io.ReadAll(reader)
		verify.That(c.t, err == nil && len(rest) == 0, "got %q, %v after the last response", rest, err)
	}
	return err == nil && !r.Close
}

// compareTrailers compares the trailers that the client got with what was sent.
func (c *responseCase) compareTrailers(got http.Header, want *wireMessage) {
	for name := range got {
		if !c.trailers || (wireField{name: name}).isForbiddenTrailer(false) {
			c.t.Errorf("got trailer %s: %q", name, got[name])
		}
	}
	if !c.trailers || c.http10 || c.method == "HEAD" {
		return
	}
	wanted := http.Header{}
	for _, f := range want.trailers {
		if f.isHarmlessTrailer() {
			wanted.Add(f.name, f.value)
		}
	}
	for name := range wanted {
		verify.Slices(c.t, got[name], wanted[name], "got trailer %s", name)
	}
}

// compareHead compares a head as the client got it, and net/http reads it, with
// what was sent.
func (c *responseCase) compareHead(r *http.Response, want *wireMessage) {
	status := strings.TrimLeft(want.status, " ")
	verify.That(c.t, strings.TrimRight(r.Status, " ") == strings.TrimRight(status, " "), "got status %q, want %q", r.Status, want.status)
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
	verify.DeepEqual(c.t, got, expected, "the fields")
}

const nextBody = "the next"

// A scriptedOrigin answers requests for /scripted by its script, and all others
// in its ordinary way, at two addresses.
type scriptedOrigin struct {
	addresses [2]string

	mu sync.Mutex
	// mu guards the fields below.
	script  script
	scripts int // how many times it was played since it was set
}

type script struct {
	response string
	// together is how many bytes at the end are sent at once. What comes later
	// than the end of a response, on a connection that has been used again by
	// then, is the answer to the next request to everybody.
	together int
	closes   bool // the connection after it
	last     bool // nothing may be asked on the connection after it
	random   *rand.Rand
}

func startScriptedOrigin(t testing.TB) *scriptedOrigin {
	o := &scriptedOrigin{}
	for i := range o.addresses {
		o.addresses[i] = startOrigin(t, o.handle).address()
	}
	return o
}

func (o *scriptedOrigin) handle(c *originConn) bool {
	r, ok := c.request()
	c.origin.forget()
	if !ok {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	body := nextBody
	switch {
	case c.last:
		body = "not to be asked"
	case r.URL.Path == "/scripted":
		c.last = o.script.last
		o.scripts++
		return o.script.play(c.Conn)
	}
	return c.answer(body)
}

func (o *scriptedOrigin) set(s script) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.script, o.scripts = s, 0
}

// asked returns how often the script was played.
func (o *scriptedOrigin) asked() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.scripts
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
