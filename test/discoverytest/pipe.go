package discoverytest

import (
	"context"
	"errors"
	"io"
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
	// Limit, if not 0, is how many connections the server accepts. A further one gets an answer
	// 429, as from Consul. It is set before the first connection.
	Limit int

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

// refuse answers 429 to a connection above the limit, and reports whether it does.
func (p *Pipe) refuse(conn net.Conn) bool {
	p.mu.Lock()
	full := p.Limit > 0 && p.now >= p.Limit
	p.mu.Unlock()
	if full {
		p.serving.Go(func() {
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		})
	}
	return full
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
	for {
		select {
		case conn := <-l.accepted:
			if l.refuse(conn.(*serverConn).pipeConn) {
				continue
			}
			l.count(1)
			return conn, nil
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

func (l pipeListener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return nil
}

func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }
