package socket

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"sluice/test/verify"
)

// A dial has a timeout of 300 ms. The first time, the process stops for longer than that. It dials
// again if the coarse clock does not say that so much time has passed.
func TestDialAfterAPauseOfTheProcess(t *testing.T) {
	t.Parallel()
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	defer l.Close()
	const timeout = 300 * time.Millisecond
	for step, fails := range map[time.Duration]bool{longestStep / 2: false, timeout: true} {
		s, dials := NewSweeper(), 0
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
		verify.That(t, (err != nil) == fails && (!fails || dials == 1), "the clock advances by %v: %d dials, %v", step, dials, err)
	}
}
