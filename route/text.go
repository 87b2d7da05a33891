package route

// appendNormal appends the normal form of a request's path, which starts with a slash, and
// a final slash to dst: "/a/b/", or "/" for the root. It reads the path as walk does.
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
