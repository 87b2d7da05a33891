package route

import "bytes"

// A path has two forms, both made here. Match compares the normal one. The widest one is the normal
// form of what appendWidest returns: see Table.Evades.

// appendNormal appends the normal form of a request's path, which starts with a slash, and
// a final slash to dst: "/a/b/", or "/" for the root. A node finds its routes by it.
func appendNormal(dst, path []byte) []byte {
	start := len(dst)
	dst = append(dst, '/')
	segment := len(dst) // where the current one begins
	params := false     // within ";…"
	for i := 1; ; i++ {
		c, class := byte(0), byte(end)
		if i < len(path) {
			c = path[i]
			class = pathClass[c]
		}
		if class == special && c == '%' {
			if d, ok := unhex(path[i+1:]); ok {
				c = d
				i += 2
			}
		}
		if class != end && c != '/' && c != '\\' {
			params = params || c == ';'
			if !params {
				dst = append(dst, c)
			}
			continue
		}
		switch string(dst[segment:]) {
		case "":
		case ".":
			dst = dst[:segment]
		case "..":
			dst = dst[:segment]
			if segment > start+1 {
				for dst = dst[:segment-1]; dst[len(dst)-1] != '/'; {
					dst = dst[:len(dst)-1]
				}
			}
		default:
			dst = append(dst, '/')
		}
		if class == end {
			return dst
		}
		segment, params = len(dst), false
	}
}

// hasOneReading reports whether all servers read path alike: no octet is encoded, no segment has
// parameters or ends with a dot, and all octets are ASCII.
func hasOneReading(path []byte) bool {
	for i, c := range path {
		if pathClass[c] == special || c >= 0x80 || c == '.' && (i+1 == len(path) || path[i+1] == '/') {
			return false
		}
	}
	return true
}

// maxDecodings is how many times in sequence servers behind one another may decode a path.
const maxDecodings = 3

// wide is what the widest reading of a path has that Match does not resolve.
type wide struct {
	climbs bool // a segment ".."
	cut    bool // a NUL: some servers drop it, for others the path ends there
}

// appendWidest appends path, which starts with a slash, as a server reads it that does all that any
// one does: it decodes up to maxDecodings times, drops control characters, the blanks around a
// segment and the dots at its end (Windows), and takes other encodings of ASCII for ASCII.
func appendWidest(dst, path []byte) (widest []byte, w wide) {
	start := len(dst)
	dst = append(dst, path...)
	for range maxDecodings {
		before := len(dst)
		if dst = appendDecoded(dst[:start], dst[start:], '+'); len(dst) == before {
			break
		}
	}
	text := dst[start:] // the result is never ahead of it
	dst = dst[:start]
	segment, params := start, false
	for len(text) > 0 {
		c := byte(0)
		switch c, text = nextASCII(text); {
		case c == '/' || c == '\\':
			dst = append(trimSegment(dst, segment, &w), '/')
			segment, params = len(dst), false
		case c == 0:
			w.cut = true
		case c < ' ', c == 0x7f:
		case c == ';':
			params = true
		case !params:
			dst = append(dst, c)
		}
	}
	return trimSegment(dst, segment, &w), w
}

// trimSegment removes from dst what servers drop of its last segment.
func trimSegment(dst []byte, segment int, w *wide) []byte {
	name := bytes.Trim(dst[segment:], " ")
	w.climbs = w.climbs || string(name) == ".."
	if string(name) != ".." {
		name = bytes.TrimRight(name, ". ")
	}
	return append(dst[:segment], name...)
}

// nextASCII returns the first octet of text, and the rest. An ASCII character in another encoding
// is one octet: an overlong one, a fullwidth form, and the leader dot.
func nextASCII(text []byte) (c byte, rest []byte) {
	switch c = text[0]; {
	case (c == 0xc0 || c == 0xc1) && len(text) > 1 && text[1]&0xc0 == 0x80:
		return c<<6 | text[1]&0x3f, text[2:]
	case len(text) > 2 && c == 0xe0 && text[1]|1 == 0x81 && text[2]&0xc0 == 0x80:
		return text[1]<<6 | text[2]&0x3f, text[3:]
	case len(text) > 2 && c == 0xef && text[1] == 0xbc && text[2] >= 0x81 && text[2] <= 0xbf: // U+FF01 to U+FF3F
		return text[2] - 0x60, text[3:]
	case len(text) > 2 && c == 0xef && text[1] == 0xbd && text[2] >= 0x80 && text[2] <= 0x9e: // U+FF40 to U+FF5E
		return text[2] - 0x20, text[3:]
	case len(text) > 2 && c == 0xe2 && text[1] == 0x80 && text[2] == 0xa4: // U+2024
		return '.', text[3:]
	}
	return c, text[1:]
}

// climbs reports whether path has a segment "..", in any spelling that some server reads.
func climbs(path []byte) bool {
	if hasOneReading(path) {
		return false
	}
	_, w := appendWidest(make([]byte, 0, len(path)), path)
	return w.climbs
}
