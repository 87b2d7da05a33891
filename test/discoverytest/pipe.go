package discoverytest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Pipe serves a Consul, or what stands in front of one, over in-memory connections, which a
// testing/synctest bubble can wait for, as it cannot for sockets.
type Pipe struct {
	server   http.Server
	accepted chan net.Conn
	closed   chan struct{}
	close    sync.Once
	serving  sync.WaitGroup

	// Closing, if not nil, is called before the server closes a connection: a busy agent takes
	// a while. It is set before the first connection.
	Closing func()

	mu        sync.Mutex // guards the fields below
	now, most int        // connections of the server
}

// ServePipe serves c until Close.
func ServePipe(c http.Handler) *Pipe {
	p := &Pipe{accepted: make(chan net.Conn), closed: make(chan struct{})}
	p.server.Handler = c
	p.serving.Go(func() { p.server.Serve(pipeListener{p}) })
	return p
}

// DialContext connects to the server, whatever the address.
func (p *Pipe) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	up, serverUp := net.Pipe()
	down, serverDown := net.Pipe()
	select {
	case p.accepted <- &serverConn{pipeConn: pipeConn{Conn: serverUp, out: serverDown}, pipe: p}:
		return pipeConn{Conn: down, out: up}, nil
	case <-p.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close cuts every connection and waits for the server to end.
func (p *Pipe) Close() {
	p.server.Close()
	p.serving.Wait()
}

// Most returns how many connections the server has had at once.
func (p *Pipe) Most() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}

func (p *Pipe) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now += n
	p.most = max(p.most, p.now)
}

// pipeConn is an end of two pipes, one for each direction, so that one may end before the other.
type pipeConn struct {
	net.Conn // what it reads
	out      net.Conn
}

func (c pipeConn) Write(b []byte) (int, error)        { return c.out.Write(b) }
func (c pipeConn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }
func (c pipeConn) SetDeadline(t time.Time) error {
	return errors.Join(c.Conn.SetReadDeadline(t), c.out.SetWriteDeadline(t))
}
func (c pipeConn) CloseWrite() error { return c.out.Close() }
func (c pipeConn) Close() error      { return errors.Join(c.out.Close(), c.Conn.Close()) }

// serverConn is counted until it is closed.
type serverConn struct {
	pipeConn
	pipe    *Pipe
	closing atomic.Bool
}

func (c *serverConn) Close() error {
	if c.closing.Swap(true) {
		return nil
	}
	select {
	case <-c.pipe.closed: // Close holds a mutex
	default:
		if c.pipe.Closing != nil {
			c.pipe.Closing()
		}
	}
	c.pipe.count(-1)
	return c.pipeConn.Close()
}

type pipeListener struct{ *Pipe }

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		l.count(1)
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l pipeListener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return nil
}

func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }
