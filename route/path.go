package route

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// maxSegmentLen is the longest decoded segment of a route's path.
const maxSegmentLen = 255

// node is one segment in the tree of a host's paths. The root is "/".
type node struct {
	scope    // of the routes for this path and all below it
	parent   *node
	children map[string]*node
	exact    *scope // of routes for exactly this path; nil: there are none
	partials *radix // of routes for the starts of a segment below; nil: there are none
}

// grow returns the node at path below n, and creates it if necessary.
func (n *node) grow(path []string) *node {
	for _, seg := range path {
		child := n.children[seg]
		if child == nil {
			if n.children == nil {
				n.children = make(map[string]*node)
			}
			child = &node{parent: n}
			n.children[seg] = child
		}
		n = child
	}
	return n
}

// scopeOf returns the scope of a path below the root n, and creates it if necessary.
func (n *node) scopeOf(p *pathPattern) *scope {
	n = n.grow(p.segments)
	switch {
	case p.match == PathExact:
		if n.exact == nil {
			n.exact = new(scope)
		}
		return n.exact
	case p.partial == "":
		return &n.scope
	}
	if n.partials == nil {
		n.partials = new(radix)
	}
	return &n.partials.grow(p.partial).scope
}

// complete completes the scopes of n and its descendants.
func (n *node) complete(parent *scope) {
	n.scope.complete(parent)
	if n.exact != nil {
		n.exact.complete(&n.scope)
	}
	below := &n.scope
	if n.partials != nil {
		n.partials.complete(&n.scope)
	}
	for seg, child := range n.children {
		if n.partials != nil {
			below = findRadix(n.partials, seg)
		}
		child.complete(below)
	}
}

// pathPattern is the parsed path of a route.
type pathPattern struct {
	match PathMatch
	text  string // normalised
	// segments and partial are where the routes' tree has it: a path that matches
	// begins with these segments, and with the start of a further one.
	segments []string
	partial  string
	regexp   *expression // of PathRegexp
	// ignoreCase: of ASCII letters. The tree of paths does not know it: only a Branch has it.
	ignoreCase bool
}

func parsePattern(match PathMatch, s string, bounded bool) (p pathPattern, err error) {
	p.match = match
	switch match {
	case "", PathPrefix, PathExact:
		p.match = cmp.Or(match, PathPrefix)
		p.segments, err = parsePath(s)
	case PathStringPrefix:
		if s == "" || strings.HasSuffix(s, "/") {
			return parsePattern(PathPrefix, s, bounded)
		}
		cut := strings.LastIndexByte(s, '/') + 1
		if p.segments, err = parsePath(s[:cut]); err != nil {
			return p, err
		}
		p.partial, err = decodeOctets(s[cut:])
	case PathRegexp:
		if p.regexp, err = compileRegexp(s, bounded); err == nil {
			literal, _ := literalEnds(s)
			p.segments, p.partial = splitLiteral(literal)
			p.text = s
		}
		return p, err
	default:
		return p, fmt.Errorf("want %s, %s, %s or %s", PathPrefix, PathExact, PathStringPrefix, PathRegexp)
	}
	p.text = "/" + strings.Join(p.segments, "/")
	if p.partial != "" {
		p.text = strings.TrimSuffix(p.text, "/") + "/" + p.partial
	}
	return p, err
}

// matches reports whether p matches a path, which is in the form of appendNormal.
func (p *pathPattern) matches(m *matching, path []byte) bool {
	whole := path
	if len(path) > 1 {
		path = path[:len(path)-1]
	}
	switch p.match {
	case PathExact:
		return equalText(path, p.text, p.ignoreCase)
	case PathStringPrefix:
		return len(path) >= len(p.text) && equalText(path[:len(p.text)], p.text, p.ignoreCase)
	case PathRegexp:
		return p.regexp.matches(m, path) || p.regexp.matches(m, whole)
	}
	return p.text == "/" || len(whole) > len(p.text) && whole[len(p.text)] == '/' && equalText(whole[:len(p.text)], p.text, p.ignoreCase)
}

// matchesAll reports whether p matches every path.
func (p *pathPattern) matchesAll() bool { return p.match == PathPrefix && p.text == "/" }

// parsePath splits a route's path into decoded segments. It rejects paths that Match
// would read differently.
func parsePath(s string) ([]string, error) {
	switch {
	case s == "":
		return nil, errors.New(`is missing; "/" matches every path`)
	case s[0] != '/':
		return nil, errors.New("must start with a slash")
	case s == "/":
		return nil, nil
	}
	path := strings.Split(strings.TrimSuffix(s[1:], "/"), "/")
	for i, raw := range path {
		seg, err := decodeSegment(raw)
		if err != nil {
			return nil, err
		}
		path[i] = seg
	}
	return path, nil
}

func decodeSegment(raw string) (string, error) {
	seg, err := decodeOctets(raw)
	switch {
	case err != nil:
	case seg == "":
		err = errors.New("has an empty segment")
	case seg == "." || seg == "..":
		err = fmt.Errorf("has the segment %q", seg)
	}
	return seg, err
}

// decodeOctets decodes a segment, or the start of one.
func decodeOctets(raw string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			d, ok := unhex(raw[i+1:])
			if !ok {
				return "", fmt.Errorf("%q is not a percent-encoded octet", raw[i:min(i+3, len(raw))])
			}
			c = d
			i += 2
		} else if c <= ' ' || c == 0x7f || c == '?' || c == '#' {
			return "", fmt.Errorf("contains %q", c)
		}
		if c == '/' || c == '\\' || c == ';' {
			return "", fmt.Errorf("has %q in a segment", c)
		}
		b.WriteByte(c)
	}
	if b.Len() > maxSegmentLen {
		return "", fmt.Errorf("has a segment of %d octets, the limit is %d", b.Len(), maxSegmentLen)
	}
	return b.String(), nil
}

// unhex reads the two hexadecimal digits after a percent sign.
func unhex[T string | []byte](s T) (c byte, ok bool) {
	if len(s) < 2 {
		return 0, false
	}
	hi, lo := hexDigit[s[0]], hexDigit[s[1]]
	return hi<<4 | lo&0xf, hi|lo < 0x10
}

// appendDecoded appends raw with its percent-encoded octets decoded to dst. What plus signs stand
// for is up to the caller.
func appendDecoded(dst, raw []byte, plus byte) []byte {
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch c {
		case '+':
			c = plus
		case '%':
			if d, ok := unhex(raw[i+1:]); ok {
				c = d
				i += 2
			}
		}
		dst = append(dst, c)
	}
	return dst
}

// hexDigit maps hexadecimal digits to values, all else to 0xff.
var hexDigit = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range "0123456789" {
		t[c] = byte(i)
	}
	for i := range 6 {
		t['a'+i], t['A'+i] = byte(10+i), byte(10+i)
	}
	return t
}()
