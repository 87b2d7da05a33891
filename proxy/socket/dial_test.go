package socket

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"sluice/test/verify"
)

// dialAfterPause dials a listener with a timeout of 300 ms. The first time, the process
// stops for longer than that, in which the coarse clock advances by step.
func dialAfterPause(t *testing.T, step time.Duration) (dials int, err error) {
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	defer l.Close()
	const timeout = 300 * time.Millisecond
	s := NewSweeper()
	conn, err := Dial(t.Context(), s, l.Addr().String(), timeout, func(context.Context, string, string, syscall.RawConn) error {
		if dials++; dials == 1 {
			<-time.After(timeout + 50*time.Millisecond)
			s.Advance(step)
		}
		return nil
	})
	if err == nil {
		conn.Close()
	}
	return dials, err
}

func TestDialAfterAPauseOfTheProcess(t *testing.T) {
	t.Parallel()
	_, err := dialAfterPause(t, longestStep/2)
	verify.Succeeds(t, err)
}

func TestDialTimeout(t *testing.T) {
	t.Parallel()
	dials, err := dialAfterPause(t, 300*time.Millisecond)
	verify.That(t, err != nil && dials == 1, "%d dials, error %v: want one that times out", dials, err)
}
