package consul

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/discovery"
)

// datacenterCalm is how long a data centre that is preferred to the one in use
// must have had enough instances in service before it is used again.
const datacenterCalm = 10 * time.Second

// datacenterPatience is how long a data centre may fail to answer, while another
// one answers, before it counts as having no instance in service.
const datacenterPatience = time.Minute

// datacenters watches a service in several data centres, each as a service of
// its own, and reports the set of one of them.
type datacenters struct {
	client  *Client
	options ServiceOptions
	sources []*source // in order of preference
}

func newDatacenters(c *Client, o ServiceOptions) *datacenters {
	d := &datacenters{client: c, options: o}
	for _, name := range o.Datacenters {
		one := o
		one.Datacenters, one.Datacenter = nil, name
		d.sources = append(d.sources, &source{client: c, options: one, rate: queriesPerSecond})
	}
	return d
}

// String says what is watched, as that of a source.
func (d *datacenters) String() string { return d.options.selection() }

// Run implements discovery.Source.
func (d *datacenters) Run(ctx context.Context, report *discovery.Watch) error {
	c := &choice{
		report:     report,
		minHealthy: d.options.MinHealthy,
		log:        d.client.log.With().Str("consul_service", d.options.Service).Logger(),
		changed:    make(chan struct{}, 1),
		used:       -1,
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	for n, s := range d.sources {
		b := &branch{choice: c, datacenter: d.options.Datacenters[n], place: n, serving: -1}
		c.branches = append(c.branches, b)
		running.Go(func() {
			// It ends with ctx: the service has a name.
			_ = s.run(ctx, b)
		})
	}
	return c.run(ctx)
}

// choice is the data centre in use.
type choice struct {
	report     *discovery.Watch
	minHealthy int
	log        zerolog.Logger
	branches   []*branch     // in order of preference
	changed    chan struct{} // capacity 1: some branch has

	mu   sync.Mutex // guards the fields below and those of the branches
	used int        // its place; -1: none yet
}

// branch is where the watch of one data centre reports.
type branch struct {
	*choice
	datacenter string
	place      int

	// The mu of choice guards the fields below.

	set      []discovery.Instance
	serving  int // in set; -1: no set yet
	usable   int // in set
	endpoint string
	index    uint64
	err      error     // of the last query; nil: it was answered
	asked    bool      // there was a query
	since    time.Time // when err became nil, or the first one after it had been
	enough   time.Time // since when it answers and has minHealthy in service; zero: they are not
	failing  bool      // it was logged
}

// Instances returns those of the set in use that are of this data centre.
func (b *branch) Instances() ([]discovery.Instance, bool) {
	all, ok := b.report.Instances()
	var own []discovery.Instance
	for _, i := range all {
		if i.Datacenter == b.datacenter {
			own = append(own, i)
		}
	}
	return own, ok && len(own) > 0
}

// Restore asks for the saved set, of whichever data centre.
func (b *branch) Restore() { b.report.Restore() }

// From implements reporter.
func (b *branch) From(endpoint string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endpoint = endpoint
}

// Emit implements reporter.
func (b *branch) Emit(set []discovery.Instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set, b.serving, b.usable = set, serving(set), 0
	for _, i := range set {
		if i.Usable() {
			b.usable++
		}
	}
	switch {
	case b.serving < b.minHealthy:
		b.enough = time.Time{}
	case b.enough.IsZero():
		b.enough = time.Now()
	}
}

// Succeeded implements reporter.
func (b *branch) Succeeded(index uint64) {
	b.mu.Lock()
	b.index = index
	b.answered(nil)
	b.mu.Unlock()
	b.wake()
}

// Failed implements reporter.
func (b *branch) Failed(err error) {
	b.mu.Lock()
	b.answered(err)
	b.mu.Unlock()
	b.wake()
}

// answered takes in how a query ended. It needs mu.
func (b *branch) answered(err error) {
	if !b.asked || (err == nil) != (b.err == nil) {
		b.since = time.Now()
		if !b.enough.IsZero() {
			b.enough = b.since
		}
	}
	b.err, b.asked = err, true
}

// silent reports whether the data centre counts as having nothing in service, for
// it cannot be reached although another one can, and if not, after what time it
// may; 0: not as things are. What is wrong when none of them answers is wrong
// with all. It needs mu.
func (b *branch) silent(now time.Time) (bool, time.Duration) {
	if b.err == nil {
		return false, 0
	}
	wait := time.Duration(0)
	for _, o := range b.branches {
		if !o.asked || o.err != nil {
			continue
		}
		// If it did not answer either until now, this one may be next to do so.
		since := b.since
		if o.since.After(since) {
			since = o.since
		}
		left := datacenterPatience - now.Sub(since)
		if left <= 0 {
			return true, 0
		}
		wait = sooner(wait, left)
	}
	return false, wait
}

// sooner returns the shorter one of two times to wait, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// wake has the choice made again.
func (c *choice) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// run makes the choice each time that something has changed, until ctx ends.
func (c *choice) run(ctx context.Context) error {
	calm := time.NewTimer(0)
	defer calm.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.changed:
		case <-calm.C:
		}
		if wait := c.choose(time.Now()); wait > 0 {
			calm.Reset(wait)
		}
	}
}

// choose makes the choice and reports it. It returns when the choice may change
// although nothing else does; 0: not at all.
func (c *choice) choose(now time.Time) (wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	best, wait := c.best(now)
	if best < 0 {
		for _, b := range c.branches {
			if b.err != nil {
				c.report.Failed(b.err)
				break
			}
		}
		return wait
	}
	if best != c.used {
		if c.used >= 0 {
			c.log.Warn().Str("datacenter", c.branches[best].datacenter).Str("instead_of", c.branches[c.used].datacenter).
				AnErr("unreachable", c.branches[c.used].err).Int("instances", c.branches[best].serving).
				Msg("the instances of another data centre are used from now on")
		}
		c.used = best
	}
	b := c.branches[best]
	c.report.From(b.endpoint)
	c.report.Emit(b.set)
	c.tell(b)
	return wait
}

// tell reports how the queries fare: those for the data centre in use, and for
// those that are preferred to it. What fails elsewhere is in the log. It needs mu.
func (c *choice) tell(used *branch) {
	var failed error
	for _, b := range c.branches {
		if b.err != nil && b.place <= used.place && failed == nil {
			failed = b.err
		}
		if b.failing == (b.err != nil) || b.place <= used.place {
			continue
		}
		b.failing = b.err != nil
		if b.failing {
			c.log.Warn().Str("datacenter", b.datacenter).Err(b.err).Msg("a data centre in reserve cannot be watched")
		} else {
			c.log.Info().Str("datacenter", b.datacenter).Msg("a data centre in reserve can be watched again")
		}
	}
	if failed != nil {
		c.report.Failed(failed)
	} else {
		c.report.Succeeded(used.index)
	}
}

// best returns the place of the data centre to use, -1 while it is too early to
// tell, and after what time that may change by itself; 0: not at all. It needs mu.
func (c *choice) best(now time.Time) (place int, wait time.Duration) {
	best, most := -1, -1
	inUse := c.used >= 0 && c.branches[c.used].suffices(now)
	for n, b := range c.branches {
		if b.serving < 0 {
			if !b.asked && c.used < 0 {
				return -1, 0 // its first answer is on its way
			}
			continue
		}
		silent, until := b.silent(now)
		wait = sooner(wait, until)
		serving := b.serving
		if silent {
			serving = 0
		}
		if b.suffices(now) {
			// Back to a preferred one only after a calm; away from one at once.
			since := now.Sub(b.enough)
			if !inUse || c.used <= n || since >= datacenterCalm {
				return n, wait
			}
			wait = sooner(wait, datacenterCalm-since)
			continue
		}
		// With nothing in service anywhere, what was there last may still be, as may
		// what is on probation.
		if serving > most || most == 0 && b.usable > c.branches[best].usable {
			best, most = n, serving
		}
	}
	return best, wait
}

// suffices reports whether the data centre has enough instances in service. It
// needs mu.
func (b *branch) suffices(now time.Time) bool {
	silent, _ := b.silent(now)
	return !silent && !b.enough.IsZero()
}
