package route

// Classes of the octets of a path.
const (
	plain   = iota
	slash   // ends a segment
	end     // ends the path
	special // the segment must be decoded
)

var pathClass = func() (t [256]byte) {
	t['/'] = slash
	t['?'], t['#'] = end, end
	t['%'], t['\\'], t[';'] = special, special, special
	return t
}()

// find returns the scope of path, which starts with a slash, below the root n.
func (n *node) find(path []byte) *scope {
	if n.children == nil && n.partials == nil && n.exact == nil {
		return &n.scope
	}
	w := walk{at: n}
	i := 1
	for start := i; ; i++ {
		class := byte(end)
		if i < len(path) {
			class = pathClass[path[i]]
		}
		switch class {
		case plain:
			continue
		case special:
			i = w.decoded(path, start)
		default:
			w.segment(path[start:i])
		}
		if i >= len(path) || pathClass[path[i]] == end {
			return w.scope()
		}
		start = i + 1
	}
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

// decoded moves w by the encoded segment that begins at start, which may decode to
// several. It returns the index of its end: a slash or the end of the path.
func (w *walk) decoded(path []byte, start int) int {
	var buf [maxSegmentLen + 1]byte // longer than any segment in the tree
	seg := buf[:0]
	params := false // within ";…"
	for i := start; ; i++ {
		c, class := byte(0), byte(end)
		if i < len(path) {
			c = path[i]
			class = pathClass[c]
		}
		if class == slash || class == end {
			w.segment(seg)
			return i
		}
		if c == '%' {
			if d, ok := unhex(path[i+1:]); ok {
				c = d
				i += 2
			}
		}
		switch {
		case c == '/' || c == '\\':
			w.segment(seg)
			seg, params = buf[:0], false
		case c == ';':
			params = true
		case !params && len(seg) < len(buf):
			seg = append(seg, c)
		}
	}
}
