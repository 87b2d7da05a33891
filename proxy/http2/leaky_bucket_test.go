package http2

import (
	"testing"
	"time"

	"sluice/test/verify"
)

// However often the bucket leaks, it leaks one in each period, and an empty one saves
// nothing.
func TestLeakyBucket(t *testing.T) {
	const period = time.Second
	for _, step := range []time.Duration{time.Millisecond, 300 * time.Millisecond, period, 7 * period} {
		var b LeakyBucket
		b.Leak(int64(time.Hour), period)
		b.Add(1000)
		for now := time.Hour; now <= time.Hour+210*period; now += step {
			b.Leak(int64(now), period)
		}
		verify.Equal(t, b.Level, 790, "step %v: level after 210 periods", step)
		b.Leak(int64(2*time.Hour), period)
		if b.Add(1); b.Level != 1 {
			t.Errorf("step %v: level %d, want 1", step, b.Level)
		}
		if b.Add(-5); b.Level != 0 {
			t.Errorf("step %v: level %d, want 0", step, b.Level)
		}
	}
}
