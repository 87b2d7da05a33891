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
	slots   [wheelSlots]*SweepEntry
	turn    int64       // the interval of the last sweep
	next    int64       // in a sweep, the interval whose entries come after pending
	pending *SweepEntry // in a sweep, the entries that are left of an interval
}

// sweepBatch is how many entries are swept at a time. Between two batches the wheel is free for
// others, so however many deadlines pass at once, to set another one waits for few of them: to end
// a wait takes some microseconds.
const sweepBatch = 64

// A wheelLink is the position of an entry in a wheel.
type wheelLink struct {
	wheel *wheel
	// due is the coarse time of the next sweep; never: the entry is in no slot; 0: it
	// was removed. Writing requires the wheel's mutex, reading does not.
	due   atomic.Int64
	ended int64 // the last deadline that ended a wait, guarded by the wheel's mutex
	next  *SweepEntry
	at    **SweepEntry // the pointer to the entry; nil: it is in no slot
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
	w.begin(now)
	for w.sweepSome(s, now) {
	}
}

// begin begins a sweep.
func (w *wheel) begin(now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = w.turn // again: entries may have been due later in that interval
	w.turn = now / int64(SweepInterval)
}

// sweepSome sweeps a batch of entries, and reports whether there may be more.
func (w *wheel) sweepSome(s *Sweeper, now int64) (more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range sweepBatch {
		for ; w.pending == nil; w.next++ {
			if w.next > w.turn {
				return false
			}
			slot := &w.slots[w.next%wheelSlots]
			if w.pending, *slot = *slot, nil; w.pending != nil {
				w.pending.at = &w.pending
			}
		}
		e := w.pending
		w.unlinkLocked(e)
		// Before e reads its deadlines: a concurrent sweepBy then sees never, and
		// waits for the mutex.
		e.due.Store(Never)
		if due := e.sweep(s, now); due != Never {
			w.linkLocked(e, due)
		}
	}
	return true
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
	for _, e := range append(w.slots[:], w.pending) {
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
