package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"go.uber.org/goleak"

	"sluice/balancer"
	"sluice/certificates"
	"sluice/proxy/http2"
	"sluice/proxy/socket"
	"sluice/route"
	"sluice/test/long"
	"sluice/test/verify"
)

// Whatever a client and a peer of HTTP/2 do at a time within the protocol, each stream ends as they
// say, byte for byte, and when all have ended, nothing of them is left: places, goroutines,
// buffers, entries of the sweeper. Either may use TLS. SLUICE_MODEL is how many rounds there are.
func TestHTTP2Model(t *testing.T) {
	if !alone(t) {
		return
	}
	rounds, seed := long.Count(t, 8, 25), verify.Seed(t)
	if n, err := strconv.Atoi(os.Getenv("SLUICE_MODEL")); err == nil {
		rounds = n
	}
	buffers := countBuffers(t)
	var sweeper *socket.Sweeper
	t.Run("rounds", func(t *testing.T) {
		m := startModel(t)
		sweeper = m.proxy.sweeper
		for round := range uint64(rounds) {
			if m.round(rand.New(rand.NewPCG(seed, round))); t.Failed() {
				t.Fatalf("SLUICE_SEED=%d, round %d", seed, round)
			}
		}
	})
	if n := sweeper.Entries(); n > 0 {
		t.Errorf("the sweeper has %d entries", n)
	}
	// It belongs to the whole process.
	eventually(t, "no goroutine is left", func() bool {
		return goleak.Find(goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1")) == nil
	})
	buffers.check(t)
}

// countedBuffers count the buffers that pools have made.
type countedBuffers struct {
	pools       map[string]*countedPool
	collections uint32 // before
}

type countedPool struct {
	pool *sync.Pool
	mu   sync.Mutex
	made int
}

// countBuffers begins to count. Nothing is collected from then on until the test ends, unless a
// server returns its memory.
func countBuffers(t testing.TB) *countedBuffers {
	percent := debug.SetGCPercent(-1)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	all := map[string]*countedPool{
		"frame": {pool: frameBuffers}, "request": {pool: socket.RequestBuffers},
		"body": {pool: socket.BodyBuffers}, "small body": {pool: socket.SmallBodies}, "seal": {pool: socket.SealBuffers}, "scratch": {pool: &socket.Scratches},
		"exchange": {pool: &streamExchanges},
	}
	for _, c := range all {
		make := c.pool.New
		t.Cleanup(func() { c.pool.New = make })
		c.pool.New = func() any {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.made++
			return make()
		}
	}
	return &countedBuffers{all, collections()}
}

// collections returns how many there were.
func collections() uint32 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.NumGC
}

// check checks that all were put back. Each processor may keep one that the others cannot get.
func (all *countedBuffers) check(t *testing.T) {
	switch {
	case raceEnabled: // pools forget some at random
		return
	case collections() != all.collections:
		t.Log("a server has returned its memory, with buffers: they are not counted")
		return
	}
	for name, c := range all.pools {
		made, got := c.made, 0
		for {
			c.pool.Get()
			if c.made > made {
				break
			}
			got++
		}
		lost := made - got
		verify.That(t, lost <= runtime.GOMAXPROCS(0), "%d of %d %s buffers were not put back", lost, made, name)
	}
}

// forget begins anew, after a check.
func (all *countedBuffers) forget() {
	all.collections = collections()
	for _, c := range all.pools {
		c.mu.Lock()
		c.made = 0
		c.mu.Unlock()
	}
}

// A model is a proxy between a client and a peer that are modelEnds.
type model struct {
	t        *testing.T
	proxy    *testProxy
	address  map[bool]string // for clients, by whether they use TLS
	tlsPeers atomic.Bool     // connections to peers use TLS

	mu sync.Mutex
	// mu guards the fields below.
	random *rand.Rand
	calm   bool // since the end of the requests of a round
	peers  []*modelEnd
	once   map[string]bool // what was done to a request once
	broken bool            // in this round, a peer has refused streams
	work   sync.WaitGroup  // of the peers
}

func startModel(t *testing.T) *model {
	m := &model{t: t, random: rand.New(rand.NewPCG(0, 0)), once: make(map[string]bool)}
	l := listen(t)
	m.work.Go(func() { acceptAll(l, m.servePeer) })
	t.Cleanup(m.work.Wait)
	t.Cleanup(func() { l.Close() })
	m.proxy = startProxy(t, Options{Timeouts: Timeouts{Head: patience, Body: patience, Write: patience, Idle: patience}})
	m.address = map[bool]string{false: m.proxy.address}
	m.proxy.serveTLS(&tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{socket.ALPNHTTP2}})
	m.address[true] = m.proxy.address
	options := someTransport
	options.TLS = func(bool) certificates.Security {
		if m.tlsPeers.Load() {
			return anyCertificate(false)
		}
		return nil
	}
	budget := &balancer.RetryBudget{Ratio: 10, MinPerSecond: 1000}
	m.proxy.usePeers(true, options, balancer.Options{Policy: balancer.PolicyRoundRobin, RetryBudget: budget}, l.Addr().String())
	m.proxy.setService(route.Service{Timeouts: patientTimeouts(), Retry: route.Retry{Attempts: 3, BodyBytes: modelKept}})
	return m
}

// A modelRequest is what a client asks for, as its path says.
type modelRequest struct {
	number    int // of all rounds
	mode      byte
	length    int // of the response
	key       int // of both bodies
	upload    int // -1: none
	trailer   bool
	announced bool         // upload has a Content-Length
	te        bool         // the client accepts a trailer section
	stream    *modelStream // of the client
}

// The modes of peers.
const (
	modelAfter     = 'a' // answers after the request
	modelAtOnce    = 'o' // answers while the request arrives
	modelEarly     = 'e' // answers, and then resets the request with NO_ERROR
	modelCut       = 'c' // resets within the response
	modelRefused   = 'r' // refuses once
	modelGoAway    = 'g' // sends GOAWAY and then answers, once
	modelLong      = 'l' // sends a head that is too long
	modelMalformed = 'm' // sends a malformed head
)

// modelKept is up to how many bytes of a request's body are kept, so that it is sent again.
const modelKept = 50_000

// modelTrailer is the rest modulo 3 of the number of a request whose response has a trailer
// section.
const modelTrailer = 1

func (r *modelRequest) path() string {
	return fmt.Sprintf("/%d/%c/%d/%d/%d/%t", r.number, r.mode, r.length, r.key, r.upload, r.trailer)
}

func parseModelRequest(path string) (r modelRequest) {
	fmt.Sscanf(path, "/%d/%c/%d/%d/%d/%t", &r.number, &r.mode, &r.length, &r.key, &r.upload, &r.trailer)
	return r
}

var modelLengths = []int{0, 1, 100, 5000, http2.MaxFrameBytes - 1, http2.MaxFrameBytes, http2.MaxFrameBytes + 1, http2.InitialWindow, http2.InitialWindow + 1, 100_000, 250_000}

// servePeer serves a connection of sluice.
func (m *model) servePeer(conn net.Conn) {
	defer conn.Close()
	conn, err := modelServerSide(conn)
	if err != nil {
		return
	}
	if _, err := io.ReadFull(conn, make([]byte, len(http2.Preface))); err != nil {
		return
	}
	m.mu.Lock()
	e := newModelEnd(m.t, conn, rand.New(rand.NewPCG(m.random.Uint64(), 1)))
	e.push(func() error { return e.framer.WriteSettings() }) // the first frame
	calm := m.calm
	m.peers = append(m.peers, e)
	m.mu.Unlock()
	var streams sync.WaitGroup
	e.onHead = func(s *modelStream) {
		s.path = s.header[":path"]
		r := parseModelRequest(s.path)
		s.key = r.key
		streams.Go(func() { m.answer(e, s, &r) })
	}
	e.flush()
	if calm {
		e.calmDown()
	}
	e.read()
	streams.Wait()
}

// firstTime reports whether something is done to the request for the first time, and notes that a
// peer does not serve each stream of this round.
func (m *model) firstTime(r *modelRequest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	path := r.path()
	first := !m.once[path]
	m.once[path] = true
	m.broken = m.broken || first
	return first
}

// answer answers a request.
func (m *model) answer(e *modelEnd, s *modelStream, r *modelRequest) {
	if r.mode == modelAfter {
		if !e.await(s) {
			return
		}
	}
	switch {
	case r.mode == modelRefused && m.firstTime(r):
		e.resetStream(s, xhttp2.ErrCodeRefusedStream)
		return
	case r.mode == modelGoAway && m.firstTime(r):
		e.sendGoAway()
		e.flush()
	case r.mode == modelLong:
		e.headers(s, true, ":status", "200", "x-long", strings.Repeat("v", 20_000+s.end.length(100_000)))
		return
	case r.mode == modelMalformed:
		e.headers(s, true, ":status", "200", "Upper", "case")
		return
	}
	if s.end.length(4) == 0 {
		e.headers(s, false, ":status", "103", "link", "</a>")
	}
	fields := []string{":status", "200", "x-number", strconv.Itoa(r.number)}
	var trailer []string
	switch r.number % 3 {
	case 0:
		fields = append(fields, "content-length", strconv.Itoa(r.length))
	case modelTrailer:
		trailer = []string{"x-sum", strconv.Itoa(r.number)}
	}
	if r.mode == modelCut {
		part := s.end.length(r.length + 1)
		if e.headers(s, false, fields...) == nil {
			e.send(s, modelBody(r.key, part), false)
		}
		e.resetStream(s, xhttp2.ErrCodeInternal)
		return
	}
	bodiless := r.length == 0 && len(trailer) == 0 && s.end.length(2) == 0
	if e.headers(s, bodiless, fields...) != nil {
		return
	}
	if !bodiless && e.send(s, modelBody(r.key, r.length), true, trailer...) != nil {
		return
	}
	if r.mode == modelEarly {
		e.mu.Lock()
		ended := s.ended
		e.mu.Unlock()
		if !ended && s.end.length(2) == 0 {
			e.resetStream(s, xhttp2.ErrCodeNo)
		}
	}
	e.await(s)
	m.checkUpload(s, r)
}

// length returns a random number below n.
func (e *modelEnd) length(n int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.random.IntN(n)
}

// checkUpload checks a request if it has arrived completely.
func (m *model) checkUpload(s *modelStream, r *modelRequest) {
	s.end.mu.Lock()
	defer s.end.mu.Unlock()
	if !s.ended {
		return
	}
	verify.That(m.t, s.length == max(r.upload, 0) && (!r.trailer || s.trailer["x-up"] == strconv.Itoa(r.number)), "the peer got another request: %v", s)
}

// round serves some requests of one client.
func (m *model) round(random *rand.Rand) {
	t := m.t
	m.mu.Lock()
	m.random, m.calm, m.broken = rand.New(rand.NewPCG(random.Uint64(), 2)), false, false
	m.peers = nil
	m.proxy.onlyConnector().Drain() // each round has its own connections
	m.mu.Unlock()
	overTLS, version := random.IntN(2) == 0, tls.VersionTLS12+uint16(random.IntN(2))
	m.tlsPeers.Store(random.IntN(2) == 0)
	conn, err := net.Dial("tcp", m.address[overTLS])
	verify.NoError(t, err)
	conn.SetDeadline(time.Now().Add(patience))
	if overTLS {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{socket.ALPNHTTP2}, MaxVersion: version})
	}
	defer conn.Close()
	e := newModelEnd(t, conn, rand.New(rand.NewPCG(random.Uint64(), 3)))
	e.onHead = func(s *modelStream) {
		if s.header[":status"] == "200" {
			s.key = parseModelRequest(s.path).key
		}
	}
	io.WriteString(conn, http2.Preface)
	e.framer.WriteSettings()
	var work sync.WaitGroup
	defer work.Wait()
	defer conn.Close()
	work.Go(e.read)

	modes := []byte{modelAfter, modelAfter, modelAtOnce, modelAtOnce, modelEarly, modelCut, modelLong, modelMalformed}
	switch random.IntN(6) { // a request is sent again for one of them only
	case 0:
		modes = append(modes, modelRefused)
	case 1:
		modes = append(modes, modelGoAway)
	}
	var requests []*modelRequest
	for n := range 10 + random.IntN(40) {
		r := &modelRequest{
			number: int(random.Uint32()), mode: modes[random.IntN(len(modes))], key: random.IntN(251), upload: -1,
			length: modelLengths[random.IntN(len(modelLengths))],
		}
		if random.IntN(2) == 0 {
			r.upload = modelLengths[random.IntN(len(modelLengths))]
			r.announced = random.IntN(2) == 0
			r.trailer = (!r.announced || r.upload > 0) && random.IntN(3) == 0
		}
		e.mu.Lock()
		r.stream = e.of(uint32(2*n + 1))
		r.stream.path = r.path()
		e.mu.Unlock()
		requests = append(requests, r)
		m.ask(e, r, random, &work)
		for range random.IntN(20) {
			runtime.Gosched()
		}
		if random.IntN(20) == 0 { // connections with other settings are not used any more
			m.tlsPeers.Store(!m.tlsPeers.Load())
		}
		if random.IntN(8) == 0 {
			victim := requests[random.IntN(len(requests))].stream
			e.mu.Lock()
			ended := victim.ended
			e.mu.Unlock()
			if !ended {
				e.resetStream(victim, xhttp2.ErrCodeCancel)
			}
		}
	}
	m.mu.Lock()
	m.calm = true
	peers := m.peers
	m.mu.Unlock()
	e.calmDown()
	for _, peer := range peers {
		peer.calmDown()
	}
	for _, r := range requests {
		e.await(r.stream)
		m.check(e, r)
	}
	e.mu.Lock()
	over := e.over
	e.mu.Unlock()
	verify.That(t, !over, "the connection of the client has ended")
	conn.Close()
	m.proxy.expectNothingLeft(t, 0)
	eventually(t, "no stream of a peer is in use", m.proxy.peersAreIdle)
}

// ask sends the request r.
func (m *model) ask(e *modelEnd, r *modelRequest, random *rand.Rand, work *sync.WaitGroup) {
	fields := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", r.path()}
	if r.te = random.IntN(2) == 0; r.te {
		fields = append(fields, "te", "trailers")
	}
	if r.upload >= 0 {
		fields[1] = "POST"
		if r.announced {
			fields = append(fields, "content-length", strconv.Itoa(r.upload))
		}
	}
	if e.headers(r.stream, r.upload < 0, fields...) != nil || r.upload < 0 {
		return
	}
	var trailer []string
	if r.trailer {
		trailer = []string{"x-up", strconv.Itoa(r.number)}
	}
	work.Go(func() { e.send(r.stream, modelBody(r.key, r.upload), true, trailer...) })
}

// check checks the response of r.
func (m *model) check(e *modelEnd, r *modelRequest) {
	m.mu.Lock()
	broken := m.broken
	m.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	s := r.stream
	if s.canceled {
		return
	}
	status := s.header[":status"]
	refused := s.ended && status == "502"
	switch r.mode {
	case modelCut:
		verify.That(m.t, refused || !s.ended && s.reset && s.code == xhttp2.ErrCodeInternal, "a response that was cut has an end, or another one: %v", s)
		return
	case modelLong, modelMalformed:
		verify.That(m.t, refused, "a bad head: %v", s)
		return
	}
	if refused && broken && r.upload > modelKept { // the body was streamed
		return
	}
	verify.That(m.t, status == "200" && s.ended && s.length == r.length && s.header["x-number"] == strconv.Itoa(r.number), "got %v", s)
	want := ""
	if r.te && r.number%3 == modelTrailer {
		want = strconv.Itoa(r.number)
	}
	verify.Equal(m.t, s.trailer["x-sum"], want, "got %v", s)
}
