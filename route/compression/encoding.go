package compression

import "slices"

// An Encoding is a content coding.
type Encoding uint8

const (
	Identity Encoding = iota // not compressed
	Zstd                     // RFC 8878
	Brotli                   // RFC 7932
	Gzip                     // RFC 1952
	encodings
)

// Encodings are all codings that compress, as the registry of HTTP names them.
var Encodings = []Encoding{Zstd, Brotli, Gzip}

var encodingNames = [encodings]string{"identity", "zstd", "br", "gzip"}

// String returns the name in Content-Encoding.
func (e Encoding) String() string { return encodingNames[e] }

// ParseEncoding returns the coding in Encodings with that name.
func ParseEncoding(name string) (e Encoding, ok bool) {
	i := slices.Index(encodingNames[:], name)
	return Encoding(max(i, 0)), i > 0
}
