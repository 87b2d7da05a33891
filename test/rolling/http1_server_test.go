//go:build unix

package rolling

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice/observe/wake"
	"sluice/test/consultest"
)

// lastAccepts is how long an instance accepts connections before it closes its listener, so it can
// record the requests that have arrived.
const lastAccepts = 2 * time.Millisecond

// http1Server is a small HTTP/1.1 server that can end in all relevant ways, with control of its
// sockets. One goroutine per connection reads and closes it.
//
// Its response contains its id, the id of the request, and the length and the checksum of the
// request body.
type http1Server struct {
	instance
	listener *net.TCPListener
	running  sync.WaitGroup

	mu       sync.Mutex            // guards the fields below
	conns    map[*net.TCPConn]bool // whether a request is in progress
	stopping bool
}

func startHTTP1(i instance) (server, error) {
	listener, err := consultest.Listen()
	if err != nil {
		return nil, err
	}
	return serveHTTP1(i, listener), nil
}

func serveHTTP1(i instance, listener *net.TCPListener) *http1Server {
	s := &http1Server{instance: i, listener: listener, conns: make(map[*net.TCPConn]bool)}
	s.running.Go(s.accept)
	return s
}

func (s *http1Server) address() string { return s.listener.Addr().String() }

func (s *http1Server) accept() {
	for {
		conn, err := s.listener.AcceptTCP()
		if err != nil { // closed by stop or reset
			s.acceptRest()
			s.listener.Close()
			return
		}
		s.take(conn)
	}
}

// acceptRest accepts the waiting connections, which exist on a busy machine. A close of the
// listener would reset them, and their requests would not be recorded.
func (s *http1Server) acceptRest() {
	raw, err := s.listener.SyscallConn()
	if err != nil {
		return
	}
	for {
		var fd int
		var failed error
		if err := raw.Control(func(listener uintptr) { fd, _, failed = syscall.Accept(int(listener)) }); err != nil {
			return
		}
		switch {
		case errors.Is(failed, syscall.EINTR), errors.Is(failed, syscall.ECONNABORTED):
			continue
		case failed != nil: // EAGAIN: no more connections
			return
		}
		file := os.NewFile(uintptr(fd), "connection")
		conn, err := net.FileConn(file)
		file.Close()
		if err == nil {
			s.take(conn.(*net.TCPConn))
		}
	}
}

func (s *http1Server) take(conn *net.TCPConn) {
	s.mu.Lock()
	s.conns[conn] = false
	if s.stopping {
		conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	}
	s.mu.Unlock()
	s.running.Go(func() { s.serve(conn) })
}

func (s *http1Server) stop() { s.finish(false) }

func (s *http1Server) reset() { s.finish(true) }

// finish ends what connections wait for, with all also what they read, and waits for their end.
func (s *http1Server) finish(all bool) {
	s.mu.Lock()
	s.stopping = true
	for conn, busy := range s.conns {
		if all || !busy {
			conn.SetReadDeadline(time.Now())
		}
	}
	s.mu.Unlock()
	s.listener.SetDeadline(time.Now().Add(lastAccepts))
	s.running.Wait()
}

func (s *http1Server) serve(conn *net.TCPConn) {
	defer s.close(conn)
	reader := bufio.NewReader(conn)
	for {
		if _, err := reader.Peek(1); err != nil && !s.woken(conn, err) {
			return
		}
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		if id, err := strconv.Atoi(strings.TrimPrefix(request.URL.Path, "/")); err == nil {
			s.ledger.note(s.name, id)
		}
		last := s.begin(conn) || request.Close
		if !s.answer(conn, request, last) || last || !s.end(conn) {
			return
		}
	}
}

// woken reports whether stop ended the wait for a request, and a request has arrived.
func (s *http1Server) woken(conn *net.TCPConn, err error) bool {
	if wake.Closed(s.dead) || !errors.Is(err, os.ErrDeadlineExceeded) || received(conn, syscall.MSG_PEEK) == nil {
		return false
	}
	conn.SetReadDeadline(time.Time{})
	return true
}

// begin marks a connection as busy, and reports whether this request is the last one.
func (s *http1Server) begin(conn *net.TCPConn) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = true
	if !wake.Closed(s.dead) {
		conn.SetReadDeadline(time.Time{})
	}
	return s.stopping
}

// end marks a connection as idle, and reports whether another request may follow.
func (s *http1Server) end(conn *net.TCPConn) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = false
	return !s.stopping
}

// answer reads the body and sends the response, and reports whether it succeeded.
func (s *http1Server) answer(conn *net.TCPConn, request *http.Request, last bool) bool {
	checksum := crc32.NewIEEE()
	length, err := io.Copy(checksum, request.Body)
	if err != nil {
		return false
	}
	if !s.do() {
		return false
	}
	text := fmt.Sprintf("%s %s %d %d\n", s.name, request.URL.Path[1:], length, checksum.Sum32())
	connection := ""
	if last {
		connection = "Connection: close\r\n"
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n%sContent-Length: %d\r\n\r\n%s", connection, len(text), text)
	if err != nil {
		return false
	}
	if id, err := strconv.Atoi(request.URL.Path[1:]); err == nil {
		s.ledger.noteAnswer(id)
	}
	return true
}

// close resets the connection if the instance died, and otherwise closes it without loss of
// data. In both cases the ledger records the requests that had arrived.
func (s *http1Server) close(conn *net.TCPConn) {
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	if wake.Closed(s.dead) {
		s.ledger.noteLate(s.name, received(conn, 0))
		conn.SetLinger(0)
		conn.Close()
		return
	}
	// Data that crosses the end of the stream is too late. The gateway ends the stream as soon as
	// it has noticed that.
	conn.CloseWrite()
	conn.SetReadDeadline(time.Now().Add(requestTimeout))
	late, _ := io.ReadAll(conn)
	s.ledger.noteLate(s.name, late)
	conn.Close()
}

// received returns the data that has arrived on a connection, up to 4 KiB, without waiting.
func received(conn *net.TCPConn, flags int) []byte {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	b, n := make([]byte, 4<<10), 0
	raw.Control(func(fd uintptr) { n, _, _ = syscall.Recvfrom(int(fd), b, flags) })
	return b[:max(n, 0)]
}
