package consul

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// inProbingBubble runs f with a client that only probes, in virtual time. lose closes
// its connections.
func inProbingBubble(t *testing.T, keepAlive bool, f func(c *Client, lose func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		pipe := discoverytest.ServePipe(discoverytest.New())
		var mu sync.Mutex
		var conns []net.Conn
		client, err := New(Options{Addresses: []string{"http://fake"}, Log: zerolog.Nop(),
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := pipe.DialContext(ctx, network, address)
				mu.Lock()
				defer mu.Unlock()
				conns = append(conns, conn)
				return conn, err
			}})
		verify.NoError(t, err)
		client.agents.all[0].probeConnections.current.transport.DisableKeepAlives = !keepAlive
		done := client.KeepProbing()
		time.Sleep(10 * time.Second)
		f(client, func() {
			mu.Lock()
			defer mu.Unlock()
			for _, c := range conns {
				c.Close()
			}
		})
		done()
		client.Close()
		pipe.Close()
	})
}

// changedWithin reports whether Changed is closed within d.
func changedWithin(c *Client, d time.Duration) bool {
	changed := c.Changed()
	select {
	case <-changed:
		return true
	case <-time.After(d):
		return false
	}
}

func TestLossOfIdleConnectionIsDetectedOnce(t *testing.T) {
	inProbingBubble(t, true, func(c *Client, lose func()) {
		verify.That(t, !changedWithin(c, time.Minute), "Changed was closed without a loss")
		lose()
		verify.That(t, changedWithin(c, 2*time.Second), "the loss was not detected")
		verify.That(t, !changedWithin(c, time.Minute), "the loss was detected twice")
	})
}

func TestWithoutKeepAliveNoConnectionIsLost(t *testing.T) {
	inProbingBubble(t, false, func(c *Client, _ func()) {
		verify.That(t, !changedWithin(c, time.Minute), "Changed was closed")
	})
}
