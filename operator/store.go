package operator

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/consul/sharedkeys"
	"sluice/observe/panics"
)

// recheck is the longest time between two looks for expired orders: the clock may be set.
const recheck = time.Minute

// ErrTakeover is the error of an order that this process must not take: a new process starts, and
// would not know of it.
var ErrTakeover = errors.New("a new process of sluice starts: give the order again in a moment")

// Value is an order of one kind, as a Store keeps it. It is immutable.
type Value[V any] interface {
	Key() string     // identifies it: a later one with the same key replaces it
	Check() error    // what is wrong with it
	Same(V) bool     // it says the same as another one
	Ends() time.Time // when it expires; zero: never
}

// Backing is where the orders of a store are, besides in this process.
type Backing struct {
	Path   string // of the file; "": none
	Consul *consul.Client
	Prefix string               // of the keys, no final slash; "": not shared
	Wait   func() time.Duration // of blocking queries
	// Own calls f if this process owns, which does not change while f runs, and reports whether it
	// does; nil: it always does. f does not call it.
	Own func(f func()) bool
	Log zerolog.Logger
}

// StoreOptions configure a Store.
type StoreOptions[V Value[V]] struct {
	Backing

	Select func([]api.KVPair) []api.KVPair           // as in sharedkeys.Options
	Beside func(context.Context)                     // likewise
	Parse  func(key string, value []byte) (V, error) // returns the order in the value of a key

	// Yields reports whether an order that was put to yield, or proposed, gives way to current,
	// which Consul has.
	Yields func(order, current V) bool
	// Tell is called when other orders stand, before Changed. by says who has ended orders.
	Tell func(before, after map[string]V, by string)
	// Changed is called when other orders stand. It may call All, and no other method.
	Changed func()

	Name  string // of the orders, for people: "operators' orders"
	Alone string // what it means that Consul does not answer
}

// Store is the orders of one kind that stand. Its methods may be called concurrently.
type Store[V Value[V]] struct {
	options StoreOptions[V]
	log     zerolog.Logger
	keys    *sharedkeys.Keys[V]

	inEffect atomic.Pointer[map[string]V]

	// mu guards the fields below. It is held while a change takes effect, so that they are told in
	// order.
	mu sync.Mutex

	fileErr error       // why the orders are not in the file
	written []byte      // the text of the file
	timer   *time.Timer // runs until an order may expire
	paused  bool        // another process has the orders
	closed  bool        // see Close
}

// NewStore returns a store without orders.
func NewStore[V Value[V]](o StoreOptions[V]) *Store[V] {
	s := &Store[V]{options: o, log: o.Log}
	s.inEffect.Store(new(map[string]V))
	if o.Own == nil {
		s.options.Own = func(f func()) bool {
			f()
			return true
		}
	}
	if o.Prefix != "" {
		s.log = o.Log.With().Str("keys", "consul_kv:"+o.Prefix).Logger()
	}
	s.keys = sharedkeys.New(sharedkeys.Options[V]{
		Consul: o.Consul, Prefix: o.Prefix, Wait: o.Wait, Log: s.log,
		Decode: o.Parse, Select: o.Select, Beside: o.Beside, Changed: s.Refresh,
		MayWrite: func() bool { return s.options.Own(func() {}) },
		Name:     o.Name, Alone: o.Alone,
	})
	return s
}

// Resume begins to follow Consul, and to accept orders again after Pause.
func (s *Store[V]) Resume() {
	s.set(false, false)
	s.keys.Resume()
	s.Refresh()
}

// Pause refuses orders, since another process has them, and ends what Resume began. Orders still
// expire: until the other process serves, requests are served here.
func (s *Store[V]) Pause() {
	s.set(true, false)
	s.keys.Pause()
}

// Replace replaces the orders that stand by those of the process that has the orders, until Resume.
// It only acts after Pause: nothing is written, and no event is emitted.
func (s *Store[V]) Replace(orders map[string]V) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.paused || s.closed {
		return
	}
	before := s.All()
	s.inEffect.Store(&orders)
	s.scheduleLocked(time.Now())
	if s.options.Changed != nil && !maps.EqualFunc(before, orders, V.Same) {
		s.options.Changed()
	}
}

// Close is Pause for good: nothing expires any more.
func (s *Store[V]) Close() {
	s.set(true, true)
	s.keys.Pause()
}

func (s *Store[V]) set(paused, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused, s.closed = paused, s.closed || closed
	if s.closed && s.timer != nil {
		s.timer.Stop()
	}
}

// Shares reports whether other replicas get the orders.
func (s *Store[V]) Shares() bool { return s.keys.Shared() }

// Current reports whether the last query to Consul was answered.
func (s *Store[V]) Current() bool { return s.keys.Current() }

// All returns the orders that stand, by key. The map is immutable.
func (s *Store[V]) All() map[string]V { return *s.inEffect.Load() }

// Put adds an order, in place of an earlier one with the same key. With yields it gives way to what
// StoreOptions.Yields says. may, if not nil, gets the orders that stand, and returns why the order
// must not be added. The error is from Value.Check, from may, or ErrTakeover.
func (s *Store[V]) Put(order V, yields bool, may func(effective map[string]V) error) error {
	if err := order.Check(); err != nil {
		return err
	}
	return s.change("", func() error {
		if may != nil {
			if err := may(s.All()); err != nil {
				return err
			}
		}
		s.put(order, yields)
		return nil
	})
}

func (s *Store[V]) put(order V, yields bool) {
	var void sharedkeys.Condition[V]
	if yields {
		void = s.yielding(order)
	}
	s.keys.Put(order.Key(), order, void)
}

// yielding returns the condition of an order that gives way to what StoreOptions.Yields says.
func (s *Store[V]) yielding(order V) sharedkeys.Condition[V] {
	return func(latest V, index uint64) bool { return index > 0 && s.options.Yields(order, latest) }
}

// Propose adds an order if Consul accepts it before anybody has changed the one with the same key,
// which gives way to what StoreOptions.Yields says. It reports false if this one is changing
// already, or if this process must not take orders.
func (s *Store[V]) Propose(order V) (proposed bool) {
	_ = s.change("", func() error {
		proposed = s.keys.Propose(order.Key(), order, s.yielding(order))
		return nil
	})
	return proposed
}

// End ends the order with a key, and reports whether there was one. by says for people who ends it.
func (s *Store[V]) End(key, by string) (found bool, err error) {
	err = s.change(by, func() error {
		if _, found = s.All()[key]; found {
			s.keys.Delete(key, nil)
		}
		return nil
	})
	return found, err
}

// Retract ends an order that nobody has ended, unless it is another one by then, here or in Consul.
func (s *Store[V]) Retract(order V) error {
	return s.change("", func() error {
		if current, stands := s.All()[order.Key()]; stands && current.Same(order) {
			s.retract(order)
		}
		return nil
	})
}

func (s *Store[V]) retract(order V) {
	s.keys.Delete(order.Key(), func(latest V, _ uint64) bool { return !latest.Same(order) })
}

// change makes a change that somebody orders.
func (s *Store[V]) change(by string, f func() error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owns := s.options.Own(func() {
		if s.paused {
			err = ErrTakeover
		} else if err = f(); err == nil {
			s.takeEffectLocked(by, true)
		}
	})
	if !owns {
		return ErrTakeover
	}
	return err
}

// Refresh makes what has changed take effect: in Consul, by the time, or because this process owns
// now.
func (s *Store[V]) Refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refreshLocked()
}

func (s *Store[V]) refreshLocked() {
	if !s.options.Own(func() { s.takeEffectLocked("", true) }) {
		s.takeEffectLocked("", false)
	}
}

// takeEffectLocked computes the orders that stand, writes the file if this process owns, and tells
// what is different. by says who has ended orders.
func (s *Store[V]) takeEffectLocked(by string, owns bool) {
	now := time.Now()
	before, after := s.All(), map[string]V(nil)
	if s.paused { // what has changed beside is the other process's
		owns = false
		after = maps.Clone(before)
		maps.DeleteFunc(after, func(_ string, order V) bool { return expired(order, now) })
	} else {
		s.expire(now)
		after = s.effective(now)
	}
	s.inEffect.Store(&after)
	s.scheduleLocked(now)
	if owns {
		s.saveLocked()
	}
	if maps.EqualFunc(before, after, V.Same) {
		return
	}
	if s.options.Tell != nil {
		s.options.Tell(before, after, by) // the cause comes before the effect
	}
	if s.options.Changed != nil {
		s.options.Changed()
	}
}

// effective returns the orders that stand at a time.
func (s *Store[V]) effective(now time.Time) map[string]V {
	set := make(map[string]V)
	for key, e := range s.keys.All() {
		if !e.Absent && !expired(e.Value, now) {
			set[key] = e.Value
		}
	}
	return set
}

// expired reports whether an order has ended by itself.
func expired[V Value[V]](order V, now time.Time) bool {
	ends := order.Ends()
	return !ends.IsZero() && !now.Before(ends)
}

// expire ends expired orders, also one that Consul has never had, with the earlier one that it
// replaces.
func (s *Store[V]) expire(now time.Time) {
	for key, e := range s.keys.All() {
		// Unless Consul has a later one by then.
		if !e.Absent && expired(e.Value, now) && (e.Pending || !e.Changing) {
			s.keys.Delete(key, func(latest V, index uint64) bool { return index != e.Index && !latest.Same(e.Before) })
		}
	}
}

// scheduleLocked sets the timer for the next order that expires.
func (s *Store[V]) scheduleLocked(now time.Time) {
	var next time.Time
	for _, order := range s.All() {
		if ends := order.Ends(); !ends.IsZero() && (next.IsZero() || ends.Before(next)) {
			next = ends
		}
	}
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if !next.IsZero() && !s.closed {
		s.timer = time.AfterFunc(min(max(next.Sub(now), time.Millisecond), recheck), func() {
			defer panics.Contain(panics.Task, nil)
			s.Refresh()
		})
	}
}

// Entry returns what this replica knows of a key.
func (s *Store[V]) Entry(key string) sharedkeys.Entry[V] { return s.keys.Of(key) }

// Await waits until Consul has accepted the latest change of the key, at most for timeout, and
// returns why it has not. Without other replicas it returns at once.
func (s *Store[V]) Await(ctx context.Context, key string, timeout time.Duration) error {
	return s.keys.Await(ctx, key, timeout)
}

// AwaitFirst waits until Consul has answered, at most for timeout.
func (s *Store[V]) AwaitFirst(ctx context.Context, timeout time.Duration) {
	s.keys.AwaitFirst(ctx, timeout)
}

// QueryError returns why Consul cannot be followed; nil: it can, or need not.
func (s *Store[V]) QueryError() error {
	query, _ := s.keys.Errors()
	return query
}
