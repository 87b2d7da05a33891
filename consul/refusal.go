package consul

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/hashicorp/consul/api"
)

// refusableConn is a connection that an agent may refuse: above its limit it answers 429
// before it has a request. Then Read returns this status as an error, and the request
// that is to have the connection fails with it. net/http itself would report such an
// answer as a broken connection, or as the answer, depending on what comes first.
type refusableConn struct {
	net.Conn
	requested atomic.Bool // something has been written
}

func (c *refusableConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == 0 || c.requested.Load() {
		return n, err
	}
	response, invalid := http.ReadResponse(bufio.NewReader(bytes.NewReader(p[:n])), nil)
	if invalid != nil {
		return n, err
	}
	body, _ := io.ReadAll(response.Body) // what has arrived of it
	_ = response.Body.Close()
	return 0, explain(api.StatusError{Code: response.StatusCode, Body: string(body)}, "")
}

func (c *refusableConn) Write(p []byte) (int, error) {
	c.requested.Store(true)
	return c.Conn.Write(p)
}
