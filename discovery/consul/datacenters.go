package consul

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/discovery"
	"sluice/observe/wake"
)

// datacenterStableTime is how long a preferred data centre must have enough instances
// in service before it is used again.
const datacenterStableTime = 10 * time.Second

// datacenterTimeout is how long a data centre may fail while another one answers until
// it counts as having no instance in service.
const datacenterTimeout = time.Minute

// choice chooses one part, a data centre. With spill, or with a single part, it uses all.
type choice struct {
	before     discovery.WatchState // the run
	report     func(discovery.Report)
	minHealthy int
	log        zerolog.Logger
	spill      bool      // all are used
	begin      time.Time // of the watch
	changed    wake.One  // a branch or the order has changed

	mu       sync.Mutex // guards the fields below and the fields of the branches
	branches []*branch  // in order of preference; changed by reorder only
	ordered  bool       // the order is known
	used     int        // index in branches; -1: none yet
	reset    bool       // Report.Reset of a branch, which was not passed on yet
}

// branch is the state of one part.
type branch struct {
	*choice
	part
	listed int // position in the configuration

	// The mu of choice guards the fields below.

	position        int              // in branches
	last            discovery.Report // the last one with a set; Answered is zero if there was none
	serving         int              // in last.Set; -1: no set yet, in this run or in use before
	usable          int              // in last.Set
	memory          discovery.Memory // Part is empty: none yet
	err             error            // of the last query; nil: it succeeded
	asked           bool             // there was a query
	since           time.Time        // when err last became nil or not nil
	lost            bool             // it counts as having no instance in service until it answers
	sufficientSince time.Time        // of minHealthy in service with the same result; zero: fewer
	failing         bool             // the log has the failure
}

// partOf returns the part of the state before the run that is about a data centre or a target.
func (c *choice) partOf(p part) discovery.WatchState {
	own := c.before
	memory := own.PartOf(p.name)
	memory.Part = ""
	own.Set, own.Memory = nil, []discovery.Memory{memory}
	for _, i := range c.before.Set {
		if p.has(&i) {
			own.Set = append(own.Set, i)
		}
	}
	own.Known = len(own.Set) > 0 // another part may be in use
	return own
}

// inherit begins with the data centre that was in use before the run, and its instances as its last
// answer. So it stays in use if its first query fails, and does not wait for another data centre,
// which may hang. A snapshot does not say what was in use, nor is one part with spill.
func (b *branch) inherit() {
	b.mu.Lock()
	defer b.mu.Unlock()
	own := b.partOf(b.part)
	if b.spill || !own.Known || !own.Restored.IsZero() {
		return
	}
	b.memory = own.Memory[0]
	b.memory.Part = b.name
	b.recordSetLocked(discovery.Report{Set: own.Set, Endpoint: own.Endpoint, Index: b.memory.Index, Answered: own.LastSuccess})
	b.used = b.position
}

// state returns what is known about the part.
func (b *branch) state() discovery.WatchState {
	b.mu.Lock()
	defer b.mu.Unlock()
	state := b.partOf(b.part)
	if b.serving >= 0 {
		state.Known, state.Set = true, b.last.Set
		state.Memory = []discovery.Memory{b.memory}
		state.Memory[0].Part = ""
	}
	return state
}

// memoriesLocked returns what the watches of all parts know. For parts that are gone or have not
// answered yet, it is what was known before the run: the set may have their instances.
func (c *choice) memoriesLocked() []discovery.Memory {
	memories := slices.Clone(c.before.Memory)
	for _, b := range c.branches {
		n := slices.IndexFunc(memories, func(m discovery.Memory) bool { return m.Part == b.name })
		switch {
		case b.memory.Part == "":
		case n < 0:
			memories = append(memories, b.memory)
		default:
			memories[n] = b.memory
		}
	}
	return memories
}

func (b *branch) record(r discovery.Report) {
	defer b.changed.Send()
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Known {
		b.recordSetLocked(r)
		b.reset = b.reset || r.Reset
	}
	if len(r.Memory) > 0 {
		b.memory = r.Memory[0]
		b.memory.Part = b.name
	}
	b.recordQueryLocked(r.Err)
}

func (b *branch) recordSetLocked(r discovery.Report) {
	b.last, b.serving, b.usable = r, discovery.CountServing(r.Set), 0
	b.last.Answered = cmp.Or(r.Answered, time.Now())
	for _, i := range r.Set {
		if i.Usable() {
			b.usable++
		}
	}
	switch {
	case b.serving < b.minHealthy:
		b.sufficientSince = time.Time{}
	case b.sufficientSince.IsZero():
		b.sufficientSince = time.Now()
	}
}

// recordQueryLocked records the result of a query.
func (b *branch) recordQueryLocked(err error) {
	if !b.asked || (err == nil) != (b.err == nil) {
		b.since = time.Now()
		if !b.sufficientSince.IsZero() {
			b.sufficientSince = b.since
		}
	}
	b.err, b.asked = err, true
	b.lost = b.lost && err != nil
}

// unreachableLocked reports whether the data centre counts as having no instance in service:
// it fails while another one answers, or did since its last answer. Otherwise it returns after what
// time that may become so; 0: never. If all fail, the cause is not the data centre.
func (b *branch) unreachableLocked(now time.Time) (bool, time.Duration) {
	if b.err == nil || b.lost {
		return b.lost, 0
	}
	wait := time.Duration(0)
	for _, o := range b.branches {
		if !o.asked || o.err != nil {
			continue
		}
		// The other one may have recovered just now, and this one may follow.
		since := b.since
		if o.since.After(since) {
			since = o.since
		}
		left := datacenterTimeout - now.Sub(since)
		if left <= 0 {
			b.lost = true
			return true, 0
		}
		wait = sooner(wait, left)
	}
	return false, wait
}

// sooner returns the shorter of two times, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// reorder changes the order of preference of the data centres to order. The others
// come last, as they are listed.
func (c *choice) reorder(order []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	branches := slices.SortedFunc(slices.Values(c.branches), func(a, b *branch) int { return cmp.Compare(a.listed, b.listed) })
	nearestFirst(branches, func(b *branch) string { return b.name }, order)
	if c.ordered && slices.Equal(branches, c.branches) {
		return
	}
	c.ordered = true
	if c.used >= 0 {
		c.used = slices.Index(branches, c.branches[c.used])
	}
	for n, b := range branches {
		b.position = n
	}
	c.branches = branches
	c.changed.Send()
}

// run chooses after each change, until ctx ends.
func (c *choice) run(ctx context.Context) error {
	returning := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.changed:
		case <-returning.C:
		}
		if wait := c.chooseDatacenter(time.Now()); wait > 0 {
			returning.Reset(wait)
		}
	}
}

// chooseDatacenter chooses a data centre and reports its set. It returns after what time the
// choice may change without another event; 0: never.
func (c *choice) chooseDatacenter(now time.Time) (wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if left := c.begin.Add(combineWait).Sub(now); !c.ordered && left > 0 {
		return left
	}
	if c.spill {
		return c.combineLocked(now)
	}
	best, wait := c.bestLocked(now)
	if best < 0 {
		for _, b := range c.branches {
			if b.err != nil {
				c.report(discovery.Report{Err: b.err, Memory: c.memoriesLocked()})
				break
			}
		}
		return wait
	}
	if !c.branches[best].asked {
		return wait // its instances of before the run are in use
	}
	if best != c.used {
		if c.used >= 0 {
			c.log.Warn().Str("datacenter", c.branches[best].name).Str("instead_of", c.branches[c.used].name).
				AnErr("unreachable", c.branches[c.used].err).Int("instances", c.branches[best].serving).
				Msg("the instances of another data centre are used")
		}
		c.used = best
	}
	b := c.branches[best]
	last := b.last
	return sooner(wait, c.passLocked(now, discovery.Report{Set: last.Set, Endpoint: last.Endpoint, Index: last.Index, Answered: last.Answered, Err: c.failureLocked(b)}))
}

// passLocked reports r, a set, with what the watches of all parts know. It returns after what time
// the set may be complete without another event; 0: never.
func (c *choice) passLocked(now time.Time, r discovery.Report) (wait time.Duration) {
	r.Known, r.Reset = true, c.reset
	for _, b := range c.branches {
		r.Invalid = append(r.Invalid, b.last.Invalid...)
		if b.serving < 0 {
			unreachable, until := b.unreachableLocked(now)
			r.Partial, wait = r.Partial || !unreachable, sooner(wait, until)
		}
	}
	discovery.SortInvalid(r.Invalid)
	r.Memory = slices.DeleteFunc(c.memoriesLocked(), func(m discovery.Memory) bool {
		// The part is no longer there.
		return !slices.ContainsFunc(c.branches, func(b *branch) bool { return b.name == m.Part })
	})
	c.reset = false
	c.report(r)
	return wait
}

// failureLocked returns the error of the data centre in use, or of a preferred one. It
// logs the errors of other data centres.
func (c *choice) failureLocked(used *branch) (failed error) {
	for _, b := range c.branches {
		if b.err != nil && b.position <= used.position && failed == nil {
			failed = b.err
		}
		if b.failing == (b.err != nil) || b.position <= used.position {
			continue
		}
		b.failing = b.err != nil
		if b.failing {
			c.log.Warn().Str("datacenter", b.name).Err(b.err).Msg("watch of a less preferred data centre failing")
		} else {
			c.log.Info().Str("datacenter", b.name).Msg("watch of a less preferred data centre recovered")
		}
	}
	return failed
}

// bestLocked returns the index of the data centre to use, or -1 while it is unknown,
// and after what time it may change without another event; 0: never.
func (c *choice) bestLocked(now time.Time) (position int, wait time.Duration) {
	best, most := -1, -1
	inUse := c.used >= 0 && c.branches[c.used].sufficesLocked(now)
	for n, b := range c.branches {
		if !b.asked && c.used < 0 {
			return -1, 0 // its first query is in flight
		}
		if b.serving < 0 {
			continue
		}
		silent, until := b.unreachableLocked(now)
		wait = sooner(wait, until)
		serving := b.serving
		if silent {
			serving = 0
		}
		if b.sufficesLocked(now) {
			// A preferred one is used again after a while, and left at once.
			since := now.Sub(b.sufficientSince)
			if !inUse || c.used <= n || b.err == nil && since >= datacenterStableTime {
				return n, wait
			}
			if b.err == nil {
				wait = sooner(wait, datacenterStableTime-since)
			}
			continue
		}
		// If none has instances in service, instances on probation may still serve.
		if serving > most || most == 0 && b.usable > c.branches[best].usable {
			best, most = n, serving
		}
	}
	return best, wait
}

// sufficesLocked reports whether the data centre has enough instances in service.
func (b *branch) sufficesLocked(now time.Time) bool {
	silent, _ := b.unreachableLocked(now)
	return !silent && !b.sufficientSince.IsZero()
}
