package sharedkeys

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// Options configure Keys.
type Options[V any] struct {
	Consul *consul.Client
	Prefix string               // of the keys, without a final slash; "": no other replica has them
	Wait   func() time.Duration // of blocking queries

	// Decode returns the value of a key, or why it cannot be used. Names of keys are without the
	// prefix.
	Decode func(key string, value []byte) (V, error)
	// Select, if not nil, gets all keys of each answer, and returns the keys that have values.
	Select func([]api.KVPair) []api.KVPair
	// Changed is called when other replicas may have changed values. It may call all methods
	// but Pause.
	Changed func()
	// Beside, if not nil, is called by Resume in a goroutine, and returns when its context ends.
	Beside func(context.Context)
	// MayWrite reports whether this process may write to Consul; nil: always. Changes wait for it.
	MayWrite func() bool

	Name  string // of the values, for people: "operators' orders"
	Alone string // what it means that Consul does not answer
	Log   zerolog.Logger
}

// Keys are the keys below a prefix. Its methods may be called concurrently.
type Keys[V any] struct {
	options  Options[V]
	log      zerolog.Logger
	wake     wake.One      // there may be a change to write
	first    chan struct{} // closed when Consul has answered, and the values count
	opened   sync.Once     // closes first
	progress wake.All      // see progressOf

	mu sync.Mutex // guards the fields below

	known   map[string]known[V]   // what Consul has, or had when this process started
	changes map[string]*change[V] // what no answer of Consul has shown yet
	invalid map[string]Invalid
	index   uint64         // of the last answer
	marked  bool           // it had the mark
	mark    uint64         // the version of the mark that it had
	version uint64         // the highest version of the mark that was seen
	began   bool           // an answer had the mark
	current bool           // Consul has answered since Resume
	failure error          // of the last query
	refused error          // of the last attempt to write all changes
	tasks   panics.Running // that Resume has begun
}

// known is a value in Consul.
type known[V any] struct {
	value   V
	index   uint64 // of its last change; 0: not known
	version uint64 // see the package comment; 0: not known
}

// Condition reports whether a change has become void. latest is Consul's value, also zero if it
// cannot be used, and index that of its last change; 0: there is no such key.
type Condition[V any] func(latest V, index uint64) (void bool)

// change is a change of a key.
type change[V any] struct {
	value    *V           // nil: it is deleted
	void     Condition[V] // nil: never
	restores bool         // what Consul has lost, or has as it was earlier
	version  uint64       // restores: void if Consul has it or later; accepted: as written; 0: none
	proposed bool         // it counts when Consul has accepted it

	accepted bool   // by Consul, or void
	isVoid   bool   // with accepted: another replica's value counts, which no answer has shown yet
	seen     uint64 // with accepted: the index that shows it
	due      bool   // with accepted: the query under way began after that
	err      error  // of the last attempt to write it
}

// Entry is the state of a key.
type Entry[V any] struct {
	Value   V
	Before  V      // what Consul has or had, beside a change; zero: nothing
	Index   uint64 // of its last change in Consul; 0: not known
	Version uint64 // of that change; 0: not known
	Absent  bool   // it has no value here; Consul may have one

	Changing    bool  // no answer of Consul has shown the latest change here
	Conditional bool  // with Changing: the change has a condition
	Restores    bool  // with Conditional: the change is of RestoreLost
	Proposed    bool  // with Changing: the change is a proposal, and Value the present one
	Pending     bool  // with Changing: Consul has not accepted the change
	Err         error // with Pending: of the last attempt to write it
}

// Invalid is a key with a value that cannot be used.
type Invalid struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
	InUse  bool   `json:"in_use"` // the last value that it had is
	index  uint64
}

// New returns Keys without values.
func New[V any](o Options[V]) *Keys[V] {
	return &Keys[V]{
		options: o, log: o.Log, wake: wake.NewOne(), first: make(chan struct{}),
		known: make(map[string]known[V]), changes: make(map[string]*change[V]),
	}
}

// Shared reports whether other replicas get the values.
func (k *Keys[V]) Shared() bool { return k.options.Prefix != "" }

// Restore replaces all by the state of another process: values that Consul had, and changes that it
// may lack; nil: the key is deleted.
func (k *Keys[V]) Restore(values map[string]V, changes map[string]*V, seen Versions) {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.known)
	clear(k.changes)
	for key, v := range values {
		k.known[key] = known[V]{value: v, version: seen.Keys[key]}
	}
	for key, v := range changes {
		k.changes[key] = &change[V]{value: v}
	}
	k.marked = len(values) > 0
	k.began, k.version = k.marked, seen.Mark
	k.wake.Send()
}

// Versions are the versions of the mark and of the values that another process has seen.
type Versions struct {
	Mark uint64
	Keys map[string]uint64
}

// Seen returns the highest version of the mark that was seen.
func (k *Keys[V]) Seen() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.version
}

// Put gives a key a value. void may be nil.
func (k *Keys[V]) Put(key string, value V, void Condition[V]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes[key] = &change[V]{value: &value, void: void}
	k.wake.Send()
}

// RestoreLost gives a key a value that Consul has lost, unless Consul has one again; if version is
// above 0, only one of that version or later counts.
func (k *Keys[V]) RestoreLost(key string, value V, version uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes[key] = newRestoring(value, version)
	k.wake.Send()
}

// newRestoring gives a key a lost value, unless Consul has this version or later; 0: any.
func newRestoring[V any](value V, version uint64) *change[V] {
	there := func(_ V, index uint64) bool { return index > 0 } // another replica was faster
	return &change[V]{value: &value, void: there, restores: true, version: version}
}

// Delete ends the value of a key. void may be nil.
func (k *Keys[V]) Delete(key string, void Condition[V]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.known[key]
	switch {
	case !k.Shared():
		delete(k.changes, key)
	// No write is needed to know that the deletion is void.
	case void != nil && k.changes[key] == nil && n.index > 0 && void(n.value, n.index):
	default:
		k.changes[key] = &change[V]{void: void}
		k.wake.Send()
	}
}

// Propose gives a key a value if Consul accepts it before another one and it is not void.
// While the key is changing, it does nothing and reports false. void may be nil.
func (k *Keys[V]) Propose(key string, value V, void Condition[V]) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.changes[key] != nil {
		return false
	}
	last := k.known[key].index
	changed := func(latest V, index uint64) bool { return index != last || void != nil && void(latest, index) }
	k.changes[key] = &change[V]{value: &value, void: changed, proposed: true}
	k.wake.Send()
	return true
}

// All returns what this replica knows of each key.
func (k *Keys[V]) All() map[string]Entry[V] {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make(map[string]Entry[V], len(k.known)+len(k.changes))
	for _, key := range k.keysLocked() {
		all[key] = k.entryLocked(key)
	}
	return all
}

func (k *Keys[V]) keysLocked() []string {
	keys := slices.Collect(maps.Keys(k.known))
	for key := range k.changes {
		if _, there := k.known[key]; !there {
			keys = append(keys, key)
		}
	}
	return keys
}

func (k *Keys[V]) entryLocked(key string) Entry[V] {
	n, there := k.known[key]
	e := Entry[V]{Value: n.value, Before: n.value, Index: n.index, Version: n.version, Absent: !there}
	if c := k.changes[key]; c != nil {
		if c.restores {
			e.Version = c.version
		}
		e.Changing, e.Conditional, e.Restores, e.Pending, e.Err = true, c.void != nil, c.restores, !c.accepted, c.err
		switch {
		case c.proposed:
			e.Proposed = true
		case c.value == nil:
			e.Absent = true
		default:
			e.Value, e.Absent = *c.value, false
		}
	}
	return e
}

// Of returns what this replica knows of a key.
func (k *Keys[V]) Of(key string) Entry[V] {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.entryLocked(key)
}

// Invalid returns the keys that cannot be used, sorted.
func (k *Keys[V]) Invalid() []Invalid {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := []Invalid{}
	for _, key := range slices.Sorted(maps.Keys(k.invalid)) {
		all = append(all, k.invalid[key])
	}
	return all
}

// Current reports whether the last query to Consul was answered.
func (k *Keys[V]) Current() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current && k.failure == nil
}

// Errors returns the errors of the last query and of the last write to Consul; nil: it succeeded,
// or there is nothing to write.
func (k *Keys[V]) Errors() (query, write error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failure, k.refused
}

// Await waits until Consul has accepted the latest change of a key, at most for timeout.
// It returns why Consul has not. Without other replicas it returns at once.
func (k *Keys[V]) Await(ctx context.Context, key string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errors.New("no answer of Consul yet"))
	defer cancel()
	for {
		progress, done, err := k.progressOf(key)
		if done {
			return err
		}
		if wake.Await(ctx, progress) != nil {
			return context.Cause(ctx)
		}
	}
}

// progressOf reports whether the latest change of a key was written, or why it was not.
// progress is closed when that may have changed.
func (k *Keys[V]) progressOf(key string) (progress <-chan struct{}, done bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.changes[key]
	if c == nil || !k.Shared() {
		return nil, true, nil
	}
	return k.progress.Wait(), c.accepted || c.err != nil, c.err
}

// AwaitFirst waits until Consul has answered, at most for timeout.
func (k *Keys[V]) AwaitFirst(ctx context.Context, timeout time.Duration) {
	if !k.Shared() {
		return
	}
	select {
	case <-k.first:
	case <-time.After(timeout):
		k.log.Warn().Stringer("waited", timeout).Msg(k.options.Name + ": what Consul has is not known until it answers")
	case <-ctx.Done():
	}
}
