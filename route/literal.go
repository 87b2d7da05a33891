package route

import (
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

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
