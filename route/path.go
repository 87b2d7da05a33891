package route

import (
	"errors"
	"fmt"
	"strings"
)

// maxSegmentLen is the longest decoded segment of a route's path.
const maxSegmentLen = 255

// node is one segment in the tree of a host's paths. The root is "/".
type node struct {
	parent   *node
	children map[string]*node
	route    *Route // of exactly this path, or nil
	nearest  *Route // route, or that of the nearest ancestor that has one
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

// inherit sets nearest in n and its descendants.
func (n *node) inherit(from *Route) {
	if n.nearest = n.route; n.nearest == nil {
		n.nearest = from
	}
	for _, child := range n.children {
		child.inherit(n.nearest)
	}
}

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
	seg := b.String()
	switch {
	case seg == "":
		return "", errors.New("has an empty segment")
	case seg == "." || seg == "..":
		return "", fmt.Errorf("has the segment %q", seg)
	case len(seg) > maxSegmentLen:
		return "", fmt.Errorf("has a segment of %d octets, the limit is %d", len(seg), maxSegmentLen)
	}
	return seg, nil
}

// unhex reads the two hexadecimal digits after a percent sign.
func unhex[T string | []byte](s T) (c byte, ok bool) {
	if len(s) < 2 {
		return 0, false
	}
	hi, lo := hexDigit[s[0]], hexDigit[s[1]]
	return hi<<4 | lo&0xf, hi|lo < 0x10
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
