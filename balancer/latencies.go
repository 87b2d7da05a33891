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
func (l *Latencies) Count() int {
	n := 0
	for _, count := range l {
		n += int(count)
	}
	return n
}

// Median returns the median latency, interpolated within its bucket, or 0 if there are
// no attempts. The buckets cover 16 µs to 69 s.
func (l *Latencies) Median() time.Duration {
	half := float64(l.Count()) / 2
	below := 0.0
	for i, count := range l {
		n := float64(count)
		if n > 0 && below+n >= half {
			lower, upper := latencyBound(i), latencyBound(min(i+1, numLatencies-1))
			return time.Duration(lower + (upper-lower)*(half-below)/n)
		}
		below += n
	}
	return 0
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
	var l Latencies
	if t := p.tally.Load(); t != nil && t.latencies != nil {
		for i := range t.latencies {
			l[i] = t.latencies[i].Load()
		}
	}
	return l
}
