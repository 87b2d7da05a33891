package consul

import (
	"slices"
	"sync"
	"time"
)

// locatorShare bounds the load of a locator: the time between two lists is at
// least so many times what a list takes.
const locatorShare = 3

// locator finds by a list of all checks which services changed, when it is told
// to look.
type locator struct {
	session *session
	feed    *feed // whose queries never block
	table   *table
	look    chan struct{} // capacity 1

	mu   sync.Mutex // guards the field below
	open []uint64   // indexes at which the names moved, and nothing has shown why
}

func newLocator(s *session) *locator {
	l := &locator{session: s, table: newTable(), look: make(chan struct{}, 1)}
	l.feed = s.newFeed("health/state/any", l.take)
	return l
}

// start runs l until the session ends. The first list is one to compare with.
func (l *locator) start() {
	s := l.session
	s.feeds = append(s.feeds, l.feed)
	s.add(l.feed, errPending)
	l.request(0)
	s.running.Go(l.run)
}

// request asks for a look, and for the reason why the names moved at an index
// other than 0.
func (l *locator) request(index uint64) {
	if index > 0 {
		l.mu.Lock()
		l.open = append(l.open, index)
		l.mu.Unlock()
	}
	select {
	case l.look <- struct{}{}:
	default:
	}
}

// take reads a list. If it does not show why the names moved, all services are
// asked for: an instance changed, and its checks did not. An instance that went
// leaves no index behind; it counts for any.
func (l *locator) take(a answer) error {
	l.mu.Lock()
	open := slices.Clone(l.open)
	l.mu.Unlock()
	first, closed, went := l.table.round == 0, make(map[uint64]bool), 0
	err := l.table.compare(func(each func(fact)) error { return readChecks(a.body, each) }, func(c change) {
		with := slices.Contains(open, c.modified)
		closed[c.created], closed[c.modified] = true, true
		if c.kind == changeWent {
			went++
		}
		// The output of checks is of no interest, unless it came with a change of
		// the instance.
		if c.kind != changeNoise || with {
			l.session.changed(c)
		}
	})
	if err != nil {
		return err
	}
	l.session.resize(l.table.size)
	l.mu.Lock()
	l.open = l.open[len(open):]
	l.mu.Unlock()
	unexplained := 0
	for _, index := range open {
		if !closed[index] {
			unexplained++
		}
	}
	if unexplained > went && !first {
		l.session.names.everything()
	}
	return nil
}

func (l *locator) run() {
	ctx := l.session.ctx
	for {
		select {
		case <-l.look:
		case <-ctx.Done():
			return
		}
		begin := time.Now()
		l.feed.index = 0
		err := l.feed.poll(ctx)
		if ctx.Err() != nil {
			return
		}
		pause := max(l.feed.next(ctx, err), locatorShare*time.Since(begin))
		if err != nil {
			l.request(0)
		}
		if sleep(ctx, pause) != nil {
			return
		}
	}
}
