package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/proxy/upstream"
	"sluice/route"
	"sluice/test/verify"
)

// Whatever a client sends: the peers get the requests that the oracle reads in
// it, each once, in order and whole, and nothing else; the client gets their
// answers in order; the connection ends, and nothing stays in flight.
//
// Each input has a connection of its own from an address of its own, by which
// the peer knows whose request it got (X-Forwarded-For). In the input, "\xfe"
// stands for 20,000 octets, so that bodies outgrow the buffers.
func FuzzProxy(f *testing.F) {
	for i, seed := range requestSeeds() {
		for division := range divisionsOfSeeds {
			f.Add([]byte(seed), uint64(i*divisionsOfSeeds+division))
		}
	}
	leftovers := findLeftovers(f)
	var lanes [divisionsOfSeeds]*requestLane
	for i := range lanes {
		lanes[i] = newRequestLane(f)
	}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		t.Parallel() // in a plain test run
		l := lanes[seed%divisionsOfSeeds]
		defer leftovers.enter(t, l.p)()
		l.run(t, input, seed)
	})
}

// A requestLane is a proxy and its peer, for one input at a time.
type requestLane struct {
	p      *testProxy
	origin *echoOrigin

	mu     sync.Mutex // guards the field below, and is held while an input is sent
	number uint32     // of the input
}

func newRequestLane(t testing.TB) *requestLane {
	if runtime.GOOS != "linux" {
		t.Skip("needs all of 127.0.0.0/8 on the loopback interface")
	}
	never, origin := time.Hour, startEchoOrigin(t) // no timeout helps out
	p := startProxy(t, Options{Timeouts: Timeouts{never, never, never, never}, Switches: Switches{KeepForGoneClients: true}}, origin.address())
	return &requestLane{p: p, origin: origin}
}

func (l *requestLane) run(t *testing.T, input []byte, seed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(input) > 32<<10 || bytes.Count(input, []byte{0xfe}) > 4 || bytes.Contains(input, []byte("PRI * ")) {
		return // PRI may begin HTTP/2: see FuzzHTTP2
	}
	l.number++
	l.p.t = t
	c := fuzzClient{
		t: t, p: l.p, origin: l.origin, random: rand.New(rand.NewPCG(seed, 1)),
		address: netip.AddrFrom4([4]byte{127, byte(1 + l.number>>16%254), byte(l.number >> 8), byte(l.number)}),
		sent:    strings.ReplaceAll(string(input), "\xfe", strings.Repeat("x", 20000)),
	}
	c.run()
	l.p.expectNothingLeft(t, 0)
	l.p.expectNoEntries(t, l.p.pool)
}

// What the oracle says of messages over TCP holds over TLS, to clients and to peers.
func TestOverTLSOracle(t *testing.T)      { checkSeeds(t) }
func TestPeersOverTLSOracle(t *testing.T) { checkSeeds(t) }

func checkSeeds(t *testing.T) {
	t.Parallel()
	requests, responses := newRequestLane(t), newResponseLane(t)
	each := 1
	if testing.Short() {
		each = 5 // they are one after another: the race detector finds in some what is in all
	}
	for i, seed := range requestSeeds() {
		if i%each != 0 {
			continue
		}
		t.Run(fmt.Sprint("request ", i), func(t *testing.T) { requests.run(t, []byte(seed), uint64(i)) })
	}
	for i, seed := range responseSeeds() {
		for division := range 2 { // different methods
			if i%each != 0 {
				continue
			}
			t.Run(fmt.Sprint("response ", i, " ", division), func(t *testing.T) { responses.run(t, []byte(seed), uint64(2*i+division)) })
		}
	}
}

// A fuzzClient is one connection that sends one input.
type fuzzClient struct {
	t       *testing.T
	p       *testProxy
	origin  *echoOrigin
	random  *rand.Rand
	address netip.Addr
	sent    string
	aborted bool // broke the connection off without waiting for the answers
}

func (c *fuzzClient) run() {
	retry := route.Retry{Attempts: 3}
	if c.random.IntN(2) == 0 {
		retry.BodyBytes = 64 << 10
	}
	c.p.setService(route.Service{Retry: retry})
	want, end := readRequests(c.sent)
	received, broken := c.converse(end)
	c.settle()
	seen := c.origin.take(c.t, c.address, c.aborted)
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Logf("sent %.3000q, which ends %d; got %.2000q, %v", c.sent, end, received, broken)
		}
	})
	verify.That(c.t, broken == nil || end == endsClosed, "the connection ends with %v", broken)
	answered := c.checkAnswers(want, end, received, broken != nil)
	c.checkSeen(want, seen, answered)
}

// converse sends the input in pieces and reads until the connection ends.
func (c *fuzzClient) converse(end wireEnd) (received []byte, broken error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: c.address.AsSlice()}, Timeout: patience}
	dialed, err := dialer.Dial("tcp", c.p.address)
	verify.NoError(c.t, err)
	dialed.(*net.TCPConn).SetLinger(0) // leaves no port behind in TIME_WAIT
	dialed.SetDeadline(time.Now().Add(patience))
	conn := clientSide(c.t, dialed)
	defer conn.Close()
	for rest := c.sent; rest != ""; {
		n := len(rest)
		if c.random.IntN(3) > 0 {
			n = 1 + c.random.IntN(n)
		}
		if _, err := io.WriteString(conn, rest[:n]); err != nil {
			break // refused: the answer is still there to be read
		}
		if rest = rest[n:]; c.random.IntN(4) == 0 {
			runtime.Gosched()
		}
	}
	if c.aborted = c.random.IntN(8) == 0; c.aborted {
		return nil, nil
	}
	if end == endsClean || end == endsShort || c.random.IntN(2) == 0 {
		if c.random.IntN(16) > 0 {
			// An end that comes right with the last bytes is noticed a little later.
			time.Sleep(time.Millisecond)
		}
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	received, err = io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("the connection does not end; sent %.3000q", c.sent)
	}
	return received, err
}

// settle waits until nothing is left of the exchange.
func (c *fuzzClient) settle() {
	transport := c.p.pool.Snapshot().All[0].Transport.(upstream.Connector)
	eventually(c.t, "nothing in flight", func() bool {
		idle, busy := transport.Connections()
		return c.p.Connections() == 0 && c.p.inflight() == 0 && busy == 0 && c.origin.idle() == idle
	})
}

// checkAnswers checks what the client got, and returns how many of its
// requests were answered. mayBreak: the client went on sending behind the request
// that it said was its last, and the connection was reset.
func (c *fuzzClient) checkAnswers(want []*wireMessage, end wireEnd, received []byte, mayBreak bool) int {
	if c.aborted {
		return 0
	}
	complete := len(want)
	if complete > 0 && !want[complete-1].complete {
		complete--
	}
	reader := bufio.NewReader(bytes.NewReader(received))
	answered := 0
	for _, m := range want[:complete] {
		r, body, ok := c.answer(reader, m.method)
		if !ok {
			break
		}
		if reason := r.Header.Get("X-Sluice-Reason"); m.isNotForwarded() != (reason == "max_forwards") || r.StatusCode != 200 {
			c.t.Errorf("request %d, %s %s: got %d, reason %q", answered, m.method, m.target, r.StatusCode, reason)
			return answered
		}
		if wantBody := echo(m.method, m.target, m.body); !m.isNotForwarded() && m.method != "HEAD" && body != wantBody {
			c.t.Errorf("request %d, %s %s: got %q, want %q", answered, m.method, m.target, body, wantBody)
		}
		answered++
	}
	// What follows a body that sluice did not wait for is lost.
	mayEnd := answered > 0 && want[answered-1].isNotForwarded() && (want[answered-1].chunked || want[answered-1].length > 0)
	if answered < complete {
		verify.That(c.t, mayBreak || mayEnd, "%d of %d requests were answered", answered, complete)
		return answered
	}
	// The method of the request that this may answer is not always known.
	r, _, ok := c.answer(reader, "HEAD")
	switch {
	case ok && end != endsMalformed && end != endsShort:
		c.t.Errorf("a further answer, %d", r.StatusCode)
	case ok && complete < len(want) && want[complete].isNotForwarded():
	case ok && (r.StatusCode < 400 || r.Header.Get("X-Sluice-Reason") == "" || !r.Close):
		c.t.Errorf("got %d for what is malformed or incomplete", r.StatusCode)
	case !ok && end == endsMalformed && !mayEnd:
		c.t.Error("got no answer for what is malformed")
	}
	rest, _ := io.ReadAll(reader)
	verify.That(c.t, len(rest) == 0 || mayBreak || ok && r.ContentLength == int64(len(rest)), "got %q after the last answer", rest)
	return answered
}

// answer reads a response to a request with that method.
func (c *fuzzClient) answer(reader *bufio.Reader, method string) (*http.Response, string, bool) {
	r, err := http.ReadResponse(reader, &http.Request{Method: method})
	if err != nil {
		return nil, "", false
	}
	body, err := io.ReadAll(r.Body)
	return r, string(body), err == nil
}

// isNotForwarded reports whether sluice answers itself, as it was asked to.
func (m *wireMessage) isNotForwarded() bool {
	values := m.values("Max-Forwards")
	return m.method == "OPTIONS" && len(values) > 0 && maxForwardsZero.MatchString(values[0])
}

var maxForwardsZero = regexp.MustCompile(`^[-+]?0+$`)

// checkSeen checks what the peer got.
func (c *fuzzClient) checkSeen(want []*wireMessage, seen []*seenRequest, answered int) {
	i := 0
	for _, m := range want {
		if m.isNotForwarded() && m.complete {
			answered--
			continue
		}
		if i == len(seen) {
			break
		}
		got := seen[i]
		i++
		verify.That(c.t, !got.complete || m.complete, "the peer got a complete request, which the client did not send: %.500q", got.raw)
		if got.complete {
			c.compare(got, m)
		}
		if !got.complete && i < len(seen) {
			c.t.Errorf("the peer got something after an incomplete request: %.500q", seen[i].raw)
		}
	}
	if i < len(seen) {
		c.t.Errorf("the peer got more than the client sent: %.500q", seen[i].raw)
	}
	verify.That(c.t, i >= answered, "the peer got %d requests, but %d were answered", i, answered)
}

// compare compares a request as the peer got it, read by the oracle and by
// net/http, with what the client sent.
func (c *fuzzClient) compare(got *seenRequest, want *wireMessage) {
	parsed, end := readRequestsWithin(got.raw, 2*oracleHeadBytes, 2*oracleFields)
	if len(parsed) != 1 || end != endsClean || !parsed[0].complete {
		c.t.Errorf("the peer got a request that the oracle refuses: %.500q", got.raw)
		return
	}
	m := parsed[0]
	if m.method != want.method || m.target != want.target || m.http10 || m.body != want.body || m.chunked != want.chunked {
		c.t.Errorf("the peer got %s %s with %d bytes, want %s %s with %d bytes", m.method, m.target, len(m.body), want.method, want.target, len(want.body))
	}
	version := "1.1 sluice"
	fields := want.endToEnd(true)
	if want.http10 {
		version = "1.0 sluice"
		if len(want.values("Host")) == 0 {
			fields = slices.Insert(fields, 0, wireField{"Host", c.origin.address()})
		}
	}
	if fields = append(fields, wireField{"Via", version}); !slices.Equal(m.endToEnd(true), fields) {
		c.t.Errorf("the peer got fields %q, want %q", m.endToEnd(true), fields)
	}
	c.compareOwnFields(m, want)
	trailers := want.trailers
	for _, f := range m.trailers {
		at := slices.Index(trailers, f)
		if at < 0 || f.isForbiddenTrailer(true) {
			c.t.Errorf("the peer got trailer %q, of %q", f, want.trailers)
			break
		}
		trailers = trailers[at+1:]
	}
	for _, f := range want.trailers {
		verify.That(c.t, !f.isHarmlessTrailer() || slices.Contains(m.trailers, f), "the peer did not get trailer %q", f)
	}
	verify.That(c.t, got.method == want.method && got.body == want.body && slices.Equal([]string{got.host}, m.values("Host")), "net/http read %s for %q with %d bytes", got.method, got.host, len(got.body))
}

// compareOwnFields checks the fields that sluice writes or takes out, as the peer
// got them in m.
func (c *fuzzClient) compareOwnFields(m, want *wireMessage) {
	for _, f := range m.fields {
		own := f.is("X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto")
		verify.That(c.t, (!f.isReserved() || own) && !f.is("Keep-Alive", "Proxy-Connection", "HTTP2-Settings", "Proxy-Authorization"), "the peer got the field %q", f)
	}
	wants := map[string][]string{
		"X-Forwarded-For":   {c.address.String()},
		"X-Real-IP":         {c.address.String()},
		"X-Forwarded-Host":  want.values("Host"),
		"X-Forwarded-Proto": {map[bool]string{false: "http", true: "https"}[overTLS(c.t)]},
		"Max-Forwards":      want.values("Max-Forwards"),
		"TE":                nil,
		"Upgrade":           nil,
		"Connection":        nil,
	}
	if upgrade := m.values("Upgrade"); len(upgrade) > 0 {
		protocols := slices.DeleteFunc(want.elements("Upgrade"), func(e string) bool {
			name, _, _ := strings.Cut(e, "/")
			return equalASCII(name, "http") || equalASCII(name[:min(2, len(name))], "h2")
		})
		wants["Upgrade"], wants["Connection"] = []string{strings.Join(protocols, ", ")}, []string{"Upgrade"}
	} else if slices.ContainsFunc(want.elements("TE"), func(e string) bool { return equalASCII(e, "trailers") }) {
		wants["TE"], wants["Connection"] = []string{"trailers"}, []string{"TE"}
	}
	if values := wants["Max-Forwards"]; want.method == "OPTIONS" && len(values) > 0 {
		wants["Max-Forwards"] = nil
		if left, err := strconv.Atoi(values[0]); err == nil && left > 0 {
			wants["Max-Forwards"] = []string{strconv.Itoa(left - 1)}
		}
	}
	for name, values := range wants {
		verify.Slices(c.t, m.values(name), values, "the peer got %s", name)
	}
}
