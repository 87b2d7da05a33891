package gateway

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/proxy"
	"sluice/route/places"
)

// adminConnections returns how many connections the admin API has at most: an eighth of the file
// descriptors, so that whoever reaches it takes none that requests to peers need. An address has
// half of them, so that it does not lock out the others.
func adminConnections() int { return min(proxy.HalfOfDescriptors()/4, 1024) }

// An adminListener closes connections over the limits at once.
type adminListener struct {
	net.Listener
	places *places.Places
	log    zerolog.Logger
	warned time.Time // that it has closed one
}

// Accept implements [net.Listener].
func (l *adminListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := places.BlockBeyond(conn)
		if l.places.Take(client, noWait) == nil {
			return &adminConn{Conn: conn, leave: sync.OnceFunc(func() { l.places.Give(client) })}, nil
		}
		conn.Close()
		if time.Since(l.warned) > time.Minute {
			l.warned = time.Now()
			l.log.Warn().Str("listener", adminName).Stringer("client", conn.RemoteAddr()).
				Msg("the admin API has too many connections: further ones are closed at once")
		}
	}
}

// noWait is a wait that is over.
func noWait() (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancel(context.Background())
	end()
	return ctx, end
}

// An adminConn gives its place back when it is closed.
type adminConn struct {
	net.Conn
	leave func()
}

// Close implements [net.Conn].
func (c *adminConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
