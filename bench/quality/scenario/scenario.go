// Package scenario has the experiment of docs/performance.md as data: peers that differ, requests
// that differ, and when they arrive. The live benchmark and the simulator of package balancer use
// the same values. Everything is drawn from a seed, so each proxy and each policy meets the same
// requests and the same disturbances at the same times. Times are durations since the beginning of
// a run.
package scenario

import (
	"math"
	"time"
)

// Scenario is one row of the experiment. Its values do not change.
type Scenario struct {
	Name  string
	About string
	// Differ says that peers are not alike, so that a choice by more than the number of requests in
	// flight matters.
	Differ bool

	Peers  []Peer
	Routes []Route
	// Measured is how many of Routes, from the first one on, are measured: others are there to
	// disturb those.
	Measured int
	// Rates is the number of requests per second by time, linear between its points, sorted by
	// time. Before the first and after the last it is constant.
	Rates    []Rate
	Replicas int // of the proxy; requests are spread over them at random
	// LowLoad says that requests seldom meet at a peer, so that each peer gets what its weight
	// gives.
	LowLoad bool
	// Reload is when the proxy's configuration is loaded again; 0: never.
	Reload time.Duration

	// WarmUp is when the measurement begins. It ends with the last arrival, at Duration.
	WarmUp, Duration time.Duration
	Seed             uint64
}

// What the default policy has to reach in every scenario, beside never being the worst of all.
const (
	// LeastShare and MostShare bound what a sound peer gets of its due; see Shares.
	LeastShare = 0.5
	MostShare  = 2
)

// Limit returns how many times the better of nginx and HAProxy a percentile may be; 0: any.
func (s *Scenario) Limit(percentile string) float64 {
	switch {
	case percentile == "p50":
		return 0
	case percentile == "p99":
		return 1.05
	case s.Differ:
		return 0.8
	case s.Measured > 1: // endpoints
		return 1.1
	}
	return 1.05
}

// Rate is the number of requests per second at a time.
type Rate struct {
	At        time.Duration
	PerSecond float64
}

// Answer is what a peer answers.
type Answer uint8

const (
	// Works: the right answer, after the service time.
	Works Answer = iota
	// Unavailable: 503 at once.
	Unavailable
	// Wrong: 200 with a wrong body at once.
	Wrong
)

func (a Answer) String() string { return [...]string{"works", "unavailable", "wrong"}[a] }

// Peer serves requests in the order of their arrival.
type Peer struct {
	Slots  int // requests served at a time; others queue
	Answer Answer
	Weight int // as in the proxy's configuration; 0 is 1
	// First is how long the first request takes in addition, which comes when it comes.
	First time.Duration
	// Starts are the times at which another process takes the peer's place.
	Starts []time.Duration
	// Slowness multiplies service times: sorted intervals without overlaps. Otherwise it is 1.
	Slowness []Interval
}

// Interval is a time in which a peer is slower.
type Interval struct {
	From, To time.Duration
	By       float64 // +Inf: the peer stands still
}

// Always is the end of an interval that does not end.
const Always = time.Duration(math.MaxInt64)

// SlownessAt returns the factor of service times at a time.
func (p *Peer) SlownessAt(at time.Duration) float64 {
	for _, i := range p.Slowness {
		if at >= i.From && at < i.To {
			return i.By
		}
	}
	return 1
}

// End returns when work that takes this long on a peer of slowness 1 is done, if a slot begins with
// it at start.
func (p *Peer) End(start, work time.Duration) time.Duration {
	if p.Answer != Works {
		return start
	}
	for _, i := range p.Slowness {
		if i.To <= start {
			continue
		}
		if before := i.From - start; before > 0 {
			if work <= before {
				break
			}
			work -= before
			start = i.From
		}
		if i.To == Always {
			return start + time.Duration(float64(work)*i.By)
		}
		done := time.Duration(float64(i.To-start) / i.By)
		if done >= work {
			return start + time.Duration(float64(work)*i.By)
		}
		work -= done
		start = i.To
	}
	return start + work
}

// Route is a kind of request, with a path of its own. The proxy has one route for all.
type Route struct {
	Name  string
	Share float64 // of the requests; those of all routes add up to 1
	Work  []Work  // one of them for each request
	// Stream is how long the answer goes on after its head; it holds no slot then. 0: the answer
	// ends with its head.
	Stream time.Duration
}

// Work is a distribution of service times, on a peer of slowness 1.
type Work struct {
	Share        float64 // of the requests of the route; those of all add up to 1
	Mean         time.Duration
	Distribution Distribution
}

// Distribution is the kind of a distribution with a given mean.
type Distribution uint8

const (
	Exponential Distribution = iota
	// Constant is uniform between 0.9 and 1.1 times the mean.
	Constant
)

func (d Distribution) String() string { return [...]string{"exponential", "constant"}[d] }
