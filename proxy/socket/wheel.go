package socket

import (
	"math"
	"sync"
	"sync/atomic"
)

// Never is a coarse time after all others.
const Never = math.MaxInt64

// wheelSlots is the number of sweep intervals that a wheel covers: 13 seconds.
const wheelSlots = 256

// A wheel is a timing wheel: it has the entries by the interval of their next sweep.
// Extending or removing a deadline does not move an entry; the next sweep does. So an
// entry moves at most a few times a second. An entry without a deadline is in no
// slot.
type wheel struct {
	mu sync.Mutex
	// mu guards the fields below, and the fields of the entries' wheelLink.
	slots [wheelSlots]*SweepEntry
	turn  int64 // the interval of the last sweep
}

// A wheelLink is the position of an entry in a wheel.
type wheelLink struct {
	wheel *wheel
	// due is the coarse time of the next sweep; never: the entry is in no slot; 0: it
	// was removed. Writing requires the wheel's mutex, reading does not.
	due  atomic.Int64
	next *SweepEntry
	at   **SweepEntry // the pointer to the entry; nil: it is in no slot
}

// sweepBy schedules the next sweep of e for due, unless it is earlier.
func (e *SweepEntry) sweepBy(due int64) {
	if due >= e.due.Load() {
		return
	}
	w := e.wheel
	w.mu.Lock()
	defer w.mu.Unlock()
	if due < e.due.Load() {
		w.unlinkLocked(e)
		w.linkLocked(e, due)
	}
}

// sweep sweeps the entries of the intervals since the last sweep.
func (w *wheel) sweep(s *Sweeper, now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := w.turn // again: entries may have been due later in that interval
	w.turn = now / int64(SweepInterval)
	for turn := first; turn <= w.turn; turn++ {
		for e := w.slots[turn%wheelSlots]; e != nil; {
			next := e.next
			w.unlinkLocked(e)
			// Before e reads its deadlines: a concurrent sweepBy then sees never, and
			// waits for the mutex.
			e.due.Store(Never)
			if due := e.sweep(s, now); due != Never {
				w.linkLocked(e, due)
			}
			e = next
		}
	}
}

// linkLocked puts e into the slot of the interval of due, or into the last slot if due
// is later.
func (w *wheel) linkLocked(e *SweepEntry, due int64) {
	e.due.Store(due)
	turn := min(max(due/int64(SweepInterval), w.turn), w.turn+wheelSlots-1)
	slot := &w.slots[turn%wheelSlots]
	if e.next = *slot; e.next != nil {
		e.next.at = &e.next
	}
	*slot, e.at = e, slot
}

func (w *wheel) unlinkLocked(e *SweepEntry) {
	if e.at == nil {
		return
	}
	if *e.at = e.next; e.next != nil {
		e.next.at = e.at
	}
	e.at, e.next = nil, nil
}

func (w *wheel) entries() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.slots {
		for ; e != nil; e = e.next {
			n++
		}
	}
	return n
}

func (w *wheel) remove(e *SweepEntry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlinkLocked(e)
	e.due.Store(0)
}
