package events

import (
	"context"
	"errors"

	"sluice/observe/wake"
)

// ErrClosed is the error of [Reader.Next] when the feed is closed and has no later event.
var ErrClosed = errors.New("the feed is closed")

// takeEvents is the number of events that a reader copies at a time: the feed is locked for
// this long.
const takeEvents = 256

// Reader reads a feed from a position on. It is not safe for concurrent use.
type Reader struct {
	feed     *Feed
	filter   Filter
	position uint64 // number of the latest event that was read, or is known to be lost
}

// Next waits for events that the filter selects, and returns at least one, oldest first. One of
// KindSkipped says that the feed has lost events before they were read. The error is that
// of ctx or ErrClosed.
func (r *Reader) Next(ctx context.Context) ([]Event, error) {
	for {
		changed, closed := r.pending()
		if changed == nil {
			if list := r.take(true); len(list) > 0 {
				return list, nil
			}
			continue
		}
		if closed {
			return nil, ErrClosed
		}
		if err := wake.Await(ctx, changed); err != nil {
			return nil, err
		}
	}
}

// pending returns nil if there is an event to take, else a channel that is closed when the
// feed changes, and whether the feed is closed.
func (r *Reader) pending() (changed <-chan struct{}, closed bool) {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.position < f.last {
		return nil, f.closed
	}
	return f.changed.Wait(), f.closed
}

// take returns the selected ones of the next events. counts: also what is lost before them.
func (r *Reader) take(counts bool) []Event {
	list := r.next(counts)
	selected := list[:0]
	for i := range list {
		if r.filter.matches(&list[i]) {
			selected = append(selected, list[i])
		}
	}
	return selected
}

// next returns at most takeEvents of the next events. counts: before each that follows lost ones
// there is one that says how many.
func (r *Reader) next(counts bool) (list []Event) {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	to := func(number uint64) {
		if lost := number - r.position - 1; counts && lost > 0 {
			list = append(list, skipped(missing(lost)))
		}
		r.position = number
	}
	element := f.afterLocked(r.position)
	for n := 0; n < takeEvents && element != nil; n++ {
		to(eventOf(element).ID.Number)
		list = append(list, *eventOf(element))
		element = element.Next()
	}
	if element == nil && r.position < f.last { // the latest are too old to be kept
		to(f.last + 1)
		r.position = f.last
	}
	return list
}
