package proxy

import (
	"net"
	"testing"
	"time"
)

// expiring is a connection that notes that it was woken.
type expiring struct {
	net.Conn
	woken bool
}

func (e *expiring) SetReadDeadline(time.Time) error {
	e.woken = true
	return nil
}

func TestTimeoutsActInTime(t *testing.T) {
	s, conn := newSweeper(), new(expiring)
	var e sweepEntry
	s.add(&e, conn, 0)
	e.arm(s, time.Second)
	for passed := sweepInterval; passed <= time.Second; passed += sweepInterval {
		s.sweep(sweepInterval)
		if conn.woken != (passed == time.Second) {
			t.Fatalf("after %v: woken %v", passed, conn.woken)
		}
	}
	if !e.expired(s) {
		t.Error("the deadline has not passed")
	}
	e.disarm()
	conn.woken = false
	s.sweep(sweepInterval)
	if conn.woken {
		t.Error("woken without a deadline")
	}
}

// A process that has stood still gives those that it waits for the time that it
// would have given them.
func TestTimeInWhichTheProcessDidNotRunHardlyCounts(t *testing.T) {
	s, conn := newSweeper(), new(expiring)
	var e sweepEntry
	s.add(&e, conn, 0)
	e.arm(s, time.Second)
	s.sweep(time.Hour)
	if conn.woken {
		t.Fatal("all waits end when the process runs on")
	}
	for range (time.Second - longestStep) / sweepInterval {
		s.sweep(sweepInterval)
	}
	if !conn.woken {
		t.Error("the time after it does not count")
	}
}
