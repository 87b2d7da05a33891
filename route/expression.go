package route

import "regexp"

// maxSteps limits what the bounded expressions may cost one request, or one health check: some
// milliseconds.
// An expression of 50 parts may read 20 KiB for it.
const maxSteps = 1 << 20

// Steps count what the bounded expressions of a table have cost one request. The zero value
// is for a new request.
type Steps struct {
	taken    int
	exceeded bool
}

// Exceeded reports whether the request must be denied: the routes, the branch or the edits
// that it gets depend on an expression for which too few steps are left.
func (s *Steps) Exceeded() bool { return s.exceeded }

// take takes n steps, or none if too few are left. A nil s has no limit.
func (s *Steps) take(n int) bool {
	if s == nil {
		return true
	}
	if n > maxSteps-s.taken {
		return false
	}
	s.taken += n
	return true
}

// An expression is a regular expression. If others than the configuration file have written
// it, it is bounded: each match takes Steps of its request, its parts for each octet.
type expression struct {
	*regexp.Regexp
	weight int // steps for each octet; 0: it is not bounded
}

// newExpression returns re, which is not nil.
func newExpression(re *regexp.Regexp, bounded bool) *expression {
	e := &expression{Regexp: re}
	if bounded {
		e.weight = partsOf(re.String()) + 2 // those that parts leaves out
	}
	return e
}

// matches reports whether e is found in text. If too few steps are left it reports nothing:
// m is undecided then.
func (e *expression) matches(m *matching, text []byte) bool {
	if !m.steps.take(e.weight * (len(text) + 1)) {
		m.undecided = true
		return false
	}
	return e.Match(text)
}

// MaxOctets returns how many octets re may read for one request, or one health check, if others
// than the configuration file have written it.
func MaxOctets(re *regexp.Regexp) int { return maxSteps / newExpression(re, true).weight }

// find is FindSubmatchIndex, and finds nothing if too few steps are left.
func (e *expression) find(text []byte, s *Steps) []int {
	if !s.take(e.weight * (len(text) + 1)) {
		s.exceeded = true
		return nil
	}
	return e.FindSubmatchIndex(text)
}
