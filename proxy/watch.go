package proxy

import "time"

// How soon, and how often, it is looked whether a client still waits for its
// response.
const (
	firstLook = 100 * time.Millisecond
	laterLook = 250 * time.Millisecond
)

// A clientWatch looks whether the client that an upstream connection works for
// is still there, so that a peer is not kept busy for nobody. Only exchanges
// that take long are looked at, by the sweeper's goroutine, so that all others
// pay nothing for it. Its fields belong to that goroutine.
type clientWatch struct {
	client   *clientConn
	deadline int64 // the connection's, when client was first seen
	nextLook int64 // coarse time
}

// look is called at every sweep.
func (w *clientWatch) look(u *upstreamConn, now int64) {
	client, deadline := u.client.Load(), u.deadline.Load()
	switch {
	case client == nil || deadline == 0:
		w.client = nil
	case client != w.client || deadline != w.deadline:
		// Something has moved since the last look.
		*w = clientWatch{client, deadline, now + int64(firstLook)}
	case now >= w.nextLook:
		w.nextLook = now + int64(laterLook)
		// Only if the connection still works on the exchange that was looked
		// at: otherwise its deadline is another one by now.
		if client.isGone() && u.deadline.CompareAndSwap(deadline, 1) {
			client.gone.Store(true)
			u.writeDeadline.CompareAndSwap(deadline, 1) // where it still sends the request
			u.conn.SetDeadline(aLongTimeAgo)
		}
	}
}

// watchClient has the client looked after while u works for it.
func (x *httpExchange) watchClient(u *upstreamConn) {
	if !x.client.server.options.KeepForGoneClients {
		u.client.Store(x.client)
	}
}

// isGone reports whether the client has closed its connection. One that closed
// only its sending side counts as gone: the two look the same, and nginx
// decides so too.
func (c *clientConn) isGone() bool {
	if c.peek == nil {
		c.peek = func(fd uintptr) { c.peeked = ended(fd) }
	}
	return c.raw.Control(c.peek) == nil && c.peeked
}
