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

// String returns the name of k, or "unknown".
func (k EventKind) String() string {
	if int(k) >= len(eventNames) {
		return "unknown"
	}
	return eventNames[k]
}

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

// noteLocked queues an event for flushLocked.
func (p *Pool) noteLocked(peer *Peer, kind EventKind, detail string) {
	p.queueLocked(Event{Peer: peer, Kind: kind, Detail: detail})
}

func (p *Pool) queueLocked(e Event) {
	if p.options.Notify == nil {
		return
	}
	e.Time, e.Pool = time.Now(), p.name
	if e.Peer != nil {
		e.State = e.Peer.State()
	}
	p.events = append(p.events, e)
}

func (p *Pool) notePanicLocked(prev, next *Snapshot) {
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
	p.noteLocked(nil, kind, fmt.Sprintf("%d of %d peers are healthy", eligible, len(next.All)))
}

func (p *Pool) noteStateLocked(peer *Peer, was, is *condition) {
	if was.state() == is.state() {
		return
	}
	detail, reasons := was.state().String()+" → "+is.state().String(), peer.Reasons()
	if reasons != nil {
		detail += ": " + strings.Join(reasons, "; ")
	}
	p.queueLocked(Event{Peer: peer, Kind: EventState, Was: was.state(), Detail: detail, Reasons: reasons})
}

// flushLocked notifies the transports of peers that began to fail, and sends the queued
// events. It runs after the snapshot shows both.
func (p *Pool) flushLocked() {
	for _, peer := range p.failing {
		if peer.Transport != nil && peer.load.isQuiesced() { // in panic it is still in use
			peer.Transport.Suspect()
		}
	}
	clear(p.failing)
	p.failing = p.failing[:0]
	for _, e := range p.events {
		p.options.Notify(e)
	}
	p.events = nil // thousands of pools have none most of the time
}
