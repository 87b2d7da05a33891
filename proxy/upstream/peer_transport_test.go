//lint:file-ignore SA1019 net/http refuses the field :protocol.

package upstream

import (
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"sluice/proxy/socket"
	"sluice/test/verify"
)

// by returns the requirements of a request by HTTP/2 or HTTP/1.1.
func by(http2 bool) Requirements {
	return Requirements{HTTP2: http2, Picked: time.Now(), Timeout: patience, Pause: patience, Client: &Client{Presence: there{}}}
}

// What ends the connections to a peer ends those of both protocols.
func TestBothProtocolsEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*peerTransport){
		"Drain": (*peerTransport).Drain, "Cut": (*peerTransport).Cut, "Close": (*peerTransport).Close,
		"CloseIdle": func(t *peerTransport) { t.CloseIdle(math.MaxInt64) },
	} {
		transport := startPeer(t, Options{}, func(conn net.Conn) {
			start := make([]byte, len("PRI"))
			if _, err := io.ReadFull(conn, start); err == nil && string(start) == "PRI" {
				xhttp2.NewFramer(conn, nil).WriteSettings()
			}
			hanging(conn)
		})
		older, _, err := transport.Connect(t.Context(), by(false), nil)
		verify.NoError(t, err)
		newer, _, err := transport.Connect(t.Context(), by(true), nil)
		verify.NoError(t, err)
		idle, busy := transport.Connections()
		verify.That(t, idle == 0 && busy == 2, "%s: %d idle and %d busy connections before", name, idle, busy)
		older.Finish(false)
		newer.Finish(false)
		eventually(t, name+": the connection of HTTP/2 is idle", func() bool { idle, busy := transport.Connections(); return idle == 1 && busy == 0 })
		end(transport)
		eventually(t, name+": no connection is left", func() bool { idle, busy := transport.Connections(); return idle+busy == 0 })
	}
}

// The first request by HTTP/2 meets what became of the peer before: it opens no connection after
// the end, and knows of a suspicion.
func TestFirstRequestByHTTP2(t *testing.T) {
	t.Parallel()
	transport := startPeer(t, Options{}, func(net.Conn) { t.Error("a connection was opened") })
	picked := time.Now()
	transport.Suspect()
	transport.Close()
	_, _, err := transport.Connect(t.Context(), by(true), nil)
	verify.That(t, errors.Is(err, net.ErrClosed), "got %v", err)
	verify.That(t, transport.http2.suspectedSince(picked), "it does not know of the suspicion")
}

// A suspicion of the peer ends the waits for its answers by HTTP/2 too.
func TestSuspicionIsOfBothProtocols(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	transport := startPeer(t, Options{}, func(conn net.Conn) {
		framer := xhttp2.NewFramer(conn, conn)
		if _, err := io.ReadFull(conn, make([]byte, len(xhttp2.ClientPreface))); err != nil || framer.WriteSettings() != nil {
			return
		}
		for {
			switch frame, err := framer.ReadFrame(); frame.(type) {
			case nil:
				return
			case *xhttp2.HeadersFrame:
				close(asked)
			default:
				verify.NoError(t, err)
			}
		}
	})
	c, _, err := transport.Connect(t.Context(), by(true), nil)
	verify.NoError(t, err)
	defer c.Finish(false)
	var suspecting sync.WaitGroup
	defer suspecting.Wait()
	suspecting.Go(func() {
		<-asked
		transport.Suspect()
	})
	c.WaitAtMost(30 * time.Second) // a wait without the suspicion
	b := &socket.Buffers{Out: []byte(request)}
	defer b.GiveBack()
	_, err = c.Send(b, nil, nil, Until{Suspicion: true})
	verify.That(t, err == ErrSuspected, "got %v", err)
}
