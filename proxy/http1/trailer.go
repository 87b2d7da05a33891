package http1

import "slices"

// TrailerField returns the value of the first field with that name, in lower case, in a trailer
// section or in a head, or nil.
func TrailerField(section []byte, name string) []byte {
	for line := range Lines(section) {
		if HasName(line, name) {
			return LineValue(line)
		}
	}
	return nil
}

// forbiddenTrailers are the names, in lower case, of fields that RFC 9110, section
// 6.5.1 forbids in a trailer section.
var forbiddenTrailers = []string{
	"authorization", "cache-control", "content-encoding", "content-range",
	"date", "expires", "if-match", "if-modified-since", "if-none-match", "if-range",
	"if-unmodified-since", "location", "pragma", "range", "retry-after", "set-cookie",
	"vary", "www-authenticate", "age",
}

// ForbiddenInTrailer reports whether a field with that name must be removed from every
// trailer section. Fields with a [Name] are, except fields that say which request it is or
// how busy a peer is: servers of gRPC send them as metadata.
func ForbiddenInTrailer(name []byte) bool {
	switch NameOf(name) {
	case NameOther, NameXRequestID, NameTraceparent, NameTracestate, NameMarked:
	default:
		return true
	}
	return slices.ContainsFunc(forbiddenTrailers, func(forbidden string) bool { return Alike(name, forbidden) })
}

// FilterTrailer returns a trailer section without the lines that drop selects. It does not change
// section, and returns it if nothing is dropped.
func FilterTrailer(section []byte, drop func(line []byte) bool) []byte {
	var kept []byte
	dropped := false
	for line := range Lines(section) {
		dropped = dropped || drop(line)
	}
	if !dropped {
		return section
	}
	for line := range Lines(section) {
		if !drop(line) {
			kept = append(kept, line...)
		}
	}
	return kept
}
