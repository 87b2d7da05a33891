package consul

import "time"

// locatorShare bounds the load of a locator: the time between two lists is at
// least so many times what a list takes.
const locatorShare = 3

// locator finds by a list of all checks which services changed, when it is told
// to look.
type locator struct {
	session *session
	feed    *feed // whose queries never block
	table   *table
	found   int       // changes in the last list
	look    chan bool // capacity 1; true: nothing else has shown what changed
}

func newLocator(s *session) *locator {
	l := &locator{session: s, table: newTable(), look: make(chan bool, 1)}
	l.feed = s.newFeed("health/state/any", l.take)
	return l
}

// start runs l until the session ends. The first list is one to compare with.
func (l *locator) start() {
	s := l.session
	s.feeds = append(s.feeds, l.feed)
	s.add(l.feed, errPending)
	l.request(false)
	s.running.Go(l.run)
}

// request asks for a look. Of two that wait, the urgent one counts.
func (l *locator) request(urgent bool) {
	for {
		select {
		case l.look <- urgent:
			return
		default:
		}
		select {
		case waiting := <-l.look:
			urgent = urgent || waiting
		default:
		}
	}
}

func (l *locator) take(a answer) error {
	l.found = 0
	err := l.table.compare(func(each func(fact)) error { return readChecks(a.body, each) }, func(c change) {
		// The output of checks is of no interest, unless it came with a change of
		// the instance.
		if !c.noise || c.modified == l.session.names.index.Load() {
			l.found++
			l.session.changed(c)
		}
	})
	l.session.resize(l.table.size)
	return err
}

func (l *locator) run() {
	ctx := l.session.ctx
	for {
		var urgent bool
		select {
		case urgent = <-l.look:
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
		switch {
		case err != nil:
			l.request(urgent)
		case urgent && l.found == 0:
			l.session.names.everything()
		}
		if sleep(ctx, pause) != nil {
			return
		}
	}
}
