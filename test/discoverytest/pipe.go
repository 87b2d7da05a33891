package discoverytest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
)

// Pipe serves a Consul, or what stands in front of one, over in-memory connections, which a
// testing/synctest bubble can wait for, as it cannot for sockets.
type Pipe struct {
	server   http.Server
	accepted chan net.Conn
	closed   chan struct{}
	close    sync.Once
	serving  sync.WaitGroup
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
	client, server := net.Pipe()
	select {
	case p.accepted <- server:
		return client, nil
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

type pipeListener struct{ *Pipe }

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
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
