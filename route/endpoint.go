package route

import (
	"bytes"
	"hash/maphash"
)

// Of a path, this much distinguishes endpoints.
const (
	endpointSegments = 6
	endpointBytes    = 128
)

// endpointSeed is of this process: nobody can make up a path with the number of another one.
var endpointSeed = maphash.MakeSeed()

// Endpoint returns a number, not 0, for the requests of the route with this method and the same
// first segments of the path, as sent and without a query. Segments with digits count as one:
// most are ids. A path of gRPC counts as a whole, as it is the name of a method.
func (r *Route) Endpoint(method uint8, path []byte, gRPC bool) uint32 {
	if path = path[:min(len(path), endpointBytes)]; !gRPC {
		path = bytes.TrimPrefix(path, []byte("/"))
		if isKind(path) {
			path = bytes.TrimSuffix(path, []byte("/"))
		} else {
			var memory [endpointBytes]byte
			path = kind(memory[:0], path)
		}
	}
	h := maphash.Bytes(endpointSeed, path) ^ r.number ^ uint64(method)
	return max(uint32(h*0x9e3779b97f4a7c15>>32), 1) // the golden ratio: methods differ in all bits
}

// isKind reports whether kind would change nothing, as with most paths: to look is faster than to
// copy.
func isKind(path []byte) bool {
	segments := 1
	for _, c := range path {
		switch {
		case c == '/':
			segments++
		case c >= '0' && c <= '9':
			return false
		}
	}
	return segments <= endpointSegments
}

// kind appends the first segments of a path without the first slash, "0" for those with digits.
func kind(b, path []byte) []byte {
	begin, digits, segments := 0, false, 0 // of the segment
	for _, c := range path {
		switch {
		case c == '/':
			if segments++; segments == endpointSegments {
				return b
			}
			b = append(b, c)
			begin, digits = len(b), false
		case digits:
		case c >= '0' && c <= '9':
			b, digits = append(b[:begin], '0'), true
		default:
			b = append(b, c)
		}
	}
	return bytes.TrimSuffix(b, []byte("/"))
}
