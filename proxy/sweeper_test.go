package proxy

import (
	"math/rand/v2"
	"net"
	"sync"
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

// Whatever deadlines entries get, they are woken at the first sweep at which one
// has passed, and at no other.
func TestWheelKeepsDeadlines(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := newSweeper()
	entries, conns := make([]sweepEntry, 50), make([]expiring, 50)
	for i := range entries {
		s.add(&entries[i], &conns[i], uint32(i))
	}
	timeouts := []time.Duration{0, 10 * time.Millisecond, time.Second, 10 * time.Second, wheelSlots * sweepInterval, time.Minute}
	for range 20_000 {
		i := random.IntN(len(entries))
		if e, timeout := &entries[i], timeouts[random.IntN(len(timeouts))]; random.IntN(10) > 0 {
			e.arm(s, timeout)
		} else {
			e.remove()
			s.add(e, &conns[i], random.Uint32())
			e.disarm()
		}
		if random.IntN(20) > 0 {
			continue
		}
		s.sweep(time.Duration(random.Int64N(int64(2 * longestStep))))
		for i := range entries {
			if want := passed(&entries[i].deadline, s.now()); conns[i].woken != want {
				t.Fatalf("entry %d: woken %v at %d with the deadline %d", i, conns[i].woken, s.now(), entries[i].deadline.Load())
			}
			conns[i].woken = false
		}
	}
}

// An entry that has been removed is not looked at, whatever deadline it gets.
func TestRemovedEntryIsNotWoken(t *testing.T) {
	s, conn := newSweeper(), new(expiring)
	var e sweepEntry
	s.add(&e, conn, 0)
	e.arm(s, time.Second)
	e.remove()
	e.arm(s, sweepInterval)
	for range 100 {
		s.sweep(sweepInterval)
	}
	if conn.woken {
		t.Error("woken")
	}
}

// No deadline is missed that is set while a sweep looks at the connection.
func TestDeadlinesMeetSweeps(t *testing.T) {
	s := newSweeper()
	stop := make(chan struct{})
	var sweeps, waits sync.WaitGroup
	sweeps.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.sweep(sweepInterval)
			}
		}
	})
	for i := range 4 {
		waits.Go(func() {
			conn := &signalling{woken: make(chan struct{}, 1)}
			var e sweepEntry
			s.add(&e, conn, uint32(i))
			for n := range 2000 {
				e.arm(s, time.Minute)
				e.arm(s, time.Duration(n%3)*sweepInterval+1)
				select {
				case <-conn.woken:
				case <-time.After(patience):
					t.Error("a deadline was missed")
					return
				}
				e.disarm()
			}
			e.remove()
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
	s := newSweeper()
	entries := make([]sweepEntry, 10_000)
	for i := range entries {
		s.add(&entries[i], nil, uint32(i))
		entries[i].arm(s, 75*time.Second)
	}
	b.Run("10000 idle", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			if s.sweep(sweepInterval); n%1000 == 0 { // in 50 s
				for i := range entries {
					entries[i].arm(s, 75*time.Second)
				}
			}
		}
	})
	b.Run("arm", func(b *testing.B) {
		for b.Loop() {
			entries[0].arm(s, time.Second)
		}
	})
}
