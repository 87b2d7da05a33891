package consul

import (
	"context"
	"io"
	"net"
	"net/http"
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
func inProbingBubble(t *testing.T, keepAlive bool, f func(c *Client, fake *discoverytest.Consul, lose func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fake := discoverytest.New()
		pipe := discoverytest.ServePipe(fake)
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
		f(client, fake, func() {
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
	inProbingBubble(t, true, func(c *Client, _ *discoverytest.Consul, lose func()) {
		verify.That(t, !changedWithin(c, time.Minute), "Changed was closed without a loss")
		lose()
		verify.That(t, changedWithin(c, 2*time.Second), "the loss was not detected")
		verify.That(t, !changedWithin(c, time.Minute), "the loss was detected twice")
	})
}

func TestWithoutKeepAliveNoConnectionIsLost(t *testing.T) {
	inProbingBubble(t, false, func(c *Client, _ *discoverytest.Consul, _ func()) {
		verify.That(t, !changedWithin(c, time.Minute), "Changed was closed")
	})
}

// However few probes have failed in an outage, views may lag after it: also for a loop that had no
// query in flight.
func TestViewsAreBypassedAfterAShortOutage(t *testing.T) {
	inProbingBubble(t, true, func(c *Client, fake *discoverytest.Consul, _ func()) {
		fake.BreakProbes(http.StatusInternalServerError)
		for c.Healthy() {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(outage * 9 / 10) // with one more failed probe
		fake.Heal()
		for !c.Healthy() {
			time.Sleep(time.Millisecond)
		}
		q := Query{Path: "health/service/star", View: true}
		q.WaitIndex, q.WaitTime = 1, time.Minute
		_, err := c.Get(context.Background(), q, func(io.Reader) error { return nil })
		verify.NoError(t, err)
		verify.Equal(t, fake.Requests()[0].Near, "_agent", "the query asks for the order by distance of")
	})
}
