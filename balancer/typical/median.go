// Package typical knows how long requests usually take, so that peers are compared by like ones.
package typical

import (
	"math"
	"sync/atomic"
	"time"
)

// A median is a running median of latencies in one word: each latency moves it towards itself
// by a part of it. The part is small while latencies lie on both sides, and grows with each one
// that lies on the same side as the one before. So the median is steady, and one of which the
// latencies jump to fifty times as much is near them after thirty. The zero value knows none.
//
// Bits 0 to 31 are the median in nanoseconds, a float32. Bits 32 to 38 are the divisor of a step,
// and bit 39 says that the latest step was upwards. The bits above are the owner's.
type median uint64

// A step is from a 50th to a quarter of the median.
const (
	smallestStep = 50
	largestStep  = 4

	medianBits = 40
)

// nanoseconds returns the median, 0 before the first latency.
func (m median) nanoseconds() float32 { return math.Float32frombits(uint32(m)) }

// add returns m after one more latency. One that hardly differs changes nothing: others read
// the word at the same time.
func (m median) add(latency time.Duration) median {
	value, sample := m.nanoseconds(), float32(latency)
	divisor, rose := uint64(m)>>32&0x7f, uint64(m)>>39&1
	up := uint64(0)
	switch {
	case value == 0:
		value, divisor = sample, largestStep
	case sample > value+value/smallestStep:
		up = 1
		fallthrough
	case sample < value-value/smallestStep:
		if up == rose {
			divisor = max(divisor*7/8, largestStep)
		} else {
			divisor = min(divisor+8, smallestStep)
		}
		step := value / float32(divisor)
		value = min(max(sample, value-step), value+step)
	default:
		return m
	}
	return m>>medianBits<<medianBits | median(up<<39|divisor<<32|uint64(math.Float32bits(value)))
}

// A Median is a running median, safe for concurrent use without a lock; a latency may be lost.
type Median struct{ word atomic.Uint64 }

// Get returns the median, 0 before the first latency.
func (m *Median) Get() time.Duration {
	return time.Duration(median(m.word.Load()).nanoseconds())
}

// Add adds a latency and returns the median.
func (m *Median) Add(latency time.Duration) float32 {
	before := median(m.word.Load())
	next := before.add(latency)
	if next != before {
		m.word.Store(uint64(next))
	}
	return next.nanoseconds()
}
