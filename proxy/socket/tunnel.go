package socket

import (
	"errors"
	"sync/atomic"
	"time"

	"sluice/observe/metrics"
	"sluice/observe/panics"
)

// A Tunnel forwards bytes in both directions, after a protocol switch (RFC 9110,
// section 7.8) or for a stream. It ends when both sides have closed their sending
// sides, when a connection breaks, or when neither has sent bytes within the timeout.
// Its attempt stays in flight.
type Tunnel struct {
	Client   TunnelEnd
	Up       TunnelEnd
	Sweeper  *Sweeper
	Timeouts IdleTimeouts
	Requests *metrics.Requests // counts the bytes as they are forwarded
	Shard    uint32

	active     atomic.Int64 // coarse time of the last byte
	halfClosed atomic.Bool
	cutBy      atomic.Pointer[error] // why it was cut; nil: it was not
}

// IdleTimeouts bound the time without a byte in either direction.
type IdleTimeouts struct {
	Open       time.Duration
	HalfClosed time.Duration // after one side has closed its sending side, which counts as a byte
}

// A TunnelEnd is one of the two ends of a tunnel: a connection, or a stream of HTTP/2.
type TunnelEnd struct {
	Wire                // of a connection
	Stream tunnelStream // nil: a connection
	Entry  *SweepEntry
}

// A tunnelStream is an end of a tunnel that shares its connection. All calls are from
// one goroutine, but SendTunnel is from another one.
type tunnelStream interface {
	// SendTunnel sends b, and then the end of this direction if ends. It returns when the other
	// side has allowed to send all of b.
	SendTunnel(b []byte, ends bool) error
	// AwaitTunnel waits until bytes or their end have arrived, or returns
	// os.ErrDeadlineExceeded when the read deadline of the Entry has passed, which may change
	// meanwhile. It removes that.
	AwaitTunnel() error
	// TakeTunnel moves bytes that have arrived to b. last: no more will arrive.
	TakeTunnel(b []byte) (n int, last bool)
}

// isPlain reports whether e is a connection without TLS.
func (e *TunnelEnd) isPlain() bool { return e.Stream == nil && e.TLS == nil }

// CloseWrite closes the sending side.
func (e *TunnelEnd) closeWrite() error {
	if e.Stream != nil {
		return e.Stream.SendTunnel(nil, true)
	}
	return e.Wire.CloseWrite()
}

// ErrIdle means that a tunnel has timed out.
var ErrIdle = errors.New("no byte within the idle timeout")

// BrokenEnd is the error of the end that broke.
type BrokenEnd struct {
	Client bool // else the peer's
	error
}

func (e BrokenEnd) Unwrap() error { return e.error }

// ResetOnClose makes the close of a connection a reset. A stream whose two directions
// have not ended is always reset.
func (e *TunnelEnd) resetOnClose() {
	if e.Stream == nil {
		ResetOnClose(e.Conn)
	}
}

// Run forwards until the tunnel has ended, and adds the number of bytes to in and out.
// early is what the client sent before. cut is nil if both sides closed their sending
// sides; else it is ErrIdle, a BrokenEnd, or net.ErrClosed if a connection was closed
// by another goroutine, and both connections are reset when they are closed: the end of
// what was cut must not look like the end of the bytes.
func (t *Tunnel) Run(early []byte, in, out *int64) (cut error) {
	t.active.Store(t.Sweeper.Now())
	up := newRelay(t, t.Client, t.Up, in)
	up.fromClient = true
	down := newRelay(t, t.Up, t.Client, out)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer panics.Contain(panics.Tunnel, nil)
		up.forward(early)
	}()
	down.forward(nil)
	<-ended
	for _, e := range [...]*SweepEntry{t.Client.Entry, t.Up.Entry} {
		e.Disarm()
		e.WriteDeadline.Store(0)
	}
	err := t.cutBy.Load()
	if err == nil {
		return nil
	}
	t.Client.resetOnClose()
	t.Up.resetOnClose()
	return *err
}

// BreakClient ends both directions, since the client's end is broken. It is safe for concurrent
// use.
func (t *Tunnel) BreakClient() { t.cut(BrokenEnd{true, ErrClosedEarly}) }

// cut ends both directions.
func (t *Tunnel) cut(err error) {
	t.cutBy.CompareAndSwap(nil, &err)
	t.Up.Entry.Interrupt()
	t.Client.Entry.Interrupt()
}

// Touch records that bytes were moved.
func (t *Tunnel) Touch() {
	if now := t.Sweeper.Now(); t.active.Load() != now {
		t.active.Store(now)
	}
}

// Left returns how long the tunnel may be idle from now on. active may be an interval behind.
func (t *Tunnel) Left(now int64) time.Duration {
	timeout := t.Timeouts.Open
	if t.halfClosed.Load() {
		timeout = t.Timeouts.HalfClosed
	}
	return time.Duration(t.active.Load() + int64(timeout+SweepInterval) - now)
}
