package consul

import (
	"context"
	"slices"
	"sync"
	"time"
)

// locatorShare bounds the load of a locator: the time between two searches is at
// least so many times what a search takes.
const locatorShare = 3

// evenEnd is a regular expression for about half of all ids. Two lists, with it
// and without, cost Consul a sixth more than one.
const evenEnd = "[02468acegikmoqsuwyACEGIKMOQSUWY]$"

// halves returns filter expressions for two parts of a long list. Consul writes
// an answer on one processor, and two of them at the same time on two.
func halves(field string) []string {
	return []string{field + ` matches "` + evenEnd + `"`, field + ` not matches "` + evenEnd + `"`}
}

// whole is the filter expression for a list that has no parts.
func whole() []string { return []string{""} }

// locator finds by lists which services changed, when it is told to look.
//
// The lists are those of all checks and, where nodes are few, of all services.
// The former takes two thirds of the time, but does not show an instance that
// changed while its checks did not, or that has none. So it comes first, unless
// such a change was seen lately; the other is read if the first one does not
// explain why the names moved.
type locator struct {
	session *session
	look    chan struct{} // capacity 1

	// The locator's goroutine uses the fields below.

	checks   []*list // by names
	services []*list

	mu    sync.Mutex // guards the fields below
	open  []uint64   // indexes at which the names moved, and nothing has shown why
	nodes []string   // nil: too many
}

// list is a part of the catalog, or of its checks, that is read on demand.
type list struct {
	feed   *feed // whose queries never block
	table  *table
	loaded bool // there is something to compare with
	found  findings
}

// findings are what the latest answer to a list has shown.
type findings struct {
	at   map[uint64]bool // indexes of changes
	went int             // entries
}

func newLocator(s *session) *locator {
	return &locator{session: s, look: make(chan struct{}, 1)}
}

// startChecks has l look at checks too. The first list is one to compare with;
// without it the overview is not complete.
func (l *locator) startChecks() {
	filters := whole()
	if !l.session.overview.small() {
		filters = halves("ServiceID")
	}
	for _, filter := range filters {
		c := l.newList("health/state/any", filter, checksForm)
		l.session.feeds = append(l.session.feeds, c.feed)
		l.session.add(c.feed, errPending)
		l.checks = append(l.checks, c)
	}
	l.request(0)
}

// start runs l until the session ends.
func (l *locator) start() { l.session.running.Go(l.run) }

// follow takes note of the names of all nodes.
func (l *locator) follow(nodes []string) {
	if len(nodes) > fewNodes {
		nodes = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes = nodes
}

func (l *locator) newList(path, filter string, f form) *list {
	c := &list{table: newTable(f)}
	c.feed = l.session.newFeed(path, func(a answer) error { return l.take(c, a) })
	c.feed.options.Filter = filter
	return c
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

func (l *locator) run() {
	ctx := l.session.ctx
	for {
		select {
		case <-l.look:
		case <-ctx.Done():
			return
		}
		begin := time.Now()
		delay := l.search(ctx)
		if sleep(ctx, max(delay, locatorShare*time.Since(begin))) != nil {
			return
		}
	}
}

// search reads lists until they explain why the names moved. If they do not,
// all services are asked for. It returns how long to wait after an error.
func (l *locator) search(ctx context.Context) time.Duration {
	l.mu.Lock()
	open := slices.Clone(l.open)
	l.mu.Unlock()
	l.listServices()
	left := open
	checksLater := len(open) > 0 && len(l.services) > 0 && l.session.isBare(time.Now())
	if len(l.checks) > 0 && !checksLater {
		delay, failed := l.readAll(ctx, l.checks)
		if failed {
			l.request(0)
			return delay
		}
		l.measure()
		left = unexplained(open, l.checks)
	}
	if len(left) > 0 && len(l.services) > 0 {
		if _, failed := l.readAll(ctx, l.services); !failed {
			before := len(left)
			if left = unexplained(left, l.services); len(left) < before && !checksLater {
				l.session.sawBare()
			}
		}
	}
	if ctx.Err() != nil {
		return 0
	}
	l.mu.Lock()
	l.open = l.open[len(open):]
	l.mu.Unlock()
	if len(left) > 0 {
		l.session.names.everything()
	}
	return 0
}

// measure takes note of how many checks there are.
func (l *locator) measure() {
	size := 0
	for _, c := range l.checks {
		size += c.table.size
	}
	l.session.resize(size)
}

// listServices makes the lists of services that are missing.
func (l *locator) listServices() {
	l.mu.Lock()
	nodes := l.nodes
	l.mu.Unlock()
	paths := make(map[string]bool)
	for _, name := range nodes {
		paths[nodePath(name)] = true
	}
	l.services = slices.DeleteFunc(l.services, func(c *list) bool { return !paths[c.feed.path] })
	for _, c := range l.services {
		delete(paths, c.feed.path)
	}
	for _, name := range nodes {
		if !paths[nodePath(name)] {
			continue
		}
		for _, filter := range halves("ID") {
			c := l.newList(nodePath(name), filter, nodeServicesForm(name))
			l.services = append(l.services, c)
		}
	}
}

// readAll reads lists, all at once. It returns how long to wait after an error.
func (l *locator) readAll(ctx context.Context, lists []*list) (delay time.Duration, failed bool) {
	var reading sync.WaitGroup
	errs := make([]error, len(lists))
	for n, c := range lists {
		c.feed.index = 0
		reading.Go(func() { errs[n] = c.feed.poll(ctx) })
	}
	reading.Wait()
	if ctx.Err() != nil {
		return 0, true
	}
	for n, c := range lists {
		delay = max(delay, c.feed.next(ctx, errs[n]))
		failed = failed || errs[n] != nil
	}
	return delay, failed
}

// take reads a list.
func (l *locator) take(c *list, a answer) error {
	l.mu.Lock()
	open := slices.Clone(l.open)
	l.mu.Unlock()
	ofChecks := slices.Contains(l.checks, c)
	found := findings{at: make(map[uint64]bool)}
	err := c.table.compare(a.body.Bytes(), func(change change) {
		found.at[change.created], found.at[change.modified] = true, true
		if change.kind == changeWent {
			found.went++
		}
		switch with := slices.Contains(open, change.modified); {
		case !ofChecks && !c.loaded:
			// All is new here, but only what changed since the names moved matters.
			if len(open) == 0 || change.modified < slices.Min(open) {
				return
			}
		case ofChecks && change.kind == changeNoise && !with:
			// The output of checks is of no interest, unless it came with a change of
			// the instance.
			return
		}
		l.session.changed(change)
	})
	c.found, c.loaded = found, c.loaded || err == nil
	return err
}

// unexplained returns those of the indexes at which lists have not shown a
// change. What is gone leaves no index behind, and counts for any.
func unexplained(open []uint64, lists []*list) []uint64 {
	went := 0
	for _, c := range lists {
		went += c.found.went
	}
	left := slices.DeleteFunc(slices.Clone(open), func(index uint64) bool {
		return slices.ContainsFunc(lists, func(c *list) bool { return c.found.at[index] })
	})
	if len(left) <= went {
		return nil
	}
	return left
}
