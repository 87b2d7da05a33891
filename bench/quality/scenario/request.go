package scenario

import (
	"math/rand/v2"
	"time"
)

// Request is one request of a run.
type Request struct {
	Number  uint64 // from 0
	At      time.Duration
	Route   int           // index in Scenario.Routes
	Work    time.Duration // its service time on a peer of slowness 1, whichever peer serves it
	Replica int           // of the proxy, from 0
}

// Requests returns all requests of a run, sorted by time: an inhomogeneous Poisson process, by
// thinning (P. Lewis, G. Shedler, "Simulation of Nonhomogeneous Poisson Processes by Thinning",
// 1979).
func (s *Scenario) Requests() []Request {
	random := rand.New(rand.NewPCG(s.Seed, arrivals))
	highest := 0.0
	for _, r := range s.Rates {
		highest = max(highest, r.PerSecond)
	}
	var all []Request
	for at := time.Duration(0); ; {
		at += time.Duration(random.ExpFloat64() / highest * float64(time.Second))
		if at >= s.Duration {
			return all
		}
		if random.Float64()*highest >= s.RateAt(at) {
			continue
		}
		r := s.Request(uint64(len(all)))
		r.At = at
		all = append(all, r)
	}
}

// arrivals is the stream of random numbers for the times of arrival. A request n has the stream n.
const arrivals = 1 << 63

// Request returns request n without its time. It depends on the seed and n only, so that an origin
// and a client agree on it.
func (s *Scenario) Request(n uint64) Request {
	random := rand.New(rand.NewPCG(s.Seed, n))
	r := Request{Number: n, Replica: random.IntN(max(s.Replicas, 1))}
	r.Route = draw(random.Float64(), len(s.Routes), func(i int) float64 { return s.Routes[i].Share })
	works := s.Routes[r.Route].Work
	w := works[draw(random.Float64(), len(works), func(i int) float64 { return works[i].Share })]
	factor := 0.9 + 0.2*random.Float64()
	if w.Distribution == Exponential {
		factor = random.ExpFloat64()
	}
	r.Work = time.Duration(factor * float64(w.Mean))
	return r
}

// draw returns the index that a uniform number from [0, 1) falls to.
func draw(u float64, n int, share func(int) float64) int {
	for i := range n - 1 {
		if u -= share(i); u < 0 {
			return i
		}
	}
	return n - 1
}

// RateAt returns the number of requests per second at a time.
func (s *Scenario) RateAt(at time.Duration) float64 {
	before := s.Rates[0]
	for _, r := range s.Rates {
		if r.At > at {
			if r.At == before.At {
				return r.PerSecond
			}
			return before.PerSecond + (r.PerSecond-before.PerSecond)*max(0, float64(at-before.At))/float64(r.At-before.At)
		}
		before = r
	}
	return before.PerSecond
}
