package events

import (
	"fmt"
	"sync"
	"time"

	"sluice/observe/wake"
)

const (
	// Capacity is the number of events that a feed keeps.
	Capacity = 10000
	// Retention is how long a feed keeps an event.
	Retention = time.Hour
)

// Feed keeps the latest events. Its methods may be called concurrently, also on a nil
// feed, which keeps nothing.
type Feed struct {
	start uint64 // of the ids

	mu sync.Mutex // guards the fields below

	ring    []Event // grows up to Capacity; the event at position p is in ring[p%Capacity]
	oldest  uint64  // position of the oldest event
	next    uint64  // position of the next event; the event before has this number
	changed wake.All
	closed  bool
}

// New returns an empty feed.
func New() *Feed {
	return &Feed{start: uint64(time.Now().UnixMilli())}
}

// Add adds e as the latest event, and sets its id, its time, and its level if it has none. It
// does not wait for readers.
func (f *Feed) Add(e Event) {
	if f == nil {
		return
	}
	e = bounded(e)
	if e.Level == "" {
		e.Level = Info
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e.ID, e.Time = ID{f.start, f.next + 1}, time.Now().UTC().Truncate(time.Millisecond)
	f.forgetLocked(e.Time)
	if len(f.ring) < Capacity {
		f.ring = append(f.ring, e)
	} else {
		f.ring[f.next%Capacity] = e
	}
	f.next++
	f.oldest = max(f.oldest, f.next-min(f.next, Capacity))
	f.changed.Send()
}

// forgetLocked forgets the events that are too old.
func (f *Feed) forgetLocked(now time.Time) {
	for f.oldest < f.next && now.Sub(f.atLocked(f.oldest).Time) >= Retention {
		*f.atLocked(f.oldest) = Event{}
		f.oldest++
	}
}

func (f *Feed) atLocked(position uint64) *Event { return &f.ring[position%Capacity] }

// All returns the kept events, oldest first.
func (f *Feed) All() []Event {
	all, _ := f.Read(Filter{}, ID{})
	return all
}

// Close ends the readers after their last event. Later events are kept nevertheless.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.changed.Send()
}

// Read returns the kept events that filter selects, oldest first, and a reader of those that
// follow. after, if not zero, is the latest event that the caller knows: the events begin
// with the next one.
func (f *Feed) Read(filter Filter, after ID) ([]Event, *Reader) {
	r := &Reader{feed: f, filter: filter}
	begin, end, lost := f.since(after)
	r.position = begin
	var kept []Event
	if lost != "" {
		kept = append(kept, skipped(lost))
	}
	for r.position < end {
		kept = append(kept, r.take()...)
	}
	return kept, r
}

// since returns the positions of the kept events after the one with an id, the zero one: of all.
// lost is as of afterLocked.
func (f *Feed) since(after ID) (begin, end uint64, lost string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgetLocked(time.Now())
	begin = f.oldest
	if after != (ID{}) {
		begin, lost = f.afterLocked(after)
	}
	return begin, f.next, lost
}

// afterLocked returns the position after the event with an id. lost says what is missing; it
// is empty if nothing is.
func (f *Feed) afterLocked(id ID) (position uint64, lost string) {
	switch {
	case id.Start != f.start:
		return f.oldest, "Events may be missing: sluice has started again"
	case id.Number < f.oldest:
		return f.oldest, missing(f.oldest - id.Number)
	}
	return min(id.Number, f.next), ""
}

func missing(n uint64) string {
	return fmt.Sprintf("%d earlier events of all kinds are not kept any more", n)
}

func skipped(text string) Event {
	return Event{Time: time.Now().UTC(), Kind: KindSkipped, Level: Warning, Text: text}
}
