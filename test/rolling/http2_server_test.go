//go:build unix

package rolling

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluice/test/consultest"
	"sluice/test/testcert"
)

// http2Server is net/http's server, with HTTP/2 over TLS. Its responses are http1Server's.
type http2Server struct {
	instance
	listener *trackedListener
	server   *http.Server
	stopping atomic.Bool
	ended    chan struct{} // closed when the server has ended
}

// settingsTimeout is when net/http's server closes a connection whose SETTINGS it has not
// processed.
const settingsTimeout = 2 * time.Second

func startHTTP2(i instance) (server, error) {
	certificate, err := tls.X509KeyPair(testcert.PEM("instance"))
	if err != nil {
		return nil, err
	}
	listener, err := listenTracked()
	if err != nil {
		return nil, err
	}
	s := &http2Server{instance: i, listener: listener, ended: make(chan struct{})}
	listener.unserved = func(age time.Duration) {
		if age >= settingsTimeout && !s.stopping.Load() {
			i.ledger.bury(s.address())
		}
	}
	s.server = &http.Server{
		Handler: s,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c.(*tls.Conn).NetConn())
		},
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
		ErrorLog:  log.New(io.Discard, "", 0), // connections that end early are a part of the test
	}
	go func() {
		defer close(s.ended)
		_ = s.server.ServeTLS(listener, "", "") // until stop or reset
	}()
	return s, nil
}

func (s *http2Server) address() string { return s.listener.Addr().String() }

func (s *http2Server) stop() {
	s.stopping.Store(true)
	_ = s.server.Shutdown(context.Background()) // the listener may be closed already
	<-s.ended
}

func (s *http2Server) reset() {
	s.listener.reset()
	_ = s.server.Close()
	<-s.ended
}

// connKey is the key of a request's *trackedConn in its context.
type connKey struct{}

func (s *http2Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Context().Value(connKey{}).(*trackedConn).served.Store(true)
	id, err := strconv.Atoi(r.URL.Path[1:])
	counted := err == nil
	if counted {
		s.ledger.note(s.name, id)
	}
	checksum := crc32.NewIEEE()
	length, err := io.Copy(checksum, r.Body)
	if err != nil || !s.do() {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "%s %s %d %d\n", s.name, r.URL.Path[1:], length, checksum.Sum32())
	if counted {
		s.ledger.noteAnswer(id)
	}
}

// trackedListener can reset the connections that it has accepted. Its methods may be called
// concurrently.
type trackedListener struct {
	*net.TCPListener
	unserved func(age time.Duration) // if not nil: called when the server closes a connection without a request

	mu    sync.Mutex // guards the field below
	conns map[*trackedConn]bool
}

func listenTracked() (*trackedListener, error) {
	l, err := consultest.Listen()
	return &trackedListener{TCPListener: l, conns: make(map[*trackedConn]bool)}, err
}

func (l *trackedListener) Accept() (net.Conn, error) {
	conn, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		conn.SetLinger(0)
		conn.Close()
		return nil, errors.New("the instance is dead")
	}
	c := &trackedConn{TCPConn: conn, listener: l, accepted: time.Now()}
	l.conns[c] = true
	return c, nil
}

// reset closes the listener and resets all connections.
func (l *trackedListener) reset() {
	l.TCPListener.Close()
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		c.SetLinger(0)
		c.TCPConn.Close()
	}
}

type trackedConn struct {
	*net.TCPConn
	listener *trackedListener
	accepted time.Time
	served   atomic.Bool // a request has arrived
}

func (c *trackedConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	if c.listener.unserved != nil && !c.served.Load() {
		c.listener.unserved(time.Since(c.accepted))
	}
	return c.TCPConn.Close()
}
