package route

import "errors"

// Router divides the requests of a route whose service has a discovery chain. It does not change
// after it is in a [Table], and is safe for concurrent use.
type Router struct {
	Chain *Chain
	// Ways has where each branch of Chain leads: Service, Weighted, Split, Mirror and Actions
	// count, and none has a Router. The Actions include the ones of the route, but for the path,
	// which Branch.Rewrite edits once more.
	Ways []Route
}

// Chain has the conditions of the branches of a service's discovery chain. It does not change, and
// may belong to many Routers.
type Chain struct {
	branches []Branch
	usual    int // the first branch that all requests fulfil; len(branches): there is none
}

// Branch is a part of a Chain: the requests of which it is the first whose conditions hold take it.
type Branch struct {
	// Route has the conditions: Path, PathMatch and Conditions, which may not name hosts. Origin
	// says where they come from.
	Route Route
	// IgnoreCase: ASCII letters of the path may be in the other case. Not with PathRegexp.
	IgnoreCase bool
	// Rewrite edits the path that peers get.
	Rewrite PathEdits

	path  pathPattern
	tests program
}

// NewChain checks and compiles branches. Its error joins one *Error for each invalid field.
func NewChain(branches []Branch) (*Chain, error) {
	c := &Chain{usual: len(branches)}
	var errs []error
	for i, b := range branches {
		e, wrong := compile(Route{Path: b.Route.Path, PathMatch: b.Route.PathMatch, Conditions: b.Route.Conditions, Bounded: true})
		for _, err := range wrong {
			errs = append(errs, err.at(i))
		}
		if len(wrong) > 0 {
			continue
		}
		b.Route.Path, b.Route.PathMatch = e.path.text, e.path.match
		b.path, b.tests = e.path, e.conditions
		if b.path.ignoreCase = b.IgnoreCase; b.path.matchesAll() && len(b.tests) == 0 {
			c.usual = min(c.usual, i)
		}
		c.branches = append(c.branches, b)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// Branches returns the branches with normalised paths. The caller must not change them.
func (c *Chain) Branches() []Branch { return c.branches }

// Choose returns the index of the branch that a request takes; -1: none, so that the request stays
// with its route. path is the one that the route's own edits leave, and request has the fields that
// they leave. Like Match, it allocates nothing and retains nothing. If request.Steps are Exceeded
// then, the request must be denied.
func (r *Router) Choose(path []byte, request Request) int {
	m := matching{path: targetPath(path), request: request, steps: request.Steps()}
	for i := range r.Chain.branches {
		b := &r.Chain.branches[i]
		m.undecided = false
		fits := b.path.matchesAll() || m.path != nil && (b.path.matches(&m, m.normalPath()) || m.undecided)
		if fits && b.tests.failing(&m) == nil {
			if m.undecided {
				m.steps.exceeded = true
			}
			m.giveBack()
			return i
		}
	}
	m.giveBack()
	return -1
}

// usablePeers returns the number of peers that may get requests of r, and how many of them their
// registry has lost: with a Router, the usual ones.
func (r *Route) usablePeers() (n, lost int) {
	if c := r.Router; c != nil && c.Chain.usual < len(c.Ways) {
		return c.Ways[c.Chain.usual].usablePeers()
	}
	switch s := r.Split; {
	case r.Weighted != nil:
		for i := range r.Weighted.Targets {
			if t := &r.Weighted.Targets[i]; t.Share > 0 || r.Weighted.ByPeers {
				more, moreLost := t.Route.usablePeers()
				n, lost = n+more, lost+moreLost
			}
		}
		return n, lost
	case s != nil && len(s.Shares) == 0:
		return r.Service.Pool.Snapshot().Usable(s.Rest.ID())
	}
	return r.Service.Pool.Snapshot().Usable(0)
}

// Requirements describes the conditions for people, without the path, as of a [Route].
func (b *Branch) Requirements() []string { return texts(b.tests) }
