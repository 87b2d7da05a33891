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
	"sluice/consul/sharedkeys"
	"sluice/events"
	"sluice/panics"
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
	keys    *sharedkeys.Keys[Order]

	set atomic.Pointer[Set]

	// mu guards the fields below. It is held while a change takes effect, so that they are told in order.
	mu sync.Mutex

	fileErr error       // why the orders are not in the file
	written []byte      // the text of the file
	timer   *time.Timer // runs until an order may expire
	paused  bool        // another process has the orders
}

// New returns a store without orders.
func New(o Options) *Store {
	s := &Store{options: o, log: o.Log}
	s.set.Store(new(Set))
	if o.Prefix != "" {
		s.log = o.Log.With().Str("keys", "consul_kv:"+o.Prefix).Logger()
	}
	s.keys = sharedkeys.New(sharedkeys.Options[Order]{
		Consul: o.Consul, Prefix: o.Prefix, Wait: o.Wait, Log: s.log,
		Decode: parse, Changed: func([]string) { s.refresh() },
		Name: "operators' orders", Alone: "those that are known stay",
	})
	return s
}

// Resume begins to follow Consul, and to accept orders again after Pause.
func (s *Store) Resume() {
	s.mu.Lock()
	s.paused = false
	s.mu.Unlock()
	s.keys.Resume()
	s.refresh()
}

// Pause refuses orders, since another process has them, and ends what Resume began.
func (s *Store) Pause() {
	s.mu.Lock()
	s.paused = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.keys.Pause()
}

// Shares reports whether other replicas get the orders.
func (s *Store) Shares() bool { return s.keys.Shared() }

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
		s.keys.Put(o.Key(), o, nil)
		return nil
	})
}

// End ends the order with a key, and reports whether there was one. by says for people who ends it.
func (s *Store) End(key, by string) (found bool, err error) {
	return found, s.change(by, func() error {
		if _, found = s.Set().byKey[key]; found {
			s.keys.Delete(key, nil)
		}
		return nil
	})
}

// change makes a change that an operator orders.
func (s *Store) change(by string, f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paused {
		return ErrPaused
	}
	if err := f(); err != nil {
		return err
	}
	s.takeEffectLocked(by)
	return nil
}

// refresh makes what has changed take effect: here, in Consul, or by the time.
func (s *Store) refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeEffectLocked("")
}

// takeEffectLocked computes the set, writes the file, and tells what is different. by says who has
// ended orders.
func (s *Store) takeEffectLocked(by string) {
	now := time.Now()
	if s.paused {
		return
	}
	s.expire(now)
	all := s.keys.All()
	before, after := s.Set(), effective(all, now)
	s.set.Store(&after)
	s.scheduleLocked(now)
	s.saveLocked(s.stateOf(all, now))
	if after.equal(before) {
		return
	}
	s.tell(before, after, now, by) // the cause comes before the effect
	if s.options.Changed != nil {
		s.options.Changed()
	}
}

// effective returns the orders that stand now.
func effective(all map[string]sharedkeys.Entry[Order], now time.Time) Set {
	set := make(map[string]Order)
	for key, e := range all {
		if !e.Absent && !e.Value.expired(now) {
			set[key] = e.Value
		}
	}
	return Set{set}
}

// expire ends expired orders.
func (s *Store) expire(now time.Time) {
	for key, e := range s.keys.All() {
		switch {
		case e.Absent || !e.Value.expired(now):
		case e.Pending:
			s.keys.Cancel(key) // Consul may have an earlier one
		case !e.Changing: // unless it is a later one by then
			s.keys.Delete(key, func(_ Order, index uint64) bool { return index != e.Index })
		}
	}
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
		s.timer = time.AfterFunc(min(max(next.Sub(now), time.Millisecond), recheck), func() {
			defer panics.Contain(panics.Task, nil)
			s.refresh()
		})
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
