package compression

import (
	"sync"
	"sync/atomic"
)

// Encoders are reusable encoders. They are safe for concurrent use. The zero value is ready.
type Encoders struct {
	inUseBytes atomic.Int64
	skipped    atomic.Uint64
	idle       [encodings][levels]sync.Pool
	counters   [encodings]counters
}

// counters count responses of one coding whose encoders were released.
type counters struct{ responses, bytesIn, bytesOut atomic.Uint64 }

// Acquire returns an encoder for one response; nil: with it, the encoders in use would have
// more than maxBytes of memory. The user must call Release.
func (s *Encoders) Acquire(e Encoding, l Level, maxBytes int64) *Encoder {
	k := &kinds[e][l]
	if s.inUseBytes.Add(k.stateBytes) > maxBytes {
		s.inUseBytes.Add(-k.stateBytes)
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
	c.codec.Reset(&c.output)
	return c
}

// Stats are counts since the start.
type Stats struct {
	Encodings  []EncodingStats // as Encodings
	InUseBytes int64           // memory of the encoders in use, an estimate
	Skipped    uint64          // responses without an encoder, because others had the memory
}

// EncodingStats count responses with one coding after their end.
type EncodingStats struct {
	Encoding          Encoding
	Responses         uint64
	BytesIn, BytesOut uint64 // of content, before and after compression
}

// Stats returns the counts.
func (s *Encoders) Stats() Stats {
	stats := Stats{InUseBytes: s.inUseBytes.Load(), Skipped: s.skipped.Load()}
	for _, e := range Encodings {
		c := &s.counters[e]
		stats.Encodings = append(stats.Encodings, EncodingStats{e, c.responses.Load(), c.bytesIn.Load(), c.bytesOut.Load()})
	}
	return stats
}
