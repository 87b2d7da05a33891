package socket

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"sluice/test/verify"
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
	s, conn := NewSweeper(), new(expiring)
	var e SweepEntry
	s.Add(&e, conn, 0)
	e.Arm(s, time.Second)
	for passed := SweepInterval; passed <= time.Second; passed += SweepInterval {
		s.Sweep(SweepInterval)
		verify.Require(t, conn.woken == (passed == time.Second), "after %v: woken %v", passed, conn.woken)
	}
	verify.That(t, e.Expired(s), "the deadline has not passed")
	e.Disarm()
	conn.woken = false
	s.Sweep(SweepInterval)
	verify.That(t, !conn.woken, "woken without a deadline")
}

// A process that has stood still gives those that it waits for the time that it
// would have given them.
func TestTimeInWhichTheProcessDidNotRunHardlyCounts(t *testing.T) {
	s, conn := NewSweeper(), new(expiring)
	var e SweepEntry
	s.Add(&e, conn, 0)
	e.Arm(s, time.Second)
	s.Sweep(time.Hour)
	verify.Require(t, !conn.woken, "all waits end when the process runs on")
	for range (time.Second - longestStep) / SweepInterval {
		s.Sweep(SweepInterval)
	}
	verify.That(t, conn.woken, "the time after it does not count")
}

// Whatever deadlines entries get, they are woken at the first sweep at which one
// has passed, and at no other. One that has been removed is not looked at.
func TestWheelKeepsDeadlines(t *testing.T) {
	random := rand.New(rand.NewPCG(verify.Seed(t), 0))
	s := NewSweeper()
	entries, conns := make([]SweepEntry, 50), make([]expiring, 50)
	for i := range entries {
		s.Add(&entries[i], &conns[i], uint32(i))
	}
	removed := make([]bool, len(entries))
	timeouts := []time.Duration{0, 10 * time.Millisecond, time.Second, 10 * time.Second, wheelSlots * SweepInterval, time.Minute}
	for range 20_000 {
		i := random.IntN(len(entries))
		switch e := &entries[i]; {
		case random.IntN(10) > 0:
			e.Arm(s, timeouts[random.IntN(len(timeouts))])
		case removed[i]:
			s.Add(e, &conns[i], random.Uint32())
			e.Disarm()
			removed[i] = false
		default:
			e.Remove()
			removed[i] = true
		}
		if random.IntN(20) > 0 {
			continue
		}
		s.Sweep(time.Duration(random.Int64N(int64(2 * longestStep))))
		for i := range entries {
			want := !removed[i] && Passed(&entries[i].Deadline, s.Now())
			verify.Require(t, conns[i].woken == want, "entry %d: woken %v at %d with the deadline %d", i, conns[i].woken, s.Now(), entries[i].Deadline.Load())
			conns[i].woken = false
		}
	}
}

// No deadline is missed that is set while a sweep looks at the connection.
func TestDeadlinesMeetSweeps(t *testing.T) {
	s := NewSweeper()
	stop := make(chan struct{})
	var sweeps, waits sync.WaitGroup
	sweeps.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.Sweep(SweepInterval)
			}
		}
	})
	for i := range 4 {
		waits.Go(func() {
			conn := &signalling{woken: make(chan struct{}, 1)}
			var e SweepEntry
			s.Add(&e, conn, uint32(i))
			for n := range 2000 {
				e.Arm(s, time.Minute)
				e.Arm(s, time.Duration(n%3)*SweepInterval+1)
				select {
				case <-conn.woken:
				case <-time.After(time.Minute):
					t.Error("a deadline was missed")
					return
				}
				e.Disarm()
			}
			e.Remove()
		})
	}
	waits.Wait()
	close(stop)
	sweeps.Wait()
}

// signalling is a connection that says when it was woken.
type signalling struct {
	net.Conn
	woken chan struct{}
}

func (s *signalling) SetReadDeadline(time.Time) error {
	select {
	case s.woken <- struct{}{}:
	default:
	}
	return nil
}

// What a sweep costs with idle connections of clients, and the deadlines of a
// request.
func BenchmarkSweep(b *testing.B) {
	s := NewSweeper()
	entries := make([]SweepEntry, 10_000)
	for i := range entries {
		s.Add(&entries[i], nil, uint32(i))
		entries[i].Arm(s, 75*time.Second)
	}
	b.Run("10000 idle", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			if s.Sweep(SweepInterval); n%1000 == 0 { // in 50 s
				for i := range entries {
					entries[i].Arm(s, 75*time.Second)
				}
			}
		}
	})
	b.Run("arm", func(b *testing.B) {
		for b.Loop() {
			entries[0].Arm(s, time.Second)
		}
	})
}
