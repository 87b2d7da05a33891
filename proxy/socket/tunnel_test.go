package socket

import (
	"net"
	"testing"
	"time"

	"sluice/test/verify"
)

// An endingStream is an end of a tunnel that waits for bytes just when the other direction ends.
type endingStream struct {
	entry    *SweepEntry
	other    *relay // to this end
	deadline int64  // of the wait
}

func (s *endingStream) AwaitTunnel() error {
	s.other.end()
	s.deadline = s.entry.Deadline.Load()
	return net.ErrClosed
}

func (s *endingStream) SendTunnel([]byte, bool) error        { return nil }
func (s *endingStream) TakeTunnel([]byte) (n int, last bool) { return 0, false }

// However closely the peer's end and the wait for the client meet, the wait has the timeout of a
// half-closed tunnel.
func TestEndOfOneDirectionShortensTheWaitOfTheOther(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	s := &endingStream{entry: new(SweepEntry)}
	tunnel := &Tunnel{
		Client: TunnelEnd{Stream: s, Entry: s.entry}, Up: TunnelEnd{Entry: new(SweepEntry)},
		Sweeper: NewSweeper(), Timeouts: IdleTimeouts{Open: time.Hour, HalfClosed: time.Minute},
	}
	tunnel.Sweeper.Add(s.entry, here, 0)
	tunnel.active.Store(tunnel.Sweeper.Now())
	var in, out int64
	s.other = newRelay(tunnel, tunnel.Up, tunnel.Client, &out)
	err := newRelay(tunnel, tunnel.Client, tunnel.Up, &in).awaitStream()
	verify.Equal(t, err, net.ErrClosed, "the end of the wait")
	verify.Equal(t, time.Duration(s.deadline-tunnel.Sweeper.Now()), time.Minute+SweepInterval, "the timeout")
}
