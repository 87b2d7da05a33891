package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// soakClients are the clients of TestSoak: what each does over and over on a connection of its own,
// how many of them there are, and how long they rest at most in between.
var soakClients = []struct {
	name  string
	count int
	pause time.Duration
	run   func(*soaker, *rand.Rand, *net.TCPConn)
}{
	{"good", 6, 2 * time.Millisecond, (*soaker).good},
	{"pipelined", 1, 5 * time.Millisecond, (*soaker).pipelined},
	{"tunnel", 1, 20 * time.Millisecond, (*soaker).tunnel},
	{"bad request", 1, 10 * time.Millisecond, (*soaker).badRequest},
	{"odd peer", 2, 10 * time.Millisecond, (*soaker).oddPeer},
	{"bad", 10, 5 * time.Millisecond, (*soaker).bad},
}

func (s *soaker) dial() (*net.TCPConn, bool) {
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		s.fail("dial: %v", err)
		return nil, false
	}
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn), true
}

// A soakRequest is a good request and what is to be answered.
type soakRequest struct{ bytes, want string }

// goodRequest returns a request that must succeed: to peers that crash only one
// that can be sent twice.
func (s *soaker) goodRequest(random *rand.Rand, last bool) soakRequest {
	id := random.Uint32()
	option := ""
	if last {
		option = "Connection: close\r\n"
	}
	service := []string{"good", "stable"}[random.IntN(2)]
	head := fmt.Sprintf("GET /%s/%d HTTP/1.1\r\nHost: soak\r\n%s", service, id, option)
	body := ""
	if random.IntN(3) == 0 {
		head = fmt.Sprintf("POST /stable/%d HTTP/1.1\r\nHost: soak\r\n%s", id, option)
		body = strings.Repeat(string('a'+rune(random.IntN(26))), random.IntN(1+[]int{1, 100, 10_000, 300_000}[random.IntN(4)]))
	}
	want := fmt.Sprintf("%d %d %x", id, len(body), crc32.ChecksumIEEE([]byte(body)))
	switch {
	case body == "":
		return soakRequest{head + "\r\n", want}
	case random.IntN(2) == 0:
		return soakRequest{fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body), want}
	}
	request := head + "Transfer-Encoding: chunked\r\n\r\n"
	for part := range slices.Chunk([]byte(body), 1+len(body)/2) {
		request += fmt.Sprintf("%x\r\n%s\r\n", len(part), part)
	}
	return soakRequest{request + "0\r\n\r\n", want}
}

// goodAnswer reads the answer to a good request and reports whether the
// connection goes on.
func (s *soaker) goodAnswer(reader *bufio.Reader, request soakRequest) bool {
	r, err := http.ReadResponse(reader, nil)
	if err != nil {
		s.fail("%.130q of %d bytes: no response: %v", request.bytes, len(request.bytes), err)
		return false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != 200 || string(body) != request.want {
		s.fail("%.60q of %d bytes: got %d %q, %v; want %q", request.bytes, len(request.bytes), r.StatusCode, body, err, request.want)
		return false
	}
	s.succeeded.Add(1)
	if r.Close && !strings.Contains(request.bytes, "Connection: close") {
		s.count("connection that ended after a good request")
	}
	return !r.Close
}

// good sends one or more requests on a connection.
func (s *soaker) good(random *rand.Rand, conn *net.TCPConn) {
	reader := bufio.NewReader(conn)
	n := 1 + random.IntN(1+100*random.IntN(2))
	for i := range n {
		conn.SetDeadline(time.Now().Add(patience))
		request := s.goodRequest(random, i == n-1)
		if _, err := io.WriteString(conn, request.bytes); err != nil {
			s.fail("%.60q: %v", request.bytes, err)
			return
		}
		if !s.goodAnswer(reader, request) {
			return
		}
		s.pause(random, 2*time.Millisecond)
	}
}

// pipelined sends some at once.
func (s *soaker) pipelined(random *rand.Rand, conn *net.TCPConn) {
	requests := make([]soakRequest, 8)
	var all strings.Builder
	for i := range requests {
		requests[i] = s.goodRequest(random, i == len(requests)-1)
		all.WriteString(requests[i].bytes)
	}
	go io.WriteString(conn, all.String())
	reader := bufio.NewReader(conn)
	for _, request := range requests {
		if !s.goodAnswer(reader, request) {
			return
		}
	}
}

func (s *soaker) tunnel(random *rand.Rand, conn *net.TCPConn) {
	io.WriteString(conn, "GET /stable/tunnel HTTP/1.1\r\nHost: soak\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
	reader := bufio.NewReader(conn)
	r, err := http.ReadResponse(reader, nil)
	if err != nil || r.StatusCode != 101 {
		s.fail("tunnel: got %v, %v", r, err)
		return
	}
	for range random.IntN(10) {
		want := make([]byte, 1+random.IntN(10000))
		go conn.Write(want)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(reader, got); err != nil || !bytes.Equal(got, want) {
			s.fail("tunnel: %v", err)
			return
		}
	}
	switch random.IntN(3) {
	case 0:
		conn.SetLinger(0)
	case 1:
		conn.CloseWrite()
		if rest, err := io.ReadAll(reader); err != nil || len(rest) > 0 {
			s.fail("tunnel: got %q, %v at the end", rest, err)
		}
	}
	s.succeeded.Add(1)
}

func (s *soaker) badRequest(random *rand.Rand, conn *net.TCPConn) {
	bad := badRequests[random.IntN(len(badRequests))]
	io.WriteString(conn, strings.Replace(bad, "/bad", "/stable/bad", 1))
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || r.StatusCode < 400 || !r.Close {
		s.fail("%.100q: got %v, %v", bad, r, err)
	}
}

// oddPeer sends a request to a peer that answers in some odd way. Its answer
// may be cut, but something must come of it.
func (s *soaker) oddPeer(random *rand.Rand, conn *net.TCPConn) {
	fmt.Fprintf(conn, "GET /odd/%d HTTP/1.%d\r\nHost: soak\r\nConnection: close\r\n\r\n", random.IntN(len(oddAnswers)), random.IntN(2))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		s.fail("an odd peer makes a request hang")
	}
}

// bad sends a request to its end or not, reads some of the answer, and goes away, in peace or not:
// each of it slowly or at once.
func (s *soaker) bad(random *rand.Rand, conn *net.TCPConn) {
	request := s.goodRequest(random, false).bytes
	switch random.IntN(3) {
	case 0:
		conn.SetReadBuffer(4 << 10)
		request = "GET /stable/large HTTP/1.1\r\nHost: soak\r\n\r\n"
	case 1:
		request = "POST /stable/1 HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("5\r\nabcde\r\n", 1000)
	}
	request = request[:random.IntN(1+len(request))]
	pause := []time.Duration{0, time.Millisecond, 20 * time.Millisecond}[random.IntN(3)]
	for piece := 1 + random.IntN(1+len(request)); request != "" && s.ctx.Err() == nil; s.pause(random, pause) {
		n := min(len(request), piece)
		if _, err := io.WriteString(conn, request[:n]); err != nil {
			return // was cut for being slow
		}
		request = request[n:]
	}
	conn.SetReadDeadline(time.Now().Add(time.Duration(random.IntN(1+50*random.IntN(10))) * time.Millisecond))
	for piece := int64(1) << random.IntN(20); random.IntN(50) > 0; s.pause(random, pause) {
		if _, err := io.CopyN(io.Discard, conn, piece); err != nil {
			break
		}
	}
	switch random.IntN(3) {
	case 0:
		conn.SetLinger(0)
	case 1:
		conn.CloseWrite()
		s.pause(random, 100*time.Millisecond)
	}
}

// serveSoak is what all peers do.
func serveSoak(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	what := parts[len(parts)-1]
	switch {
	case parts[0] == "odd":
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		n, _ := strconv.Atoi(what)
		answer := strings.ReplaceAll(oddAnswers[n], "\xfe", strings.Repeat("x", 20_000))
		io.WriteString(conn, answer[:len(answer)/2])
		time.Sleep(time.Millisecond)
		io.WriteString(conn, answer[len(answer)/2:])
	case what == "tunnel":
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(conn, buffered)
	case what == "large":
		w.Header().Set("Content-Length", strconv.Itoa(4<<20))
		block := make([]byte, 64<<10)
		for range 64 {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	default:
		hash := crc32.NewIEEE()
		n, err := io.Copy(hash, r.Body)
		if err != nil {
			return
		}
		if id, _ := strconv.Atoi(what); id%8 == 0 { // so that crashes find requests at work
			time.Sleep(time.Duration(id%20) * time.Millisecond)
		}
		fmt.Fprintf(w, "%s %d %x", what, n, hash.Sum32())
	}
}

// oddAnswers are what a peer may send before it closes the connection.
var oddAnswers = append(responseSeeds(), "", "no HTTP at all")
