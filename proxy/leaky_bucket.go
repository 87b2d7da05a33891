package proxy

import "time"

// A leakyBucket is a count that goes down with time, but not below 0. So a bound of it
// is one of a burst, and the speed of the leak is that of what may go on forever.
type leakyBucket struct {
	level    int64
	leakedAt int64 // coarse time
}

// add adds n, which may be negative, and returns the level.
func (b *leakyBucket) add(n int64) int64 {
	b.level = max(b.level+n, 0)
	return b.level
}

// leak subtracts 1 for each period until the coarse time now.
func (b *leakyBucket) leak(now int64, period time.Duration) {
	n := (now - b.leakedAt) / int64(period)
	b.leakedAt += n * int64(period)
	b.add(-n)
}
