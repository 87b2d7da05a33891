package route

import (
	"strings"
)

// radix is a node in a tree of strings by their octets: the starts of segments, for
// string prefixes and for what regular expressions begin with.
type radix struct {
	scope
	text   string   // after the parent's text; only the root has none
	firsts string   // the first octets of the children
	nodes  []*radix // the children, in the same order
}

// grow returns the node of s below r, and creates it if necessary.
func (r *radix) grow(s string) *radix {
	for s != "" {
		i := strings.IndexByte(r.firsts, s[0])
		if i < 0 {
			child := &radix{text: s}
			r.firsts, r.nodes = r.firsts+s[:1], append(r.nodes, child)
			return child
		}
		child := r.nodes[i]
		common := 0
		for common < len(s) && common < len(child.text) && s[common] == child.text[common] {
			common++
		}
		if common < len(child.text) { // split it
			upper := &radix{text: child.text[:common], firsts: child.text[common : common+1], nodes: []*radix{child}}
			child.text = child.text[common:]
			r.nodes[i], child = upper, upper
		}
		r, s = child, s[common:]
	}
	return r
}

// complete completes the scopes below r, which is the root of a node's partials.
func (r *radix) complete(parent *scope) {
	r.scope.complete(parent)
	for _, child := range r.nodes {
		child.complete(&r.scope)
	}
}

// findRadix returns the scope of the longest string in the tree that segment begins with.
func findRadix[T string | []byte](r *radix, segment T) *scope {
	for len(segment) > 0 {
		i := strings.IndexByte(r.firsts, segment[0])
		if i < 0 {
			break
		}
		child := r.nodes[i]
		if len(segment) < len(child.text) || string(segment[:len(child.text)]) != child.text {
			break
		}
		r, segment = child, segment[len(child.text):]
	}
	return &r.scope
}
