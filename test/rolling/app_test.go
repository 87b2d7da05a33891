//go:build unix

package rolling

import (
	"bufio"
	"context"
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
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
)

// lastAccepts is how long an instance accepts connections before it closes its listener, so it can
// record the requests that have arrived.
const lastAccepts = 2 * time.Millisecond

// app is an instance of an application: a small HTTP/1.1 server that can end in all relevant
// ways, with control of its sockets. One goroutine per connection reads and closes it.
//
// Its response contains its id, the id of the request, and the length and the checksum of the
// request body.
type app struct {
	registration
	ledger   *ledger
	listener *net.TCPListener
	work     atomic.Int64  // duration of a request in nanoseconds
	hung     chan struct{} // closed when it hangs
	dead     chan struct{} // closed when it dies
	running  sync.WaitGroup

	mu       sync.Mutex            // guards the fields below
	conns    map[*net.TCPConn]bool // whether a request is in progress
	stopping bool
}

// startApp starts an instance, which is not registered.
func startApp(consul *api.Client, l *ledger, service, id string, work time.Duration) (*app, error) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	a := &app{
		registration: registration{consul: consul, id: id, service: service, port: listener.Addr().(*net.TCPAddr).Port},
		ledger:       l, listener: listener,
		hung: make(chan struct{}), dead: make(chan struct{}),
		conns: make(map[*net.TCPConn]bool),
	}
	a.work.Store(int64(work))
	a.running.Go(a.accept)
	return a, nil
}

func (a *app) accept() {
	for {
		conn, err := a.listener.AcceptTCP()
		if err != nil { // closed by stop or die
			a.acceptRest()
			a.listener.Close()
			return
		}
		a.take(conn)
	}
}

// acceptRest accepts the waiting connections, which exist on a busy machine. A close of the
// listener would reset them, and their requests would not be recorded.
func (a *app) acceptRest() {
	raw, err := a.listener.SyscallConn()
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
			a.take(conn.(*net.TCPConn))
		}
	}
}

// take serves a connection.
func (a *app) take(conn *net.TCPConn) {
	a.mu.Lock()
	a.conns[conn] = false
	if a.stopping {
		conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	}
	a.mu.Unlock()
	a.running.Go(func() { a.serve(conn) })
}

// stop finishes the requests that have arrived, and closes all sockets.
func (a *app) stop() {
	a.mu.Lock()
	a.stopping = true
	for conn, busy := range a.conns {
		if !busy {
			conn.SetReadDeadline(time.Now())
		}
	}
	a.mu.Unlock()
	a.listener.SetDeadline(time.Now().Add(lastAccepts))
	a.running.Wait()
}

// die resets all connections and closes the listener. Requests may be lost.
func (a *app) die() {
	a.ledger.doom(a.id)
	a.reset()
	a.ledger.bury(a.listener.Addr().String())
}

// reset is die, but the ledger does not accept lost requests because of it.
func (a *app) reset() {
	close(a.dead)
	a.mu.Lock()
	a.stopping = true
	for conn := range a.conns {
		conn.SetReadDeadline(time.Now())
	}
	a.mu.Unlock()
	a.listener.SetDeadline(time.Now().Add(lastAccepts))
	a.running.Wait()
}

// hang makes the instance accept and read, but not answer.
func (a *app) hang() {
	a.ledger.doom(a.id)
	close(a.hung)
}

func (a *app) serve(conn *net.TCPConn) {
	defer a.close(conn)
	reader := bufio.NewReader(conn)
	for {
		if _, err := reader.Peek(1); err != nil && !a.woken(conn, err) {
			return
		}
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		if id, err := strconv.Atoi(strings.TrimPrefix(request.URL.Path, "/")); err == nil {
			a.ledger.note(a.id, id)
		}
		last := a.begin(conn) || request.Close
		if !a.answer(conn, request, last) || last || !a.end(conn) {
			return
		}
	}
}

// woken reports whether stop ended the wait for a request, and a request has arrived.
func (a *app) woken(conn *net.TCPConn, err error) bool {
	if a.isClosed(a.dead) || !errors.Is(err, os.ErrDeadlineExceeded) || received(conn, syscall.MSG_PEEK) == nil {
		return false
	}
	conn.SetReadDeadline(time.Time{})
	return true
}

// begin marks a connection as busy, and reports whether this request is the last one.
func (a *app) begin(conn *net.TCPConn) (last bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns[conn] = true
	if !a.isClosed(a.dead) {
		conn.SetReadDeadline(time.Time{})
	}
	return a.stopping
}

// end marks a connection as idle, and reports whether another request may follow.
func (a *app) end(conn *net.TCPConn) (more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns[conn] = false
	return !a.stopping
}

// answer reads the body and sends the response, and reports whether it succeeded.
func (a *app) answer(conn *net.TCPConn, request *http.Request, last bool) bool {
	checksum := crc32.NewIEEE()
	length, err := io.Copy(checksum, request.Body)
	if err != nil {
		return false
	}
	timer := time.NewTimer(time.Duration(a.work.Load()))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.dead:
		return false
	}
	if a.isClosed(a.hung) {
		<-a.dead
		return false
	}
	text := fmt.Sprintf("%s %s %d %d\n", a.id, request.URL.Path[1:], length, checksum.Sum32())
	connection := ""
	if last {
		connection = "Connection: close\r\n"
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n%sContent-Length: %d\r\n\r\n%s", connection, len(text), text)
	if err != nil {
		return false
	}
	if id, err := strconv.Atoi(request.URL.Path[1:]); err == nil {
		a.ledger.noteAnswer(id)
	}
	return true
}

// close resets the connection if the instance died, and otherwise closes it without loss of
// data. In both cases the ledger records the requests that had arrived.
func (a *app) close(conn *net.TCPConn) {
	a.mu.Lock()
	delete(a.conns, conn)
	a.mu.Unlock()
	if a.isClosed(a.dead) {
		a.ledger.noteLate(a.id, received(conn, 0))
		conn.SetLinger(0)
		conn.Close()
		return
	}
	// Data that crosses the end of the stream is too late.
	conn.CloseWrite()
	conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	late, _ := io.ReadAll(conn)
	a.ledger.noteLate(a.id, late)
	conn.Close()
}

func (a *app) isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
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

// registration is the registration of an instance in Consul. Its methods must not be called
// concurrently.
type registration struct {
	consul      *api.Client
	id, service string
	port        int
	ttl         bool          // the instance sets its check; otherwise Consul queries /health
	timeout     time.Duration // of this query

	cancel context.CancelFunc // ends keep; nil: not registered
	ended  chan struct{}      // closed when keep has ended
}

// register registers the instance as passing, and keeps it registered.
func (r *registration) register() error {
	if err := r.send(context.Background()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan struct{})
	go r.keep(ctx)
	return nil
}

func (r *registration) send(ctx context.Context) error {
	check := &api.AgentServiceCheck{Status: api.HealthPassing, DeregisterCriticalServiceAfter: "1m"}
	if r.ttl {
		check.TTL = "1m"
	} else {
		check.HTTP = fmt.Sprintf("http://127.0.0.1:%d/health", r.port)
		check.Interval, check.Timeout = "1s", r.timeout.String()
	}
	service := &api.AgentServiceRegistration{ID: r.id, Name: r.service, Address: "127.0.0.1", Port: r.port, Check: check}
	if err := r.consul.Agent().ServiceRegisterOpts(service, api.ServiceRegisterOpts{}.WithContext(ctx)); err != nil {
		return fmt.Errorf("register %s: %w", r.id, err)
	}
	return nil
}

// keep registers the instance again if Consul has lost it.
func (r *registration) keep(ctx context.Context) {
	defer close(r.ended)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, _, err := r.consul.Agent().Service(r.id, (&api.QueryOptions{}).WithContext(ctx))
		var status api.StatusError
		if errors.As(err, &status) && status.Code == http.StatusNotFound {
			_ = r.send(ctx) // or after the next tick
		}
	}
}

// abandon does not remove the registration, like a process that dies.
func (r *registration) abandon() {
	if r.cancel != nil {
		r.cancel()
		<-r.ended
		r.cancel = nil
	}
}

func (r *registration) deregister() error {
	r.abandon()
	if err := r.consul.Agent().ServiceDeregister(r.id); err != nil {
		return fmt.Errorf("deregister %s: %w", r.id, err)
	}
	return nil
}

// flap changes a TTL check every second until ctx ends.
func (r *registration) flap(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for passing := false; ; passing = !passing {
		status := api.HealthCritical
		if passing {
			status = api.HealthPassing
		}
		if err := r.consul.Agent().UpdateTTL("service:"+r.id, "", status); err != nil {
			return fmt.Errorf("flap %s: %w", r.id, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
