package events

import (
	"context"
	"errors"
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
	position uint64 // of the next event to read
}

// Next waits for events that the filter selects, and returns at least one, oldest first. One of
// KindSkipped says that the feed has lost events before they were read. The error is that
// of ctx or ErrClosed.
func (r *Reader) Next(ctx context.Context) ([]Event, error) {
	for {
		changed, closed := r.pending()
		if changed == nil {
			if list := r.take(); len(list) > 0 {
				return list, nil
			}
			continue
		}
		if closed {
			return nil, ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pending returns nil if there is an event to take, else a channel that is closed when the
// feed changes, and whether the feed is closed.
func (r *Reader) pending() (changed <-chan struct{}, closed bool) {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.position < f.next {
		return nil, f.closed
	}
	return f.changed.Wait(), f.closed
}

// take returns the selected ones of the next events.
func (r *Reader) take() []Event {
	list := r.next()
	selected := list[:0]
	for i := range list {
		if r.filter.matches(&list[i]) {
			selected = append(selected, list[i])
		}
	}
	return selected
}

// next returns the next events, at most takeEvents and one that says how many are lost.
func (r *Reader) next() (list []Event) {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.position < f.oldest {
		list = append(list, skipped(missing(f.oldest-r.position)))
		r.position = f.oldest
	}
	for n := 0; n < takeEvents && r.position < f.next; n++ {
		list = append(list, *f.atLocked(r.position))
		r.position++
	}
	return list
}
