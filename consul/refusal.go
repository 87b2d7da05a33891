package consul

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"sync/atomic"
)

// refusableConn is a connection that an agent may refuse: above its limit it answers 429
// before it has a request. Then Read and each later Write return the answer as a refusal, and
// the request that is to have the connection fails with it. net/http itself would report such an
// answer as a broken connection, or as the answer, depending on what comes first.
type refusableConn struct {
	net.Conn
	requested atomic.Bool // something has been written
	refused   atomic.Pointer[refusal]
}

// refusal is the answer 429 of an agent to a connection.
type refusal struct{ response *http.Response }

func (r *refusal) Error() string { return "the agent refuses the connection: " + r.response.Status }

func (c *refusableConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
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
func (c *refusableConn) Write(p []byte) (int, error) {
	c.requested.Store(true)
	n, err := c.Conn.Write(p)
	if refused := c.refused.Load(); err != nil && refused != nil {
		return n, refused
	}
	return n, err
}
