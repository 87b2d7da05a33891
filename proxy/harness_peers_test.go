package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// An origin answers each request as its handler says and records the bytes it
// got.
type origin struct {
	t        testing.TB
	listener net.Listener
	handle   func(o *originConn) bool // reads a request and answers; false closes

	mu       sync.Mutex
	received bytes.Buffer
	accepted int
	ended    int
	conns    []net.Conn
	gone     bool
}

// An originConn is a connection of an origin. What is read by it is recorded.
type originConn struct {
	net.Conn
	*bufio.Reader
	origin *origin
	number int  // of the connection, from 1
	served int  // requests on it before this one
	last   bool // it was used for its last request
}

func (c *originConn) Read(b []byte) (int, error) { return c.Reader.Read(b) }

// Write notes what was read from a connection.
func (o *origin) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.received.Write(b)
}

// startOrigin starts a peer that calls handle again and again for each connection.
func startOrigin(t testing.TB, handle func(o *originConn) bool) *origin {
	t.Helper()
	l := listen(t)
	o := &origin{t: t, listener: l, handle: handle}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn = originSide(t, conn)
			o.mu.Lock()
			if o.gone {
				conn.Close()
			}
			o.accepted++
			o.conns = append(o.conns, conn)
			c := &originConn{Conn: conn, Reader: bufio.NewReader(io.TeeReader(conn, o)), origin: o, number: o.accepted}
			o.mu.Unlock()
			wg.Go(func() {
				defer func() {
					conn.Close()
					o.mu.Lock()
					o.ended++
					o.mu.Unlock()
				}()
				for handle(c) {
					c.served++
				}
			})
		}
	})
	t.Cleanup(func() {
		o.close()
		wg.Wait()
	})
	return o
}

// originSide returns conn as an origin of the test uses it.
func originSide(t testing.TB, conn net.Conn) net.Conn {
	if !peersOverTLS(t) {
		return conn
	}
	return tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate()}})
}

func (o *origin) close() {
	o.listener.Close()
	o.leave() // one may be accepted, and not in conns yet
}

// leave closes all connections, also those to come. Its address stays its own: another test would
// answer there.
func (o *origin) leave() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone = true
	for _, c := range o.conns {
		c.Close()
	}
}

func (o *origin) address() string { return o.listener.Addr().String() }

// got returns all that has arrived, of all connections.
func (o *origin) got() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.received.String()
}

// connections returns how many connections were accepted so far.
func (o *origin) connections() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.accepted
}

// hasAccepted reports whether a client's connection has been accepted.
func (o *origin) hasAccepted(client net.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.conns, func(c net.Conn) bool { return c.RemoteAddr().String() == client.String() })
}

// open returns how many connections are open.
func (o *origin) open() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.accepted - o.ended
}

// request reads a request with its body, which it drops.
func (c *originConn) request() (*http.Request, bool) {
	r, err := http.ReadRequest(c.Reader)
	if err != nil {
		return nil, false
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, false
	}
	return r, true
}

// write sends text. Whether it could is what a handler returns then.
func (c *originConn) write(text string) bool {
	_, err := io.WriteString(c.Conn, text)
	return err == nil
}

// answer answers with 200 and that body.
func (c *originConn) answer(body string) bool {
	return c.write(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
}

// afterRequest returns a handler that reads a request before it goes on.
func afterRequest(goOn func(*originConn) bool) func(*originConn) bool {
	return withRequest(func(c *originConn, _ *http.Request) bool { return goOn(c) })
}

// withRequest is afterRequest for one who asks what the request was.
func withRequest(goOn func(*originConn, *http.Request) bool) func(*originConn) bool {
	return func(c *originConn) bool {
		r, ok := c.request()
		return ok && goOn(c, r)
	}
}

// withHead is withRequest for one who reads the body, or leaves it.
func withHead(goOn func(*originConn, *http.Request) bool) func(*originConn) bool {
	return func(c *originConn) bool {
		r, err := http.ReadRequest(c.Reader)
		return err == nil && goOn(c, r)
	}
}

// answering returns a handler that gives the same answer to each request.
func answering(response string) func(*originConn) bool {
	return afterRequest(func(c *originConn) bool {
		return c.write(response)
	})
}

// answersOK starts a peer that answers each request with okResponse, and returns its address.
func answersOK(t testing.TB) (address string) { return startOrigin(t, answering(okResponse)).address() }

// returning answers each request with its body.
var returning = withHead(func(c *originConn, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	return err == nil && c.answer(string(body))
})

// hanging takes a request and never answers.
func hanging(c *originConn) bool {
	c.request()
	io.Copy(io.Discard, c.Conn)
	return false
}

// A heldOrigin has all requests wait but those for /: it tells the target of each, and answers with
// okResponse when it may.
type heldOrigin struct {
	*origin
	arrived chan string
	proceed chan struct{}
}

const heldRequest = "GET /held HTTP/1.1\r\nHost: a\r\n\r\n"

func startHeldOrigin(t testing.TB) *heldOrigin {
	h := &heldOrigin{arrived: make(chan string), proceed: make(chan struct{})}
	ended := make(chan struct{})
	h.origin = startOrigin(t, withRequest(func(c *originConn, r *http.Request) bool {
		if r.RequestURI == "/" {
			return c.write(okResponse)
		}
		select {
		case h.arrived <- r.RequestURI:
		case <-ended:
			return false
		}
		select {
		case <-h.proceed:
		case <-ended:
		}
		return c.write(okResponse)
	}))
	t.Cleanup(func() { close(ended) })
	return h
}

// startServer starts a peer by HTTP/1.1 and HTTP/2, and returns its address.
func startServer(t testing.TB, handler http.HandlerFunc) (address string) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of trailers that net/http does not send
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// echoRequest answers with what a peer got: a line for the request, one for Host, and one
// for each field.
func echoRequest(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Header().Set("X-Peer", "secret")
	w.Header().Add("X-Twice", "1")
	w.Header().Add("X-Twice", "2")
	lines := []string{r.Method + " " + r.RequestURI, "Host: " + r.Host}
	for name, values := range r.Header {
		for _, value := range values {
			lines = append(lines, name+": "+value)
		}
	}
	slices.Sort(lines[2:])
	io.WriteString(w, strings.Join(lines, "\n")+"\n")
}

// greeting speaks first, and sends back what it gets until the client has said all.
func greeting(c *originConn) bool {
	io.WriteString(c.Conn, "220 ready\n")
	io.Copy(c.Conn, c.Reader)
	c.Conn.(interface{ CloseWrite() error }).CloseWrite()
	return false
}
