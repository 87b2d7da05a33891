package route

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
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

// literalEnds returns texts that everything begins and ends with that s matches: the
// literals after its ^ and before its $. They may be empty.
func literalEnds(s string) (prefix, suffix string) {
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return "", ""
	}
	parts := flatten(nil, re)
	last := len(parts) - 1
	if last < 0 {
		return "", ""
	}
	if parts[0].Op == syntax.OpBeginText {
		for _, part := range parts[1:] {
			if !isLiteral(part) {
				break
			}
			prefix += string(part.Rune)
		}
	}
	if parts[last].Op == syntax.OpEndText {
		for i := last - 1; i >= 0 && isLiteral(parts[i]); i-- {
			suffix = string(parts[i].Rune) + suffix
		}
	}
	// An octet that is not UTF-8 matches the replacement character.
	const replacement = string(utf8.RuneError)
	prefix, _, _ = strings.Cut(prefix, replacement)
	if i := strings.LastIndex(suffix, replacement); i >= 0 {
		suffix = suffix[i+len(replacement):]
	}
	return prefix, suffix
}

// flatten appends the parts of a concatenation, without groups.
func flatten(parts []*syntax.Regexp, re *syntax.Regexp) []*syntax.Regexp {
	switch re.Op {
	case syntax.OpConcat, syntax.OpCapture:
		for _, sub := range re.Sub {
			parts = flatten(parts, sub)
		}
		return parts
	case syntax.OpEmptyMatch:
		return parts
	}
	return append(parts, re)
}

func isLiteral(re *syntax.Regexp) bool {
	return re.Op == syntax.OpLiteral && re.Flags&syntax.FoldCase == 0
}

// splitLiteral returns the place in a tree of paths for a text that a path begins with.
func splitLiteral(text string) (segments []string, partial string) {
	if !strings.HasPrefix(text, "/") {
		return nil, ""
	}
	segments = strings.Split(text[1:], "/")
	for i, segment := range segments {
		if last := i == len(segments)-1; last || len(segment) > maxSegmentLen {
			return segments[:i], segment[:min(len(segment), maxSegmentLen)]
		}
	}
	return nil, "" // not reached: there is a last segment
}
