package route

import "bytes"

// Classes of the octets of a path.
const (
	plain   = iota
	slash   // ends a segment
	end     // ends the path
	special // the path must be normalised
)

var pathClass = func() (t [256]byte) {
	t['/'] = slash
	t['?'], t['#'] = end, end
	t['%'], t['\\'], t[';'] = special, special, special
	return t
}()

// find returns the scope of the path of m below the root n.
func (n *node) find(m *matching) *scope {
	if n.children == nil && n.partials == nil && n.exact == nil {
		return &n.scope
	}
	w, path := walk{at: n}, m.path
	for i, start := 1, 1; ; i++ {
		class := byte(end)
		if i < len(path) {
			class = pathClass[path[i]]
		}
		switch class {
		case plain:
			continue
		case special:
			return n.findNormal(m.normalPath())
		}
		if w.segment(path[start:i]); class == end {
			return w.scope()
		}
		start = i + 1
	}
}

// findNormal is find for a path in the form of appendNormal.
func (n *node) findNormal(path []byte) *scope {
	w := walk{at: n}
	for path = path[1:]; len(path) > 0; {
		slash := bytes.IndexByte(path, '/')
		w.segment(path[:slash])
		path = path[slash+1:]
	}
	return w.scope()
}

// walk is a position in a tree of paths.
type walk struct {
	at      *node
	past    int    // further segments that are not in the tree
	partial *scope // of the first of them in at.partials; nil: at has none
}

// scope returns the scope of the position.
func (w *walk) scope() *scope {
	switch {
	case w.past > 0 && w.partial != nil:
		return w.partial
	case w.past == 0 && w.at.exact != nil:
		return w.at.exact
	}
	return &w.at.scope
}

// segment moves w by one decoded segment without parameters. Dot segments are resolved
// as in RFC 3986, section 5.2.4.
func (w *walk) segment(s []byte) {
	if len(s) <= 2 {
		switch string(s) {
		case "", ".":
			return
		case "..":
			if w.past > 0 {
				w.past--
			} else if w.at.parent != nil {
				w.at = w.at.parent
			}
			return
		}
	}
	if w.past == 0 {
		if child := w.at.children[string(s)]; child != nil {
			w.at = child
			return
		}
		if w.partial = nil; w.at.partials != nil {
			w.partial = findRadix(w.at.partials, s)
		}
	}
	w.past++
}
