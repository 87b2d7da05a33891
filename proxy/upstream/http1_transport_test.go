package upstream

import (
	"errors"
	"math"
	"net"
	"testing"
	"time"

	"sluice/test/verify"
)

func (t *http1Transport) expect(test *testing.T, idle, busy, slots int) {
	test.Helper()
	if i, b := t.Connections(); i != idle || b != busy || t.pool.ConnsCount() != slots {
		test.Errorf("%d idle, %d busy, %d slots; want %d, %d, %d", i, b, t.pool.ConnsCount(), idle, busy, slots)
	}
}

func TestLastUsedConnectionIsUsedFirst(t *testing.T) {
	t.Parallel()
	transport := startTransport(t, Options{}, hanging)
	first, second := transport.opened(t), transport.opened(t)
	transport.expect(t, 0, 2, 2)
	transport.release(second)
	transport.release(first)
	transport.expect(t, 2, 0, 2)
	for _, want := range []*HTTP1Conn{first, second} {
		verify.Equal(t, transport.acquire(time.Now()).u, want, "the connection")
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
	transport := startTransport(t, Options{}, hanging)
	other, stale := transport.opened(t), transport.opened(t)
	transport.release(other)
	fresh := transport.dialed(t, transport.detach(stale))
	transport.expect(t, 1, 1, 2)
	verify.That(t, !fresh.used, "the new connection has been used")
	transport.discard(fresh)
	transport.expect(t, 1, 0, 1)
}

func TestIdleConnectionsExpire(t *testing.T) {
	t.Parallel()
	transport := startTransport(t, Options{}, hanging)
	short, long := transport.opened(t), transport.opened(t)
	short.idleTimeout, long.idleTimeout = time.Second, time.Hour
	busy := transport.opened(t)
	transport.release(long)
	transport.release(short)
	now := transport.sweeper.Now()
	transport.CloseIdle(now + int64(time.Minute))
	transport.expect(t, 1, 1, 3)
	verify.Equal(t, transport.acquire(time.Now()).u, long, "which is idle")
	transport.expect(t, 0, 2, 2)
	transport.release(busy)
	transport.release(long)
	transport.CloseIdle(math.MaxInt64)
	transport.expect(t, 0, 0, 0)
}

func TestDrainClosesIdleConnections(t *testing.T) {
	t.Parallel()
	transport := startTransport(t, Options{}, hanging)
	idle, busy, kept := transport.opened(t), transport.opened(t), transport.opened(t)
	transport.release(idle)
	client := &Client{KeepsOwn: true}
	kept.owner.Store(client)
	kept.private = true
	transport.release(kept)
	transport.expect(t, 1, 2, 3)
	transport.Drain()
	transport.expect(t, 0, 1, 1)
	verify.That(t, transport.takeOwn(client) == nil, "the client gets a connection that is closed")
	transport.release(busy)
	transport.expect(t, 0, 0, 0)
	transport.release(transport.opened(t)) // the peer is back
	transport.expect(t, 1, 0, 1)
}

func TestExcusedConnections(t *testing.T) {
	var transport http1Transport
	start := time.Now()
	for _, step := range []struct {
		at   time.Duration
		want bool
	}{
		{0, true}, {0, true}, {500 * time.Millisecond, true}, {900 * time.Millisecond, true}, // as when it restarts
		{1100 * time.Millisecond, false}, {5 * time.Second, false}, {14 * time.Second, false},
		{25 * time.Second, true}, {25500 * time.Millisecond, true},
		{34 * time.Second, false},
	} {
		verify.Equal(t, transport.countsAsStale(start.Add(step.at)), step.want, "after %v", step.at)
	}
}

// Cut ends the connections that are open, and refuses those whose dial began before it.
func TestCutEndsConnectionsThatAreBeingOpened(t *testing.T) {
	t.Parallel()
	transport := startTransport(t, Options{}, hanging)
	before := transport.cutsSoFar()
	idle, busy := transport.opened(t), transport.opened(t)
	transport.release(idle)
	transport.Cut()
	transport.expect(t, 0, 1, 1)
	_, err := busy.wire.Conn.Write([]byte("x"))
	verify.That(t, errors.Is(err, net.ErrClosed), "the busy connection: %v", err)
	verify.Equal(t, transport.admit(before, func() { t.Error("a connection of before is used") }), net.ErrClosed, "a connection of before")
	transport.discard(busy)
	transport.discard(transport.opened(t))
	transport.expect(t, 0, 0, 0)
}
