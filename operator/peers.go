package operator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sluice/observe/events"
)

// Limit bounds the number of orders about peers that stand at one time.
const Limit = 1000

// ErrTooMany is the error of an order above Limit.
var ErrTooMany = fmt.Errorf("%d orders stand already: end some of them first", Limit)

// Options configure Peers.
type Options struct {
	Backing

	// Replica names this replica in its orders.
	Replica func() string
	// Changed is called when the set has changed. It may call Set, and no other method.
	Changed func()
	Events  *events.Feed
}

// Peers is the store of orders about peers and nodes. Its methods may be called concurrently.
type Peers struct {
	Store   *Store[Order]
	options Options
}

// New returns Peers without orders.
func New(o Options) *Peers {
	p := &Peers{options: o}
	p.Store = NewStore(StoreOptions[Order]{
		Backing: o.Backing, Parse: parse, Tell: p.emit, Changed: o.Changed,
		Name: "operators' orders", Alone: "those that are known stay",
	})
	return p
}

// Set returns the orders that stand.
func (p *Peers) Set() Set { return Set{p.Store.All()} }

// Give adds an order, in place of an earlier one with the same key. It sets Since and Replica.
func (p *Peers) Give(o Order) error {
	o.Since, o.Until = storedTime(time.Now()), storedTime(o.Until)
	if p.options.Replica != nil {
		o.Replica = p.options.Replica()
	}
	if !o.Until.IsZero() && !o.Until.After(o.Since) {
		return errors.New("it would expire at once")
	}
	return p.Store.Put(o, false, func(effective map[string]Order) error {
		if _, replaces := effective[o.Key()]; !replaces && len(effective) >= Limit {
			return ErrTooMany
		}
		return nil
	})
}

// emit says what is different in the log and in the feed.
func (p *Peers) emit(before, after map[string]Order, by string) {
	now := time.Now()
	for _, key := range slices.Sorted(maps.Keys(after)) {
		o := after[key]
		if earlier, ok := before[key]; !ok || !earlier.Same(o) {
			text := "An operator has ordered: " + o.String()
			if o.Why != "" {
				text += ": " + o.Why
			}
			if !o.Until.IsZero() {
				text += ", until " + o.Until.Format(time.RFC3339)
			}
			p.emitOne(o, events.KindOrderGiven, text, o.By)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		o := before[key]
		switch _, still := after[key]; {
		case still:
		case expired(o, now):
			p.emitOne(o, events.KindOrderExpired, "An order has expired: "+o.String(), "")
		default:
			p.emitOne(o, events.KindOrderEnded, "An operator has ended an order: "+o.String(), by)
		}
	}
}

func (p *Peers) emitOne(o Order, kind events.Kind, text, by string) {
	text += byWhom(by)
	p.options.Events.Add(events.Event{Kind: kind, Service: o.Service, Peer: o.ID, Address: o.Address, Node: o.Node, Text: text})
	p.Store.log.Info().Str("service", o.Service).Str("peer", o.ID).Str("node", o.Node).Str("replica", o.Replica).Msg(text)
}

// storedTime returns t as the file and Consul have it.
func storedTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
