package balancer

import (
	"fmt"
	"strings"
	"time"
)

// EventKind is what happened to a peer.
type EventKind uint8

const (
	// EventAdded: the peer joined the pool, or came back while it was draining.
	EventAdded EventKind = iota
	// EventRemoved: the peer left the set. It drains from now on.
	EventRemoved
	// EventUpdated: the registry changed its weight, tags, meta or status.
	EventUpdated
	// EventState: the peer's [State] changed for another reason than leaving.
	EventState
	// EventDrained: the last request in flight of a draining peer is done. If
	// the peer had left the set, its transport is closed.
	EventDrained
	// EventCut: a peer that had left the set still had requests in flight when
	// Options.DrainTimeout ended. Its transport is closed.
	EventCut
	// EventPanic: too few peers are eligible, so others are used too; see
	// Options.PanicThreshold. It concerns no peer in particular.
	EventPanic
	// EventCalm: the panic is over.
	EventCalm
	// EventRefused: no connection may be opened to what the peer's host is resolved
	// to; see Options.MayConnect.
	EventRefused
)

var eventNames = [...]string{"added", "removed", "updated", "state", "drained", "cut", "panic", "calm", "refused"}

// String returns the kind in lower case.
func (k EventKind) String() string {
	if int(k) < len(eventNames) {
		return eventNames[k]
	}
	return "unknown"
}

// MarshalText returns k.String().
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Event is one change of one peer, or of the pool. The peer may have moved on
// when the event is read; State is what it was right after the change.
type Event struct {
	Time   time.Time
	Pool   string
	Peer   *Peer // nil for EventPanic and EventCalm
	Kind   EventKind
	State  State  // of the peer
	Detail string // in a few words; may be empty
}

// note keeps an event until flush sends it. The pool's mutex must be held.
func (p *Pool) note(peer *Peer, kind EventKind, detail string) {
	if p.options.Notify == nil {
		return
	}
	e := Event{Time: time.Now(), Pool: p.name, Peer: peer, Kind: kind, Detail: detail}
	if peer != nil {
		e.State = peer.State()
	}
	p.events = append(p.events, e)
}

// notePanic notes the beginning and the end of panic.
func (p *Pool) notePanic(prev, next *Snapshot) {
	if prev.Panic == next.Panic {
		return
	}
	sound := 0
	for _, peer := range next.All {
		if peer.condition.Load().eligible() {
			sound++
		}
	}
	detail := fmt.Sprintf("nothing speaks against %d of %d peers", sound, len(next.All))
	if next.Panic {
		p.note(nil, EventPanic, detail)
	} else {
		p.note(nil, EventCalm, detail)
	}
}

// noteState notes a change of state, if there is one.
func (p *Pool) noteState(peer *Peer, was, is *condition) {
	if was.state() == is.state() {
		return
	}
	detail := was.state().String() + " → " + is.state().String()
	if reasons := peer.Reasons(); reasons != nil {
		detail += ": " + strings.Join(reasons, "; ")
	}
	p.note(peer, EventState, detail)
}

// flush lets requests leave the peers that have begun to fail, and sends the
// events. What both tell of is visible in the snapshot.
func (p *Pool) flush() {
	for _, peer := range p.failing {
		if peer.Transport != nil && peer.isQuiesced() { // in panic it is still used
			peer.Transport.Suspect()
		}
	}
	clear(p.failing)
	p.failing = p.failing[:0]
	for _, e := range p.events {
		p.options.Notify(e)
	}
	clear(p.events)
	p.events = p.events[:0]
}
