package consul

import (
	"context"
	"hash/maphash"
	"time"
)

// sweepEvery is the time between two services that a sweep asks for.
const sweepEvery = 20 * time.Millisecond

// names follows the names of all services. Their index moves when any instance
// comes, goes or is changed; which one, it does not tell. A list of all checks
// is read then, and shows most of it at once. It does not show an instance that
// changed while its checks did not, or that has none: so a sweep follows, which
// asks for every service.
type names struct {
	session *session
	seed    maphash.Seed
	known   map[string]uint64 // a sum over the tags, by name; nil: no answer yet
	checks  *feed             // the list; its queries do not block
	look    chan struct{}     // capacity 1: read the list
	sweep   chan struct{}     // capacity 1: ask for every service
}

// follow follows the names for s.
func (s *session) followNames() {
	n := &names{session: s, seed: maphash.MakeSeed(), look: make(chan struct{}, 1), sweep: make(chan struct{}, 1)}
	n.checks = s.newFeed("health/state/any", n.takeChecks())
	poke(n.look)
	s.start(s.newFeed("catalog/services", n.take), (*feed).run)
	s.start(n.checks, n.read)
	s.running.Go(n.sweeps)
}

// take reads the names.
func (n *names) take(a answer) error {
	services := make(map[string]uint64)
	err := readCatalog(a.body, func(name string, tags []string) {
		sum := uint64(1) // tags come in any order
		for _, tag := range tags {
			sum += maphash.String(n.seed, tag)
		}
		services[name] = sum
	})
	if err != nil {
		return err
	}
	before := n.known
	if n.known = services; before == nil {
		return nil
	}
	n.compare(before)
	poke(n.look)
	return nil
}

// compare tells of services that came, went or have other tags.
func (n *names) compare(before map[string]uint64) {
	for name, tags := range n.known {
		if old, ok := before[name]; !ok || old != tags {
			n.session.changed(change{service: name})
		}
	}
	for name := range before {
		if _, ok := n.known[name]; !ok {
			n.session.changed(change{service: name})
		}
	}
}

// read reads the list of all checks whenever it is to be looked at.
func (n *names) read(f *feed, ctx context.Context) {
	for {
		select {
		case <-n.look:
		case <-ctx.Done():
			return
		}
		f.index = 0 // it does not block
		again := f.agents.retry()
		err := f.poll(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			poke(n.look)
		}
		if delay := f.next(ctx, err); delay > 0 && f.pause(ctx, delay, again) != nil {
			return
		}
	}
}

// takeChecks returns what reads that list.
func (n *names) takeChecks() func(answer) error {
	t := newTable(checksForm)
	return func(a answer) error {
		first := t.round == 0
		err := t.compare(a.body.Bytes(), func(c change) {
			if c.kind != changeNoise {
				n.session.changed(c)
			}
		})
		if err == nil && !first {
			poke(n.sweep)
		}
		return err
	}
}

// sweeps tells of every service, one after the other, when that is asked for.
func (n *names) sweeps() {
	ctx := n.session.ctx
	for {
		select {
		case <-n.sweep:
		case <-ctx.Done():
			return
		}
		for _, service := range n.session.services() {
			n.session.changed(change{service: service})
			if sleep(ctx, sweepEvery) != nil {
				return
			}
		}
	}
}

// poke puts an element into a channel of capacity 1 that is empty.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
