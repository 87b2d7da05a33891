package route

import "sync"

// matching is the search for the route of a request.
type matching struct {
	path    []byte // as sent
	request Request
	steps   *Steps // of the request; nil: there is no limit
	best    *entry
	rank    int32 // of best; noRank: none
	denied  bool  // nobody knows whether best matches: too few steps were left

	// undecided: a test has had too few steps. See program.failing.
	undecided bool

	scratch *scratch // nil: not needed yet
	host    []byte   // in lower case, without port and final dot; only if the table needs it for tests
	normal  []byte   // path in the form of appendNormal; nil: not needed yet

	// trace, if not nil, gets all scopes that fit; then no route is looked for.
	trace *[]*scope
}

// scratch has buffers for what regular expressions and conditions read.
type scratch struct{ host, path, value []byte }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (m *matching) borrow() *scratch {
	if m.scratch == nil {
		m.scratch = scratches.Get().(*scratch)
	}
	return m.scratch
}

func (m *matching) giveBack() {
	if m.scratch != nil {
		scratches.Put(m.scratch)
	}
}

func (m *matching) keepHost(name []byte) {
	s := m.borrow()
	s.host = append(s.host[:0], name...)
	m.host = s.host
}

// normalPath returns the path in the form of appendNormal.
func (m *matching) normalPath() []byte {
	if m.normal == nil {
		s := m.borrow()
		s.path = appendNormal(s.path[:0], m.path)
		m.normal = s.path
	}
	return m.normal
}

// decoded returns a part of a query decoded. It is valid until the next call.
func (m *matching) decoded(raw []byte) []byte {
	s := m.borrow()
	s.value = appendDecoded(s.value[:0], raw, ' ')
	return s.value
}

// visit looks for the first route that matches in s and its parents.
func (m *matching) visit(s *scope) {
	if m.trace != nil {
		*m.trace = append(*m.trace, s)
		return
	}
	if n := s.nearest; n != nil && n.rank < m.rank {
		m.best, m.rank, m.denied = n, n.rank, false
	}
	for ; s != nil && s.least < m.rank; s = s.parent {
		for _, e := range s.tested {
			if e.rank >= m.rank {
				break
			}
			if m.undecided = false; e.tests.failing(m) == nil {
				m.best, m.rank, m.denied = e, e.rank, m.undecided
				break
			}
		}
	}
}
