package consul

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// connection is an open connection of a generation. It counts its bytes. An agent may refuse it:
// above its limit it answers 429 before it has a request. Then Read and each later Write return the
// answer as a refusal, and the request that is to have the connection fails with it. net/http
// itself would report such an answer as a broken connection, or as the answer, depending on what
// comes first.
type connection struct {
	net.Conn
	connections *connections
	generation  *generation
	requested   atomic.Bool // something has been written
	refused     atomic.Pointer[refusal]
	once        sync.Once
	closed      atomic.Bool
}

// refusal is the answer 429 of an agent to a connection.
type refusal struct{ response *http.Response }

func (r *refusal) Error() string { return "the agent refuses the connection: " + r.response.Status }

// Read implements net.Conn. It fails after Close: what the agent sends then may be because of it.
func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.connections.meter.received.Add(uint64(n))
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	if n == 0 || c.requested.Load() {
		return n, err
	}
	response, invalid := http.ReadResponse(bufio.NewReader(bytes.NewReader(bytes.Clone(p[:n]))), nil)
	if invalid != nil || response.StatusCode != http.StatusTooManyRequests {
		return n, err
	}
	refused := &refusal{response}
	c.refused.Store(refused)
	return 0, refused
}

// Write implements net.Conn. net/http closes the connection after a refusal, perhaps before the
// request is written: the request fails because of the refusal then, and not of the close.
func (c *connection) Write(p []byte) (int, error) {
	c.requested.Store(true)
	n, err := c.Conn.Write(p)
	c.connections.meter.sent.Add(uint64(n))
	if refused := c.refused.Load(); err != nil && refused != nil {
		return n, refused
	}
	return n, err
}

// Close implements net.Conn. It does not wait for the agent.
func (c *connection) Close() (err error) {
	c.once.Do(func() {
		c.closed.Store(true)
		c.connections.meter.countOpen(-1)
		half, ok := c.Conn.(interface{ CloseWrite() error })
		if ok && half.CloseWrite() == nil && c.connections.closeLater(c) {
			return
		}
		err = c.Conn.Close()
		c.connections.free(c, false)
	})
	return err
}

// awaitAgent waits until the agent has closed the connection, or sends too much. It reports whether
// that was within closeTimeout, which does not run while the agent does not answer.
func (c *connection) awaitAgent() bool {
	for {
		silent := c.connections.silent.Load()
		_ = c.SetReadDeadline(time.Now().Add(closeTimeout))
		n, err := io.Copy(io.Discard, io.LimitReader(c.Conn, maxUnread))
		c.connections.meter.received.Add(uint64(n))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return true
		}
		if !silent && !c.connections.silent.Load() {
			return false
		}
	}
}
