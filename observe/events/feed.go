package events

import (
	"cmp"
	"container/list"
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

	// share is how many events of a full feed are safe from what happens to others: a service, or a
	// group of kinds without one, that has as many gives up its own oldest event for a new one.
	share = Capacity / 8
)

// Feed keeps the latest events. Its methods may be called concurrently, also on a nil
// feed, which keeps nothing.
type Feed struct {
	start uint64 // of the ids

	mu sync.Mutex // guards the fields below

	order   list.List            // of *Event, oldest first
	parties map[party]*list.List // of the elements of order, oldest first
	last    uint64               // number of the latest event
	changed wake.All
	closed  bool
}

// A party is what events are about: a service, or else the group of their kind.
type party struct{ service, group string }

func partyOf(e *Event) party {
	if e.Service != "" {
		return party{service: e.Service}
	}
	return party{group: e.Kind.Group()}
}

// New returns an empty feed.
func New() *Feed {
	return &Feed{start: uint64(time.Now().UnixMilli()), parties: make(map[party]*list.List)}
}

// Add adds e as the latest event, and sets its id, its time, and its level if it has none. It
// does not wait for readers.
func (f *Feed) Add(e Event) {
	if f == nil {
		return
	}
	e = bounded(e)
	e.Level = cmp.Or(e.Level, Info)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	e.ID, e.Time = ID{f.start, f.last}, time.Now().UTC().Truncate(time.Millisecond)
	f.forgetLocked(e.Time)
	if f.order.Len() == Capacity {
		f.makeRoomLocked(partyOf(&e))
	}
	of := f.parties[partyOf(&e)]
	if of == nil {
		of = list.New()
		f.parties[partyOf(&e)] = of
	}
	of.PushBack(f.order.PushBack(&e))
	f.changed.Send()
}

// forgetLocked removes the events that are too old.
func (f *Feed) forgetLocked(now time.Time) {
	for oldest := f.order.Front(); oldest != nil && now.Sub(eventOf(oldest).Time) >= Retention; oldest = f.order.Front() {
		f.removeLocked(partyOf(eventOf(oldest)))
	}
}

// makeRoomLocked removes the oldest event: of the party that adds one, if it has its share, or of
// all.
func (f *Feed) makeRoomLocked(adding party) {
	if of := f.parties[adding]; of == nil || of.Len() < share {
		adding = partyOf(eventOf(f.order.Front()))
	}
	f.removeLocked(adding)
}

// removeLocked removes the oldest event of a party.
func (f *Feed) removeLocked(p party) {
	of := f.parties[p]
	f.order.Remove(of.Remove(of.Front()).(*list.Element))
	if of.Len() == 0 {
		delete(f.parties, p)
	}
}

func eventOf(element *list.Element) *Event { return element.Value.(*Event) }

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
// with the next one, and one of KindSkipped says how many are missing.
func (f *Feed) Read(filter Filter, after ID) ([]Event, *Reader) {
	r := &Reader{feed: f, filter: filter}
	var kept []Event
	if after != (ID{}) && after.Start != f.start {
		kept = append(kept, skipped("Events may be missing: sluice has started again"))
		after = ID{}
	}
	end := f.lastNumber()
	r.position = min(after.Number, end)
	for r.position < end {
		kept = append(kept, r.take(after != (ID{}))...)
	}
	return kept, r
}

func (f *Feed) lastNumber() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgetLocked(time.Now())
	return f.last
}

// afterLocked returns the first kept event after the one with a number, nil if there is none.
func (f *Feed) afterLocked(number uint64) (first *list.Element) {
	for e := f.order.Back(); e != nil && eventOf(e).ID.Number > number; e = e.Prev() {
		first = e
	}
	return first
}

func missing(n uint64) string {
	return fmt.Sprintf("%d earlier events of all kinds are not kept any more", n)
}

func skipped(text string) Event {
	return Event{Time: time.Now().UTC(), Kind: KindSkipped, Level: Warning, Text: text}
}
