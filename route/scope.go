package route

import (
	"cmp"
	"math"
	"slices"
)

// noRank is above the rank of every route.
const noRank = math.MaxInt32

// entry is a route in a table.
type entry struct {
	route      Route // normalised
	host       hostPattern
	path       pathPattern
	hostTest   *test   // of HostRegexp; else nil
	conditions program // of the route
	tests      program // conditions, and what the trees of hosts and paths do not decide
	parts      int     // of its regular expressions
	rank       int32   // place in the order of the table; the smallest matching one wins
	root       *root
	scope      *scope
}

// scope holds the routes for the same requests as far as host and path say, and leads to
// those for more requests: a request that fits a scope fits all that parent leads to.
type scope struct {
	parent  *scope
	added   []*entry // before complete
	nearest *entry   // the first route without tests, here or in a parent
	// tested are the routes here that may win over nearest, in order.
	tested []*entry
	least  int32 // the smallest rank in tested, here and in the parents; or noRank
}

// complete completes s, after its parent.
func (s *scope) complete(parent *scope) {
	s.parent, s.least = parent, noRank
	if parent != nil {
		s.nearest, s.least = parent.nearest, parent.least
	}
	slices.SortFunc(s.added, func(a, b *entry) int { return cmp.Compare(a.rank, b.rank) })
	for _, e := range s.added {
		if s.nearest != nil && s.nearest.rank < e.rank {
			break
		}
		if len(e.tests) == 0 {
			s.nearest = e
			break
		}
		s.tested = append(s.tested, e)
	}
	for _, e := range s.added {
		e.scope = s
	}
	s.added = nil
	if len(s.tested) > 0 {
		s.least = min(s.least, s.tested[0].rank)
	}
	if s.nearest != nil && s.nearest.rank < s.least {
		s.least = noRank
	}
}
