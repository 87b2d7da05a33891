package route

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
)

// Table is an immutable set of routes. It is safe for concurrent use.
type Table struct {
	// ErrorPages are for answers of sluice's own whose route has no page, or that have no route.
	// They do not change after the table is in use.
	ErrorPages ErrorPages

	anyHost   *root            // routes without a host, nil if there are none
	exact     map[string]*root // by host in lower case, nil if there are none
	wildcards map[string]*root // by suffix with its leading dot: ".example.com"
	// patterns has regular expressions by what the host ends with, from a dot on; ""
	// for routes without such a text.
	patterns map[string]*root
	// testsHost: there are tests that read the host.
	testsHost  bool
	restricted restrictions
	entries    []*entry // in order of precedence
}

// root is the tree of the paths of a host.
type root struct {
	node
	best int32 // the smallest rank in the tree
	// rest is the smallest rank in the trees that Match visits after this one.
	rest int32
}

// NewTable builds a table. Its error joins one *Error for each invalid field, in the
// order of the routes.
func NewTable(routes []Route) (*Table, error) {
	t := &Table{}
	var errs []error
	first := make(map[string]int, len(routes)) // index of a key's route
	unindexed := make(map[string]int)
	for i, r := range routes {
		e, key, wrong := entryOf(r)
		if r.Service == nil && r.Weighted == nil && (r.Actions == nil || r.Actions.Redirect == nil && r.Actions.DirectResponse == nil && r.Actions.Handler == nil) {
			wrong = append(wrong, &Error{Field: "service", Reason: "is missing"})
		}
		for _, err := range wrong {
			errs = append(errs, err.at(i))
		}
		if len(wrong) > 0 {
			continue
		}
		if other, taken := first[key]; taken {
			errs = append(errs, duplicateError(other, &r).at(i))
			continue
		}
		first[key] = i
		e.route.number, e.route.turn = maphash.String(endpointSeed, key), new(Turn)
		if host := e.unindexed(); host != "" {
			if unindexed[host]++; unindexed[host] == MaxUnindexed+1 {
				errs = append(errs, unindexedError(e).at(i))
			}
		}
		t.entries = append(t.entries, e)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	rank(t.entries)
	for _, e := range t.entries {
		t.add(e)
	}
	t.complete()
	return t, nil
}

func unindexedError(e *entry) Error {
	err := Error{Field: "path", Value: e.path.text}
	if e.path.match != PathRegexp {
		err = Error{Field: "host_regexp", Value: e.host.name}
	}
	err.Reason = fmt.Sprintf("the limit is %d regular expressions without a text that every match begins with (^/text), or for hosts ends with (\\.text$)", MaxUnindexed)
	return err
}

// add puts e, which has its rank, into the trees.
func (t *Table) add(e *entry) {
	if e.hostTest != nil {
		e.tests = append(e.tests, *e.hostTest)
	}
	e.tests = append(e.conditions[:len(e.conditions):len(e.conditions)], e.tests...)
	if e.path.match == PathRegexp {
		e.tests = append(e.tests, test{kind: testPath, paths: []pathPattern{e.path}})
	}
	t.testsHost = t.testsHost || e.tests.readsHost()
	if e.route.restricts() {
		t.restricted.add(e)
	}
	e.root = t.root(e.host)
	e.root.best = min(e.root.best, e.rank)
	scope := e.root.scopeOf(&e.path)
	scope.added = append(scope.added, e)
}

// readsHost reports whether a test reads the host.
func (p program) readsHost() bool {
	return slices.ContainsFunc(p, func(t test) bool { return t.kind == testHost || slices.ContainsFunc(t.any, program.readsHost) })
}

// root returns the tree of a host, and creates it if necessary.
func (t *Table) root(h hostPattern) *root {
	m, key := &t.exact, h.name
	switch h.kind {
	case hostAny:
		if t.anyHost == nil {
			t.anyHost = &root{best: noRank}
		}
		return t.anyHost
	case hostWildcard:
		m = &t.wildcards
	case hostRegexp:
		m, key = &t.patterns, h.suffix
	}
	if *m == nil {
		*m = make(map[string]*root)
	}
	n := (*m)[key]
	if n == nil {
		n = &root{best: noRank}
		(*m)[key] = n
	}
	return n
}

// complete completes the trees.
func (t *Table) complete() {
	last := int32(noRank) // of the trees after all wildcards
	if t.anyHost != nil {
		t.anyHost.complete(nil)
		t.anyHost.rest = noRank
		last = t.anyHost.best
	}
	for _, r := range t.patterns {
		r.complete(nil)
		last = min(last, r.best)
	}
	for _, r := range t.patterns {
		r.rest = last // possibly of this one, which costs only time
	}
	for suffix, r := range t.wildcards {
		r.complete(nil)
		r.rest = min(last, t.bestWildcard(suffix[1:]))
	}
	for host, r := range t.exact {
		r.complete(nil)
		r.rest = min(last, t.bestWildcard(host))
	}
}

// bestWildcard returns the smallest rank of the wildcards that match a host.
func (t *Table) bestWildcard(host string) int32 {
	best := int32(noRank)
	for i := 1; i < len(host) && host[0] != '['; i++ {
		if host[i] == '.' {
			if r := t.wildcards[host[i:]]; r != nil {
				best = min(best, r.best)
			}
		}
	}
	return best
}

// Routes returns the routes with hosts and paths normalised, in order of precedence. The
// caller must not change what they refer to.
func (t *Table) Routes() []Route {
	routes := make([]Route, len(t.entries))
	for i, e := range t.entries {
		routes[i] = e.route
	}
	return routes
}

// Match returns the first route, in the order of Routes, that matches a request, or nil;
// see the package's comment.
//
// host is the value of Host or the authority of the target: its port, a final dot and
// case do not matter. path is the path of the target as sent; a query after it is
// ignored. An empty path and "*" count as "/"; any other without a leading slash
// matches nothing. r is for conditions and listeners; if it is nil, none that reads it
// holds.
//
// If r.Steps are Exceeded then, nobody knows whether the Route matches: it must deny the request.
// A more specific route may have been tried before it, never a less specific one.
//
// Match does not retain its arguments. The caller must not change the Route.
func (t *Table) Match(host, path []byte, r Request) *Route {
	if path = targetPath(path); path == nil {
		return nil
	}
	m := matching{path: path, request: r, rank: noRank}
	if r != nil {
		m.steps = r.Steps()
	}
	return t.best(&m, host)
}

// MatchName is Match for a connection of which only a server name is known.
func (t *Table) MatchName(name []byte, steps *Steps) *Route {
	return t.best(&matching{path: rootPath, steps: steps, rank: noRank}, name)
}

func (t *Table) best(m *matching, host []byte) *Route {
	t.match(m, host)
	m.giveBack()
	if m.best == nil {
		return nil
	}
	if m.denied {
		m.steps.exceeded = true
	}
	return &m.best.route
}

var rootPath = []byte{'/'}

// targetPath returns the path to compare of a target, or nil if no route can match it.
func targetPath(path []byte) []byte {
	switch {
	case len(path) == 0 || len(path) == 1 && path[0] == '*':
		return rootPath
	case path[0] != '/':
		return nil
	}
	return path
}

// match visits the trees that fit a host.
func (t *Table) match(m *matching, host []byte) {
	if t.exact != nil || t.wildcards != nil || t.testsHost {
		var buf [maxHostLen]byte
		if name := foldHost(buf[:0], host); len(name) > 0 && t.matchHost(m, name) {
			return
		}
	}
	if r := t.anyHost; r != nil && r.best < m.rank {
		m.visit(r.find(m))
	}
}

// matchHost visits the trees with a host, and reports whether no further one can have a
// better route. name is in lower case.
func (t *Table) matchHost(m *matching, name []byte) bool {
	if t.testsHost {
		m.keepHost(name)
	}
	if r := t.exact[string(name)]; r != nil {
		if m.visit(r.find(m)); m.rank < r.rest {
			return true
		}
	}
	if t.wildcards != nil && name[0] != '[' {
		for i := 1; i < len(name); i++ { // from 1: the star is not empty
			if name[i] != '.' {
				continue
			}
			if r := t.wildcards[string(name[i:])]; r != nil && r.best < m.rank {
				if m.visit(r.find(m)); m.rank < r.rest {
					return true
				}
			}
		}
	}
	if t.patterns != nil {
		for i, c := range name {
			if c == '.' {
				t.matchPattern(m, name[i:])
			}
		}
		t.matchPattern(m, nil)
	}
	return false
}

func (t *Table) matchPattern(m *matching, suffix []byte) {
	if r := t.patterns[string(suffix)]; r != nil && r.best < m.rank {
		m.visit(r.find(m))
	}
}
