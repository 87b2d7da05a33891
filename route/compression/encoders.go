package compression

import (
	"slices"
	"sync"
	"sync/atomic"

	"sluice/route/places"
)

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

// Encoders are reusable encoders. They are safe for concurrent use.
type Encoders struct {
	inUseBytes *places.Shares
	skipped    atomic.Uint64
	idle       [encodings][levels]sync.Pool
	counters   [encodings]counters
}

// NewEncoders returns Encoders of which none is in use.
func NewEncoders() *Encoders { return &Encoders{inUseBytes: places.NewShares()} }

// counters count responses of one coding whose encoders were released.
type counters struct{ responses, bytesIn, bytesOut atomic.Uint64 }

// Acquire returns an encoder for one response to a client; nil: with it, the encoders in use would
// have more than maxBytes of memory, or those of the client more than an eighth of it and more than
// one. The user must call Release.
func (s *Encoders) Acquire(client places.Block, e Encoding, l Level, maxBytes int64) *Encoder {
	k := &kinds[e][l]
	if !s.inUseBytes.TakeWhole(client, k.stateBytes, maxBytes, k.stateBytes) {
		s.skipped.Add(1)
		return nil
	}
	c, ok := s.idle[e][l].Get().(*Encoder)
	if !ok {
		made, err := k.create()
		if err != nil {
			panic("BUG: compression: " + err.Error()) // the settings are constants
		}
		c = &Encoder{encoders: s, encoding: e, level: l, codec: made}
	}
	c.client = client
	c.codec.Reset(&c.output)
	return c
}

// Stats are counts since the start.
type Stats struct {
	Encodings  []EncodingStats // as Encodings
	InUseBytes int64           // memory of the encoders in use, an estimate
	Skipped    uint64          // responses without an encoder, because of maxBytes
}

// EncodingStats count responses with one coding after their end.
type EncodingStats struct {
	Encoding          Encoding
	Responses         uint64
	BytesIn, BytesOut uint64 // of content, before and after compression
}

// Stats returns the counts.
func (s *Encoders) Stats() Stats {
	stats := Stats{InUseBytes: s.inUseBytes.Taken(), Skipped: s.skipped.Load()}
	for _, e := range Encodings {
		c := &s.counters[e]
		stats.Encodings = append(stats.Encodings, EncodingStats{e, c.responses.Load(), c.bytesIn.Load(), c.bytesOut.Load()})
	}
	return stats
}
