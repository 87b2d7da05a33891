//go:build !race

package compression

import (
	"runtime/debug"
	"strings"
	"testing"

	"sluice/route/places"
)

// An encoder is used again, with its memory. The libraries allocate a few bytes for a header
// or a checksum.
func TestEncodersAreReused(t *testing.T) {
	content := []byte(strings.Repeat("a text that is compressed, ", 500))
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection would empty the pools
	eachKind(t, func(t *testing.T, e Encoding, l Level) {
		s := NewEncoders()
		if n := testing.AllocsPerRun(20, func() {
			c := s.Acquire(places.Many, e, l, 1<<30)
			c.Write(content)
			c.Flush()
			c.Take()
			c.End()
			c.Take()
			c.Release()
		}); n > 4 {
			t.Errorf("%v allocations for a response", n)
		}
	})
}
