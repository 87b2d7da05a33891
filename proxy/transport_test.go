package proxy

import (
	"math"
	"testing"
	"time"

	"sluice/test/verify"
)

// pooled returns a transport without connections, and a function that opens one
// in a slot.
func pooled(t *testing.T) (*Transport, func(*slot) *upstreamConn) {
	p := startProxy(t, Options{}, startOrigin(t, hanging).address())
	transport := p.pool.Snapshot().All[0].Transport.(*Transport)
	return transport, func(s *slot) *upstreamConn {
		t.Helper()
		u, err := transport.dial(t.Context(), s, time.Now(), patience, 0, nil)
		verify.NoError(t, err)
		return u
	}
}

func (t *Transport) expect(test *testing.T, idle, busy, slots int) {
	test.Helper()
	if i, b := t.Connections(); i != idle || b != busy || t.pool.ConnsCount() != slots {
		test.Errorf("%d idle, %d busy, %d slots; want %d, %d, %d", i, b, t.pool.ConnsCount(), idle, busy, slots)
	}
}

func TestLastUsedConnectionIsUsedFirst(t *testing.T) {
	t.Parallel()
	transport, dial := pooled(t)
	first, second := dial(transport.acquire(time.Now())), dial(transport.acquire(time.Now()))
	transport.expect(t, 0, 2, 2)
	transport.release(second)
	transport.release(first)
	transport.expect(t, 2, 0, 2)
	for _, want := range []*upstreamConn{first, second} {
		verify.Equal(t, transport.acquire(time.Now()).u, want, "result")
	}
	if s := transport.acquire(time.Now()); s.u != nil {
		t.Error("there is a third connection")
	} else {
		s.remove()
	}
	transport.discard(first)
	transport.discard(second)
	transport.expect(t, 0, 0, 0)
}

// The connection in place of one that is stale is a new one, also where others are
// idle, and there are no more than before.
func TestStaleConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	transport, dial := pooled(t)
	other, stale := dial(transport.acquire(time.Now())), dial(transport.acquire(time.Now()))
	transport.release(other)
	fresh := dial(transport.detach(stale))
	transport.expect(t, 1, 1, 2)
	verify.That(t, !fresh.used, "the new connection has been used")
	transport.discard(fresh)
	transport.expect(t, 1, 0, 1)
}

func TestIdleConnectionsExpire(t *testing.T) {
	t.Parallel()
	transport, dial := pooled(t)
	short, long := dial(transport.acquire(time.Now())), dial(transport.acquire(time.Now()))
	short.idleTimeout, long.idleTimeout = time.Second, time.Hour
	busy := dial(transport.acquire(time.Now()))
	transport.release(long)
	transport.release(short)
	now := transport.sweeper.Now()
	transport.closeIdle(now + int64(time.Minute))
	transport.expect(t, 1, 1, 3)
	verify.Equal(t, transport.acquire(time.Now()).u, long, "which is idle")
	transport.expect(t, 0, 2, 2)
	transport.release(busy)
	transport.release(long)
	transport.closeIdle(math.MaxInt64)
	transport.expect(t, 0, 0, 0)
}

func TestDrainClosesIdleConnections(t *testing.T) {
	t.Parallel()
	transport, dial := pooled(t)
	idle, busy := dial(transport.acquire(time.Now())), dial(transport.acquire(time.Now()))
	transport.release(idle)
	transport.Drain()
	transport.expect(t, 0, 1, 1)
	transport.release(busy)
	transport.expect(t, 0, 0, 0)
	transport.release(dial(transport.acquire(time.Now()))) // the peer is back
	transport.expect(t, 1, 0, 1)
}
