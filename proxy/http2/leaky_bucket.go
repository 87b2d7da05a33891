package http2

import "time"

// A LeakyBucket is a count that goes down with time, but not below 0. So a bound of it
// is one of a burst, and what may go on forever is as fast as the leak.
type LeakyBucket struct {
	Level    int64
	leakedAt int64 // coarse time
}

// Add adds n, which may be negative, and returns the level.
func (b *LeakyBucket) Add(n int64) int64 {
	b.Level = max(b.Level+n, 0)
	return b.Level
}

// Leak subtracts 1 for each period until the coarse time now.
func (b *LeakyBucket) Leak(now int64, period time.Duration) {
	n := (now - b.leakedAt) / int64(period)
	b.leakedAt += n * int64(period)
	b.Add(-n)
}
