package consul

import (
	"context"
	"sync"
)

// session is an overview that goes one way. What starts and ends feeds belongs
// to the overview's goroutine.
type session struct {
	*overview
	way     way
	ctx     context.Context // ends with the session
	end     context.CancelFunc
	running sync.WaitGroup

	feeds []*feed               // that last as long as the session
	nodes map[string]*following // by nodes
}

// following is a feed with an end of its own.
type following struct {
	*feed
	end context.CancelFunc
}

// begin starts a session. The overview is complete once it has an answer to
// each of its queries.
func (v *overview) begin(ctx context.Context, w way) *session {
	s := &session{overview: v, way: w, nodes: make(map[string]*following)}
	s.ctx, s.end = context.WithCancel(ctx)
	// What is passing is not of interest, and Consul has an index of each state.
	for _, state := range []string{"critical", "warning"} {
		s.start(s.newFeed("health/state/"+state, s.compareWith(newTable(checksForm))), (*feed).run)
	}
	if w == byNames {
		s.followNames()
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
	for _, f := range s.nodes {
		s.drop(f.feed)
	}
}

// start adds a feed that run keeps going for as long as the session lasts.
func (s *session) start(f *feed, run func(*feed, context.Context)) {
	s.feeds = append(s.feeds, f)
	s.add(f, errPending)
	s.running.Go(func() { run(f, s.ctx) })
}

// follow brings s up to date with the names of all nodes.
func (s *session) follow(names []string) {
	if s.way == byNodes {
		s.followNodes(names)
	}
	s.setBegun(true)
}

func (s *session) followNodes(names []string) {
	state := error(nil) // the first answer is news of all that it lists
	if len(s.nodes) == 0 {
		state = errPending
	}
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
		if s.nodes[name] != nil {
			continue
		}
		f := s.newFeed("catalog/node-services/"+name, s.compareWith(newTable(nodeServicesForm(name))))
		ctx, end := context.WithCancel(s.ctx)
		s.nodes[name] = &following{f, end}
		s.add(f, state)
		s.running.Go(func() {
			defer end()
			f.run(ctx)
		})
	}
	for name, f := range s.nodes {
		if !wanted[name] {
			f.end()
			s.drop(f.feed)
			delete(s.nodes, name)
			s.changed(change{node: name})
		}
	}
}

// compareWith returns what tells of whatever differs in a list.
func (s *session) compareWith(t *table) func(answer) error {
	return func(a answer) error { return t.compare(a.body.Bytes(), s.changed) }
}
