package consul

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

const (
	// explainTime is how long after a change of the names' index a query on all
	// checks may show what it was.
	explainTime = 200 * time.Millisecond
	// hiddenTime is how long after a change that has shown itself it is time to
	// look for what it may have hidden.
	hiddenTime = time.Second
	// sweepEvery is the time between two services that are asked for when
	// nothing shows which one changed.
	sweepEvery = 20 * time.Millisecond
)

// names follows the names of all services. Their index moves when any instance
// comes, goes or is changed; which one, it does not tell.
type names struct {
	session *session
	seed    maphash.Seed
	known   map[string]uint64 // a sum over the tags, by name; nil: no answer yet
	sweep   chan struct{}     // capacity 1: ask for every service

	mu    sync.Mutex     // guards the fields below
	shown [1 << 8]uint64 // the latest indexes at which checks showed a change
	next  int            // the oldest of them

	locator *locator
}

// start follows the names for a session; l is to find what they do not tell.
func (n *names) start(s *session, l *locator) {
	n.session, n.locator, n.seed, n.sweep = s, l, maphash.MakeSeed(), make(chan struct{}, 1)
	s.start(s.newFeed("catalog/services", n.take))
	s.running.Go(n.sweeps)
}

// shows takes note of a change of checks at index.
func (n *names) shows(index uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shown[n.next] = index
	n.next = (n.next + 1) % len(n.shown)
}

// showed reports whether checks have shown a change at index.
func (n *names) showed(index uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.shown[:], index)
}

// take reads an answer.
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
	n.known = services
	if before == nil {
		return nil
	}
	shown := n.compare(before) || n.showed(a.index)
	switch byNames := n.session.way == byNames; {
	case byNames && !shown:
		n.locator.request(a.index)
	case byNames: // what has shown itself may hide more
		n.later(hiddenTime, func() { n.locator.request(0) })
	case !shown: // the answer of the checks takes longer
		n.later(explainTime, func() {
			if !n.showed(a.index) {
				n.locator.request(a.index)
			}
		})
	}
	return nil
}

// later calls f after d, unless the session ends.
func (n *names) later(d time.Duration, f func()) {
	n.session.running.Go(func() {
		if sleep(n.session.ctx, d) == nil {
			f()
		}
	})
}

// compare tells of services that came, went or have other tags.
func (n *names) compare(before map[string]uint64) (told bool) {
	tell := func(service string) {
		told = true
		n.session.changed(change{service: service})
	}
	for name, tags := range n.known {
		if old, ok := before[name]; !ok || old != tags {
			tell(name)
		}
	}
	for name := range before {
		if _, ok := n.known[name]; !ok {
			tell(name)
		}
	}
	return told
}

// everything has every service asked for.
func (n *names) everything() {
	select {
	case n.sweep <- struct{}{}:
	default:
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
