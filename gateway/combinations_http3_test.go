package gateway

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/observe/wake"
)

// Protocols of the clients of TestCombinations, as a handshake names them.
const (
	protocolHTTP1 = "http/1.1"
	protocolHTTP2 = "h2"
	protocolHTTP3 = "h3"
)

// protocol returns one that the listener has.
func (e *entrance) protocol(random *rand.Rand) string {
	all := []string{protocolHTTP1, protocolHTTP2}
	if e.secure() && !withoutHTTP3(e.terms.since(e.begun)) {
		all = append(all, protocolHTTP3, protocolHTTP3)
	}
	return all[random.IntN(len(all))]
}

func withoutHTTP3(some []terms) bool {
	return slices.ContainsFunc(some, func(t terms) bool { return !t.http3 })
}

// dialHTTP3 connects a client to its listener with HTTP/3. It is unreachable if it may have been
// switched off.
func (g *generation) dialHTTP3(ctx context.Context, c combinedClient, config *quic.Config) (*quic.Conn, error) {
	begun := g.terms.begin()
	dialing, end := context.WithCancel(ctx)
	defer end()
	go wake.Every(dialing, 20*time.Millisecond, func() { // nothing answers then
		if all := g.terms.since(begun); !all[len(all)-1].http3 {
			end()
		}
	})
	secure := g.clientConfig(c)
	secure.MaxVersion = 0
	conn, err := dialHTTP3(dialing, c.from(), g.Address(c.listener), secure, config)
	by := g.terms.since(begun)
	switch {
	case err == nil:
		g.shaken(c, endsOf(conn.LocalAddr(), conn.RemoteAddr()), conn.ConnectionState().TLS, by)
	case withoutHTTP3(by):
		err = unreachable{err}
	}
	return conn, err
}
