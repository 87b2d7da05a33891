package orders

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/events"
)

// Limit bounds the number of orders that stand at one time.
const Limit = 1000

// recheck is the longest time between two looks for expired orders: the clock may be set.
const recheck = time.Minute

// Errors of Give and End.
var (
	ErrTooMany = fmt.Errorf("%d orders stand already: end some of them first", Limit)
	ErrPaused  = errors.New("a new process of sluice starts: give the order again in a moment")
)

// Options configure a Store.
type Options struct {
	Path string // of the file; "": none

	Consul *consul.Client
	Prefix string               // of the keys, without a slash at its end; "": other replicas do not obey
	Wait   func() time.Duration // of blocking queries

	// Replica names this replica in its orders.
	Replica func() string
	// Changed is called when the set has changed. It may call Set, and no other method.
	Changed func()
	Events  *events.Feed
	Log     zerolog.Logger
}

// Store is the orders that stand. Its methods may be called concurrently.
type Store struct {
	options Options
	log     zerolog.Logger
	wake    chan struct{} // capacity 1: there may be a change to write
	first   chan struct{} // closed when Consul has answered

	changing sync.Mutex // held while a change takes effect, so that they are told in order
	set      atomic.Pointer[Set]

	mu sync.Mutex // guards the fields below

	known    map[string]knownOrder // what Consul has, or had when this process started, by key
	changes  map[string]*change    // what Consul has not shown yet, by key
	invalid  map[string]Invalid    // keys that cannot be used
	index    uint64                // of Consul's last answer
	marked   bool                  // that answer had the mark
	answered bool
	failure  error         // of the last query
	fileErr  error         // why the orders are not in the file
	written  []byte        // the text of the file
	progress chan struct{} // closed when Consul has accepted or refused a change
	timer    *time.Timer   // runs until an order may expire
	stop     func()        // ends the goroutines that Resume started, and waits; nil: none run
	paused   bool          // another process has the orders
}

// knownOrder is an order in Consul.
type knownOrder struct {
	Order
	index uint64 // of its last change; 0: not known
}

// change is a change of a key.
type change struct {
	order *Order // nil: it is deleted
	// onlyAt, if not nil, is the index of the key that the change is about: it is void if the key
	// has changed.
	onlyAt *uint64

	accepted bool   // by Consul; the watch has not shown it yet
	before   uint64 // with accepted: the index of the key before
	written  uint64 // with accepted: that of the written order
	err      error  // of the last attempt to write it
}

// New returns a store without orders.
func New(o Options) *Store {
	s := &Store{
		options: o, log: o.Log, wake: make(chan struct{}, 1), first: make(chan struct{}),
		known: make(map[string]knownOrder), changes: make(map[string]*change), progress: make(chan struct{}),
	}
	s.set.Store(new(Set))
	if o.Prefix != "" {
		s.log = o.Log.With().Str("keys", "consul_kv:"+o.Prefix).Logger()
	}
	return s
}

// Shares reports whether other replicas get the orders.
func (s *Store) Shares() bool { return s.options.Prefix != "" }

// Set returns the orders that stand.
func (s *Store) Set() Set { return *s.set.Load() }

// Give adds an order, in place of an earlier one with the same key. It sets Since and Replica.
func (s *Store) Give(o Order) error {
	o.Since, o.Until = moment(time.Now()), moment(o.Until)
	if s.options.Replica != nil {
		o.Replica = s.options.Replica()
	}
	if err := o.check(); err != nil {
		return err
	}
	if !o.Until.IsZero() && !o.Until.After(o.Since) {
		return errors.New("it would expire at once")
	}
	return s.change("", func() error {
		set := s.Set().byKey
		if _, replaces := set[o.Key()]; !replaces && len(set) >= Limit {
			return ErrTooMany
		}
		s.changes[o.Key()] = &change{order: &o}
		return nil
	})
}

// End ends the order with a key, and reports whether there was one. by says for people who ends it.
func (s *Store) End(key, by string) (found bool, err error) {
	return found, s.change(by, func() error {
		if _, found = s.Set().byKey[key]; found {
			s.endLocked(key, &change{})
		}
		return nil
	})
}

// endLocked removes an order, here and in Consul.
func (s *Store) endLocked(key string, deletion *change) {
	if s.Shares() {
		s.changes[key] = deletion
		return
	}
	delete(s.changes, key)
}

// change makes a change that an operator orders.
func (s *Store) change(by string, f func() error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	err := f()
	if s.paused {
		err = ErrPaused
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.takeEffect(by)
	wake(s.wake)
	return nil
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// refresh makes what has changed take effect: in known, in changes, or by the time.
func (s *Store) refresh() {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.takeEffect("")
}

// takeEffect computes the set, writes the file, and tells what is different. by says who has
// ended orders. The caller holds changing.
func (s *Store) takeEffect(by string) {
	now := time.Now()
	s.mu.Lock()
	if s.paused {
		s.mu.Unlock()
		return
	}
	expired := s.expireLocked(now)
	before, after := s.Set(), s.effectiveLocked(now)
	s.set.Store(&after)
	s.scheduleLocked(now)
	s.saveLocked()
	s.mu.Unlock()
	if expired {
		wake(s.wake)
	}
	if after.equal(before) {
		return
	}
	s.tell(before, after, now, by) // the cause comes before the effect
	if s.options.Changed != nil {
		s.options.Changed()
	}
}

// effectiveLocked returns the orders that stand now.
func (s *Store) effectiveLocked(now time.Time) Set {
	set := make(map[string]Order)
	for key, k := range s.known {
		if s.changes[key] == nil && !k.expired(now) {
			set[key] = k.Order
		}
	}
	for key, c := range s.changes {
		if c.order != nil && !c.order.expired(now) {
			set[key] = *c.order
		}
	}
	return Set{set}
}

// expireLocked removes expired orders, and reports whether Consul has to be told.
func (s *Store) expireLocked(now time.Time) (deletes bool) {
	for key, c := range s.changes {
		if c.order != nil && !c.accepted && c.order.expired(now) {
			delete(s.changes, key) // Consul may have an earlier one
		}
	}
	for key, k := range s.known {
		if k.expired(now) && s.changes[key] == nil {
			s.endLocked(key, &change{onlyAt: &k.index})
			deletes = s.Shares()
		}
	}
	return deletes
}

// scheduleLocked sets the timer for the next order that expires.
func (s *Store) scheduleLocked(now time.Time) {
	var next time.Time
	for _, o := range s.Set().byKey {
		if !o.Until.IsZero() && (next.IsZero() || o.Until.Before(next)) {
			next = o.Until
		}
	}
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if !next.IsZero() {
		s.timer = time.AfterFunc(min(max(next.Sub(now), time.Millisecond), recheck), s.refresh)
	}
}

// tell says what is different in the log and in the feed.
func (s *Store) tell(before, after Set, now time.Time, by string) {
	for _, key := range slices.Sorted(maps.Keys(after.byKey)) {
		o := after.byKey[key]
		if earlier, ok := before.byKey[key]; !ok || !same(earlier, o) {
			text := "An operator has ordered: " + o.String()
			if o.Why != "" {
				text += ": " + o.Why
			}
			if !o.Until.IsZero() {
				text += ", until " + o.Until.Format(time.RFC3339)
			}
			s.tellOne(&o, events.KindOrderGiven, text, o.By)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before.byKey)) {
		o := before.byKey[key]
		switch _, still := after.byKey[key]; {
		case still:
		case o.expired(now):
			s.tellOne(&o, events.KindOrderExpired, "An order has expired: "+o.String(), "")
		default:
			s.tellOne(&o, events.KindOrderEnded, "An operator has ended an order: "+o.String(), by)
		}
	}
}

func (s *Store) tellOne(o *Order, kind events.Kind, text, by string) {
	if by != "" {
		text += " (by " + by + ")"
	}
	s.options.Events.Add(events.Event{Kind: kind, Service: o.Service, Peer: o.ID, Address: o.Address, Node: o.Node, Text: text})
	s.log.Info().Str("service", o.Service).Str("peer", o.ID).Str("node", o.Node).Str("replica", o.Replica).Msg(text)
}

// moment returns t as the file and Consul have it.
func moment(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
