package consul

import (
	"context"
	"sync"
	"time"
)

// session is an overview that goes one way. What starts and ends feeds belongs
// to the overview's goroutine.
type session struct {
	*overview
	way     way
	ctx     context.Context // ends with the session
	end     context.CancelFunc
	running sync.WaitGroup

	feeds []*feed             // that last as long as the session
	sick  []*following        // on the checks that are not passing
	small bool                // there is one of these, instead of two
	nodes map[part]*following // by nodes

	names   names    // by checks, by names
	locator *locator // by checks, by names

	mu    sync.Mutex   // guards the field below
	sizes map[part]int // by nodes: how many services each has
}

// following is a feed with an end of its own.
type following struct {
	*feed
	end context.CancelFunc
}

// begin starts a session. The overview is complete once it has an answer to
// each of its queries.
func (v *overview) begin(ctx context.Context, w way) *session {
	s := &session{overview: v, way: w, nodes: make(map[part]*following), sizes: make(map[part]int)}
	s.ctx, s.end = context.WithCancel(ctx)
	switch w {
	case byNodes:
		s.followSick(false)
	case byChecks:
		s.locator = newLocator(s)
		s.start(s.newFeed("health/state/any", s.takeAllChecks()))
	case byNames:
		s.followSick(false)
		s.locator = newLocator(s)
		s.locator.startChecks()
	}
	if s.locator != nil {
		s.locator.start()
		s.names.start(s, s.locator)
	}
	return s
}

// close ends s and waits for that.
func (s *session) close() {
	s.setBegun(false)
	s.end()
	s.running.Wait()
	for _, f := range s.feeds {
		s.drop(f)
	}
	for _, f := range s.sick {
		s.drop(f.feed)
	}
	for _, f := range s.nodes {
		s.drop(f.feed)
	}
}

// start adds a feed for as long as the session lasts.
func (s *session) start(f *feed) {
	s.feeds = append(s.feeds, f)
	s.add(f, errPending)
	s.running.Go(func() { f.run(s.ctx) })
}

// startFollowing adds a feed that may end earlier. State is its first one.
func (s *session) startFollowing(f *feed, state error) *following {
	ctx, end := context.WithCancel(s.ctx)
	s.add(f, state)
	s.running.Go(func() {
		defer end()
		f.run(ctx)
	})
	return &following{f, end}
}

// follow brings s up to date with the names of all nodes and the size of the
// catalog.
func (s *session) follow(names []string) {
	if s.way == byNodes {
		s.followNodes(names)
		if small := s.overview.small(); small != s.small {
			s.followSick(small)
		}
	} else {
		s.locator.follow(names)
	}
	s.setBegun(true)
}

// part is what one query by nodes lists.
type part struct{ node, filter string }

func (s *session) followNodes(names []string) {
	state := error(nil) // the first answer is news of all that it lists
	if len(s.nodes) == 0 {
		state = errPending
	}
	filters := whole()
	if len(names) <= fewNodes {
		filters = halves("ID")
	}
	wanted := make(map[part]bool, len(names))
	for _, name := range names {
		for _, filter := range filters {
			p := part{name, filter}
			wanted[p] = true
			if s.nodes[p] == nil {
				f := s.newFeed(nodePath(name), s.takeNode(p))
				f.options.Filter = filter
				s.nodes[p] = s.startFollowing(f, state)
			}
		}
	}
	for p, f := range s.nodes {
		if !wanted[p] {
			f.end()
			s.drop(f.feed)
			delete(s.nodes, p)
			s.resizeNode(p, 0)
			s.changed(change{node: p.node})
		}
	}
}

func nodePath(name string) string { return "catalog/node-services/" + name }

// followSick watches the checks that are not passing. Where these are picked
// from a few, one query does that. Else there is one for each state: Consul has
// an index for them.
func (s *session) followSick(one bool) {
	before := s.sick
	if s.sick, s.small = nil, one; one {
		f := s.newFeed("health/state/any", s.takeSick())
		f.options.Filter = `Status != "passing"`
		s.sick = append(s.sick, s.startFollowing(f, errPending))
	} else {
		for _, state := range []string{"critical", "warning"} {
			s.sick = append(s.sick, s.startFollowing(s.newFeed("health/state/"+state, s.takeSick()), errPending))
		}
	}
	for _, f := range before {
		f.end()
		s.drop(f.feed)
	}
}

// takeNode returns what reads the services of a node.
func (s *session) takeNode(p part) func(answer) error {
	t := newTable(nodeServicesForm(p.node))
	return func(a answer) error {
		err := t.compare(a.body.Bytes(), s.changed)
		s.resizeNode(p, t.size)
		return err
	}
}

// resizeNode takes note of how many services a part of a node has.
func (s *session) resizeNode(p part, size int) {
	s.mu.Lock()
	s.sizes[p] = size
	total := 0
	for _, size := range s.sizes {
		total += size
	}
	s.mu.Unlock()
	s.resize(total)
}

// takeSick returns what reads checks that are not passing.
func (s *session) takeSick() func(answer) error {
	t := newTable(checksForm)
	return func(a answer) error {
		return t.compare(a.body.Bytes(), func(c change) {
			s.names.shows(c.modified)
			s.changed(c)
		})
	}
}

// takeAllChecks returns what reads all checks.
func (s *session) takeAllChecks() func(answer) error {
	t, noise, since := newTable(checksForm), 0, time.Now()
	return func(a answer) error {
		first, found, heard, went := t.round == 0, false, false, false
		err := t.compare(a.body.Bytes(), func(c change) {
			if !first {
				s.names.shows(c.created)
				s.names.shows(c.modified)
			}
			heard = heard || c.kind == changeNoise
			found = found || c.kind != changeNoise
			went = went || c.kind == changeWent
			s.changed(c)
		})
		if err != nil {
			return err
		}
		if went {
			s.names.shows(a.index) // what is gone has no index
		}
		s.resize(t.size)
		if heard && !found && !first {
			now := time.Now()
			noise = max(0, noise-int(now.Sub(since)/time.Second)) + 1
			if since = now; noise > noiseLimit {
				s.disturbed()
			}
		}
		return nil
	}
}
