package upstream

import (
	"errors"
	"net"
	"testing"
	"time"

	"sluice/test/verify"
)

// A request by HTTP/2 that comes first, after the end of the peer, opens no connection.
func TestNoHTTP2AfterTheEnd(t *testing.T) {
	t.Parallel()
	transport := startPeer(t, Options{}, func(net.Conn) { t.Error("a connection was opened") })
	transport.Close()
	_, _, err := transport.Connect(t.Context(), Requirements{HTTP2: true, Picked: time.Now(), Timeout: patience, Client: &Client{Presence: there{}}}, nil)
	verify.That(t, errors.Is(err, net.ErrClosed), "got %v", err)
	idle, busy := transport.Connections()
	verify.That(t, idle+busy == 0, "%d idle, %d busy connections", idle, busy)
}
