package proxy

import (
	"testing"
	"time"
)

// However often the bucket leaks, it leaks one in each period, and an empty one saves
// nothing.
func TestLeakyBucket(t *testing.T) {
	const period = time.Second
	for _, step := range []time.Duration{time.Millisecond, 300 * time.Millisecond, period, 7 * period} {
		var b leakyBucket
		b.leak(int64(time.Hour), period)
		b.add(1000)
		for now := time.Hour; now <= time.Hour+210*period; now += step {
			b.leak(int64(now), period)
		}
		if b.level != 790 {
			t.Errorf("step %v: level %d after 210 periods, want 790", step, b.level)
		}
		b.leak(int64(2*time.Hour), period)
		if b.add(1); b.level != 1 {
			t.Errorf("step %v: level %d, want 1", step, b.level)
		}
		if b.add(-5); b.level != 0 {
			t.Errorf("step %v: level %d, want 0", step, b.level)
		}
	}
}
