package balancer

import (
	"fmt"
	"strings"
	"time"

	"sluice/discovery"
)

// EventKind is what happened to a peer.
type EventKind uint8

const (
	// EventAdded: the peer joined the pool, or returned while it was draining.
	EventAdded EventKind = iota
	// EventRemoved: the peer left the set and drains.
	EventRemoved
	// EventUpdated: the registry changed its weight, tags, meta or status.
	EventUpdated
	// EventState: the peer's [State] changed, but not because it left.
	EventState
	// EventDrained: a draining peer has no request in flight any more. If it left
	// the set, its transport is closed.
	EventDrained
	// EventCut: the drain of a peer reached Options.DrainTimeout, or ended at once by
	// Options.CutRemoved: Detail says which. Its transport is closed with requests in flight.
	EventCut
	// EventPanic: too few peers are eligible, so failing ones get requests too; see
	// Options.PanicThreshold. It has no peer.
	EventPanic
	// EventPanicOver: the panic ended. It has no peer.
	EventPanicOver
	// EventRefused: Options.MayConnect refuses the address that the peer's host
	// resolves to.
	EventRefused
)

var eventNames = [...]string{"added", "removed", "updated", "state", "drained", "cut", "panic", "panic_over", "refused"}

func (k EventKind) String() string { return eventNames[k] }

// Event is one change of a peer or of the pool.
type Event struct {
	Time   time.Time
	Pool   string
	Peer   *Peer // nil for EventPanic and EventPanicOver
	Kind   EventKind
	Was    State  // of the peer before EventState or EventUpdated
	State  State  // of the peer, right after the change
	Detail string // may be empty

	Reasons []string         // of the peer, right after EventAdded or EventState; see Peer.Reasons
	Update  discovery.Update // of EventUpdated
}

// notices are what others get to know of a pool when the next snapshot is stored. Pool.mu guards
// them.
type notices struct {
	pool    string
	notify  func(Event) // Options.Notify
	events  []Event     // not sent yet
	failing []*Peer     // began to fail since the last flush
}

// queue adds an event, which flush sends.
func (n *notices) queue(peer *Peer, kind EventKind, detail string) {
	n.add(Event{Peer: peer, Kind: kind, Detail: detail})
}

func (n *notices) add(e Event) {
	if n.notify == nil {
		return
	}
	e.Time, e.Pool = time.Now(), n.pool
	if e.Peer != nil {
		e.State = e.Peer.State()
	}
	n.events = append(n.events, e)
}

func (n *notices) queuePanic(prev, next *Snapshot) {
	if prev.Panic == next.Panic {
		return
	}
	eligible := 0
	for _, peer := range next.All {
		if peer.condition.Load().eligible() {
			eligible++
		}
	}
	kind := EventPanicOver
	if next.Panic {
		kind = EventPanic
	}
	n.queue(nil, kind, fmt.Sprintf("%d of %d peers are healthy", eligible, len(next.All)))
}

func (n *notices) queueState(peer *Peer, was, is *condition) {
	if was.state() == is.state() {
		return
	}
	detail, reasons := was.state().String()+" → "+is.state().String(), peer.Reasons()
	if reasons != nil {
		detail += ": " + strings.Join(reasons, "; ")
	}
	n.add(Event{Peer: peer, Kind: EventState, Was: was.state(), Detail: detail, Reasons: reasons})
}

// flush notifies the transports of peers that began to fail, and sends the queued
// events. It runs after the snapshot shows both.
func (n *notices) flush() {
	for _, peer := range n.failing {
		if peer.Transport != nil && peer.load.isQuiesced() { // in panic it is still in use
			peer.Transport.Suspect()
		}
	}
	clear(n.failing)
	n.failing = n.failing[:0]
	for _, e := range n.events {
		n.notify(e)
	}
	n.events = nil // thousands of pools have none most of the time
}
