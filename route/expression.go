package route

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// maxRegexp is the longest regular expression of a route.
const maxRegexp = 4096

func compileRegexp(s string, bounded bool) (*expression, error) {
	if s == "" {
		return nil, errors.New("is missing")
	}
	if len(s) > maxRegexp {
		return nil, fmt.Errorf("has %d characters, the limit is %d", len(s), maxRegexp)
	}
	re, err := CompileRegexp(s)
	if _, wrong := errors.AsType[*syntax.Error](err); wrong { // else it takes too long to match
		err = fmt.Errorf("is not a regular expression in Go's syntax (RE2): %s",
			strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	if err != nil {
		return nil, err
	}
	return newExpression(re, bounded), nil
}

// Limits on regular expressions. The time to match one is its parts times the length of the text:
// of a path of 8 KiB, one of 2,000 parts takes some tenths of a second. With groups, each part
// takes with it where they begin and end.
const (
	maxParts  = 2000
	maxGroups = 32
)

// CompileRegexp is regexp.Compile for expressions of others: each takes little memory, and a
// bounded time to match.
func CompileRegexp(s string) (*regexp.Regexp, error) {
	if n := partsOf(s); n > maxParts {
		return nil, fmt.Errorf("has %d parts, the limit is %d: each character, class and operator is one, "+
			"as often as counted repetitions, such as {1,63}, repeat it", n, maxParts)
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, err
	}
	if n := re.NumSubexp(); n > maxGroups {
		return nil, fmt.Errorf("has %d groups, the limit is %d: want (?:…) for those that nothing refers to", n, maxGroups)
	}
	return re, nil
}

// partsOf returns about how many instructions regexp compiles s to; 0: s is not an expression.
func partsOf(s string) int {
	const short = 256 // characters: the number is near enough, and parsing takes time
	if len(s) <= short && !strings.Contains(s, "{") {
		return len(s)
	}
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return 0
	}
	return parts(re)
}

// parts returns at least the number of instructions that regexp compiles re to, but for the first
// and the last one.
func parts(re *syntax.Regexp) int {
	n := 0
	for _, sub := range re.Sub {
		n += parts(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpConcat:
		return n
	case syntax.OpAlternate:
		return n + len(re.Sub) - 1
	case syntax.OpCapture, syntax.OpStar:
		return n + 2
	case syntax.OpRepeat:
		optional := re.Max - re.Min
		if re.Max < 0 {
			optional = 2 // it ends in a star
		}
		return n*max(re.Min, re.Max, 1) + optional
	}
	return n + 1
}

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
