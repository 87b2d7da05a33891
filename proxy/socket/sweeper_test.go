package socket

import (
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
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

// A timeout is never early, whenever it begins, and acts at the next sweep, which may itself be
// late.
func TestTimeoutsActInTime(t *testing.T) {
	random := rand.New(rand.NewPCG(verify.Seed(t), 0))
	synctest.Test(t, func(t *testing.T) {
		s, conn := NewSweeper(), new(expiring)
		var e SweepEntry
		s.Add(&e, conn, 0)
		swept, armed, timeout := time.Now(), time.Time{}, time.Duration(0)
		for range 10_000 {
			gap := SweepInterval
			if random.IntN(4) == 0 {
				gap = time.Duration(random.Int64N(int64(longestStep)))
			}
			early := time.Duration(random.Int64N(int64(gap) + 1))
			time.Sleep(early)
			if armed.IsZero() {
				armed, timeout = time.Now(), time.Duration(1+random.Int64N(int64(4*SweepInterval)))
				e.Arm(s, timeout)
			}
			time.Sleep(gap - early)
			now := time.Now()
			s.Sweep(now.Sub(swept))
			due := now.Sub(armed) >= timeout
			verify.Require(t, conn.woken == due, "woken %v after %v of %v", conn.woken, now.Sub(armed), timeout)
			if swept = now; due {
				verify.Require(t, e.Expired(s), "the deadline has not passed")
				e.Disarm()
				conn.woken, armed = false, time.Time{}
			}
		}
	})
}

// Many waits that look after their clients delay no deadline of another connection: a sweep calls a
// bounded number of them, and each has its turn.
func TestProbesDelayNoDeadline(t *testing.T) {
	s, conn := NewSweeper(), new(expiring)
	var b SweepEntry
	const waits = 3*maxProbes + 1
	probed, calls := make([]int, waits), 0
	entries := make([]SweepEntry, waits)
	for i := range entries {
		e := &entries[i]
		s.Add(e, new(expiring), uint32(i))
		e.Probes, e.Owner = true, probing(func(now int64) int64 {
			calls++
			probed[i]++
			return now + int64(SweepInterval)
		})
		e.Arm(s, time.Hour)
	}
	s.Add(&b, conn, 7)
	b.Arm(s, 10*SweepInterval)
	for sweep := range 40 {
		calls = 0
		s.Sweep(SweepInterval)
		verify.Require(t, calls <= maxProbes, "sweep %d: %d calls", sweep, calls)
		verify.Require(t, conn.woken == Passed(&b.Deadline, s.Now()), "sweep %d: woken %v", sweep, conn.woken)
	}
	verify.That(t, conn.woken && slices.Min(probed) >= 5, "woken %v; the least probed wait had %d of %d probes", conn.woken, slices.Min(probed), slices.Max(probed))
}

// However many deadlines pass at once, who sets one waits for few of them, and none is lost.
func TestManyDeadlinesAtOnceDelayNobody(t *testing.T) {
	const many = 5*sweepBatch + 1
	s, w := NewSweeper(), new(wheel)
	add := func(e *SweepEntry, deadline int64) {
		e.Conn, e.wheel = new(expiring), w
		e.due.Store(Never)
		e.ArmRead(deadline)
	}
	woken := func(e *SweepEntry) bool { return e.Conn.(*expiring).woken }
	now := s.Now() + 2*int64(SweepInterval)
	due, later, left := make([]SweepEntry, many), []*SweepEntry{}, 0
	for i := range due {
		add(&due[i], s.Now()+int64(SweepInterval))
	}
	ended := func() (n int) {
		for i := range due {
			if woken(&due[i]) {
				n++
			}
		}
		return n
	}
	w.begin(now)
	for before := 0; w.sweepSome(s, now); before = ended() {
		verify.Require(t, ended()-before <= sweepBatch, "%d waits were ended at once", ended()-before)
		other := new(SweepEntry) // another connection sets its deadline meanwhile
		add(other, now+int64(len(later)%3)*int64(SweepInterval))
		later = append(later, other)
		if e := &due[left]; !woken(e) { // and one leaves: the first comes last
			e.Remove()
			left++
		}
		verify.Equal(t, w.entries(), many+len(later)-left, "entries")
	}
	verify.That(t, left >= many/sweepBatch-1 && ended() == many-left, "%d of %d waits were ended, %d others came", ended(), many-left, len(later))
	for sweep := range 4 {
		now += int64(SweepInterval)
		w.sweep(s, now)
		for i, e := range later {
			verify.That(t, woken(e) == Passed(&e.Deadline, now), "sweep %d: other %d woken %v", sweep, i, woken(e))
		}
	}
}

// However many waits of one client, or for one peer, end at once, those of another one end in time.
// What goes on then takes the time of the sweeper too. No wait ends early, all end, and one that
// does not notice its end stops none.
func TestWaitsThatEndAtOnceDelayNobody(t *testing.T) {
	many := 8000
	if testing.Short() {
		many = 1000 // as many goroutines at a time, and an eighth of the switches
	}
	for name, partiesOf := range map[string]func(i int) waiting{
		"one client, many peers":             func(i int) waiting { return waiting{min(i, many) / many, i} },
		"many clients, one peer":             func(i int) waiting { return waiting{i, min(i, many) / many} },
		"one client, and others at its peer": func(i int) waiting { return waiting{min(i, many) / many, 0} },
	} {
		t.Run(name, func(t *testing.T) { waitsThatEndAtOnce(t, many, partiesOf) })
	}
}

func waitsThatEndAtOnce(t *testing.T, many int, partiesOf func(i int) waiting) {
	const cost = 10 * time.Microsecond
	synctest.Test(t, func(t *testing.T) {
		s, start := NewSweeper(), time.Now()
		entries, ends := make([]SweepEntry, many+100), make([]time.Duration, many+100)
		due := func(i int) time.Duration { // those of the others: in that sweep and the next ten
			return 10*SweepInterval + time.Duration(max(0, i-many))*SweepInterval/10
		}
		for i := range entries {
			e := &entries[i]
			e.Owner = partiesOf(i)
			s.Add(e, &ending{woken: func() {
				if ends[i] == 0 {
					time.Sleep(cost)
					ends[i] = time.Since(start)
				}
				if i%2 == 0 {
					e.Disarm()
				}
			}}, 0)
			e.Arm(s, due(i))
		}
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			s.Run(stop)
		}()
		time.Sleep(time.Minute)
		close(stop)
		<-stopped
		for i, end := range ends {
			latest := SweepInterval + maxEndsOfPeer*cost
			if i < many {
				latest += time.Duration(many/maxEndsOfClient) * SweepInterval
			}
			late := end - due(i)
			verify.Require(t, late >= 0 && late <= latest, "the wait %d was to end after %v, and ended after %v", i, due(i), end)
		}
	})
}

// ending is a connection that calls it when it was woken.
type ending struct {
	net.Conn
	woken func()
}

func (e *ending) SetReadDeadline(time.Time) error {
	e.woken()
	return nil
}

// waiting is the owner of an entry: who waits, and for whom.
type waiting struct{ client, peer int }

func (w waiting) Parties() (client, peer any) { return w.client, -1 - w.peer }
func (waiting) OnSweep(int64) int64           { return Never }

// probing is the owner of an entry with probes.
type probing func(now int64) int64

func (probing) Parties() (client, peer any) { return nil, nil }

func (p probing) OnSweep(now int64) int64 { return p(now) }

// A process that has stood still gives those that it waits for the time that it
// would have given them.
func TestTimeInWhichTheProcessDidNotRunHardlyCounts(t *testing.T) {
	s, conn := NewSweeper(), new(expiring)
	var e SweepEntry
	s.Add(&e, conn, 0)
	e.ArmRead(s.Now() + int64(time.Second))
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
			woken := make(chan struct{}, 1)
			var e SweepEntry
			s.Add(&e, &ending{woken: func() {
				select {
				case woken <- struct{}{}:
				default:
				}
			}}, uint32(i))
			for n := range 2000 {
				e.Arm(s, time.Minute)
				e.Arm(s, time.Duration(n%3)*SweepInterval+1)
				select {
				case <-woken:
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
