package h3load

import (
	"bufio"
	"context"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
)

// Idle are connections without requests.
type Idle struct {
	clients []*client

	mu sync.Mutex
	// mu guards the fields below.
	conns []*quic.Conn
	err   error // the first
}

// OpenIdle opens n connections, with one request of l each. The caller must call Close, also after
// an error.
func (l Load) OpenIdle(ctx context.Context, n int) (*Idle, error) {
	const parallel, addresses = 16, 16
	idle := new(Idle)
	r, err := newRequest(l.Server, l.Path, l.Body)
	if err != nil {
		return idle, err
	}
	for i := range addresses { // servers limit the connections of an address
		c, err := newClient(net.IPv4(127, 0, 0, byte(2+i)), l.Server)
		if err != nil {
			return idle, err
		}
		idle.clients = append(idle.clients, c)
	}
	turns := make(chan int, n)
	for i := range n {
		turns <- i
	}
	close(turns)
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() {
			in := bufio.NewReaderSize(nil, inBytes)
			for i := range turns {
				if !idle.open(ctx, idle.clients[i%addresses], &r, in) {
					return
				}
			}
		})
	}
	wg.Wait()
	return idle, idle.err
}

// open opens a connection, and reports false if there is no need for another.
func (i *Idle) open(ctx context.Context, c *client, r *request, in *bufio.Reader) bool {
	conn, err := c.dial(ctx)
	if err == nil {
		err = r.exchange(conn, in)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if conn != nil {
		i.conns = append(i.conns, conn)
	}
	if err != nil && i.err == nil {
		i.err = err
	}
	return i.err == nil
}

// Open returns how many connections are open.
func (i *Idle) Open() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := 0
	for _, c := range i.conns {
		if c.Context().Err() == nil {
			n++
		}
	}
	return n
}

// Close ends the connections.
func (i *Idle) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, c := range i.conns {
		hangUp(c)
	}
	for _, c := range i.clients {
		c.close()
	}
	return nil
}
