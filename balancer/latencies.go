package balancer

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets of Latencies: perOctave for each doubling.
const (
	shortestBits = 14 // 2^14 ns, 16 µs
	longestBits  = 36 // 2^36 ns, 69 s
	perOctave    = 4

	numLatencies = (longestBits-shortestBits)*perOctave + 2 // and what is beyond either end
)

// Latencies counts attempts by latency, in buckets less than 25 % apart.
type Latencies [numLatencies]uint32

func latencyBucket(d time.Duration) int {
	octave := bits.Len64(uint64(max(d, 0))) - 1
	switch {
	case octave < shortestBits:
		return 0
	case octave >= longestBits:
		return numLatencies - 1
	}
	quarter := int(d>>(octave-2)) & (perOctave - 1) // the two bits after the first
	return 1 + (octave-shortestBits)*perOctave + quarter
}

// latencyBound returns the lower end of bucket i.
func latencyBound(i int) float64 {
	if i == 0 {
		return 0
	}
	octave, quarter := (i-1)/perOctave+shortestBits, (i-1)%perOctave
	return math.Ldexp(1+float64(quarter)/perOctave, octave)
}

// Since returns the attempts counted after old.
func (l Latencies) Since(old Latencies) Latencies {
	for i := range l {
		l[i] -= old[i] // right also where the counter has wrapped
	}
	return l
}

// Plus returns the attempts of both.
func (l Latencies) Plus(m Latencies) Latencies {
	for i := range l {
		l[i] += m[i]
	}
	return l
}

// Above returns the number of attempts that took d or longer, but for up to 25 % of d.
func (l *Latencies) Above(d time.Duration) int {
	n := 0
	for i, count := range l {
		if latencyBound(i) >= float64(d) {
			n += int(count)
		}
	}
	return n
}

// Count returns the number of attempts.
func (l *Latencies) Count() int { return int(total(l[:])) }

// Median returns the median latency, interpolated within its bucket, or 0 if there are
// no attempts. The buckets cover 16 µs to 69 s.
func (l *Latencies) Median() time.Duration { return time.Duration(quantile(l[:], .5)) }

// total returns the number of attempts in a histogram with the buckets of [Latencies].
func total[N uint32 | float64](h []N) (sum float64) {
	for _, n := range h {
		sum += float64(n)
	}
	return sum
}

// quantile returns a quantile in nanoseconds, interpolated within its bucket; 0 without attempts.
func quantile[N uint32 | float64](h []N, q float64) float64 {
	rank, below := total(h)*q, 0.0
	for i, count := range h {
		n := float64(count)
		if n > 0 && below+n >= rank {
			lower, upper := bucketBounds(i)
			return lower + (upper-lower)*(rank-below)/n
		}
		below += n
	}
	return 0
}

// mean returns the mean in nanoseconds; 0 without attempts.
func mean[N uint32 | float64](h []N) float64 {
	sum := 0.0
	for i, n := range h {
		lower, upper := bucketBounds(i)
		sum += float64(n) * (lower + upper) / 2
	}
	return sum / max(total(h), 1)
}

// bucketBounds returns both ends of bucket i.
func bucketBounds(i int) (lower, upper float64) {
	return latencyBound(i), latencyBound(min(i+1, numLatencies-1))
}

type latencyCounters [numLatencies]atomic.Uint32

func (c *latencyCounters) count(o Outcome) {
	if o.Class == OutcomeOK && o.Latency > 0 {
		c[latencyBucket(o.Latency)].Add(1)
	}
}

func (p *Peer) measureLatencies(on bool) {
	p.retally(func(t *tally) {
		switch {
		case !on:
			t.latencies = nil
		case t.latencies == nil:
			t.latencies = new(latencyCounters)
		}
	})
}

// Latencies returns the latencies of the peer's answers below status 500; nothing while
// Options.MeasureLatencies is off.
func (p *Peer) Latencies() Latencies {
	if t := p.tally.Load(); t != nil && t.latencies != nil {
		return t.latencies.load()
	}
	return Latencies{}
}

// load returns what was counted so far.
func (c *latencyCounters) load() (l Latencies) {
	for i := range c {
		l[i] = c[i].Load()
	}
	return l
}
