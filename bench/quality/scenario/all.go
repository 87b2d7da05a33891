package scenario

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"time"
)

// Length is how long a run takes.
type Length uint8

const (
	// Long is for figures: 10 s to warm up, and 110 s.
	Long Length = iota
	// Short is for tests: 4 s to warm up, and 16 s.
	Short
	// Live is for running proxies, of which there are many: 4 s to warm up, and 20 s.
	Live
)

// What the scenarios have in common: ten peers do 1,000 requests of 40 ms a second, and get 620.
const (
	peers   = 10
	slots   = 4
	mean    = 40 * time.Millisecond
	usual   = 620.
	highest = peers * slots * float64(time.Second) / float64(mean)
)

// All returns the scenarios, in the order of the tables.
func All(seed uint64, length Length, d Distribution) []Scenario {
	warmUp, duration := 10*time.Second, 2*time.Minute
	switch length {
	case Short:
		warmUp, duration = 4*time.Second, 20*time.Second
	case Live:
		warmUp, duration = 4*time.Second, 24*time.Second
	}
	base := func(name, about string) Scenario {
		s := Scenario{
			Name: name, About: about, Peers: make([]Peer, peers),
			Routes:   []Route{{Name: "all", Share: 1, Work: []Work{{1, mean, d}}}},
			Measured: 1,
			Rates:    []Rate{{0, usual}}, Replicas: 1, WarmUp: warmUp, Duration: duration, Seed: seedOf(seed, name),
		}
		for i := range s.Peers {
			s.Peers[i].Slots = slots
		}
		return s
	}
	differ := func(name, about string, f func(s *Scenario)) Scenario {
		s := base(name, about)
		s.Differ = true
		f(&s)
		return s
	}
	all := []Scenario{base("equal", "peers and requests are alike")}
	add := func(s Scenario) { all = append(all, s) }
	add(differ("speeds", "peers of speeds 1 : 2 : 4", speeds))
	add(differ("antagonist", "each peer is three times slower for 5 to 30 s, in 3 of 10 such intervals", func(s *Scenario) {
		s.each(func(p *Peer, random *rand.Rand) {
			between := func() time.Duration { return 5*time.Second + time.Duration(random.Int64N(int64(25*time.Second))) }
			for at := -between(); at < s.Duration; {
				to := at + between()
				if random.Float64() < 0.3 && to > 0 {
					p.Slowness = append(p.Slowness, Interval{max(at, 0), to, 3})
				}
				at = to
			}
		})
	}))
	add(differ("pauses", "each peer stops for 500 ms, every ten seconds on average", func(s *Scenario) {
		s.each(func(p *Peer, random *rand.Rand) {
			for at := time.Duration(0); ; at += 500 * time.Millisecond {
				at += time.Duration(random.ExpFloat64() * float64(10*time.Second))
				if at >= s.Duration {
					return
				}
				p.Slowness = append(p.Slowness, Interval{at, at + 500*time.Millisecond, math.Inf(1)})
			}
		})
	}))
	byRoute := base("bimodal by route", "95 % take 10 ms, and 5 %, of another route, 500 ms")
	byRoute.Routes = []Route{
		{Name: "fast", Share: .95, Work: []Work{{1, mean / 4, d}}},
		{Name: "slow", Share: .05, Work: []Work{{1, 500 * time.Millisecond, d}}},
	}
	add(byRoute)
	mixed := base("bimodal mixed", "95 % take 10 ms and 5 % 500 ms, and nothing tells them apart")
	mixed.Routes[0].Work = []Work{{.95, mean / 4, d}, {.05, 500 * time.Millisecond, d}}
	add(mixed)
	last := func(f func(p *Peer)) func(*Scenario) { return func(s *Scenario) { f(&s.Peers[peers-1]) } }
	slow := last(func(p *Peer) { p.Slowness = []Interval{{0, Always, 50}} })
	add(differ("one slow", "one peer is 50 times slower", slow))
	add(differ("unavailable", "one peer answers 503 at once", last(func(p *Peer) { p.Answer = Unavailable })))
	add(differ("wrong", "one peer answers 200 with a wrong body at once", last(func(p *Peer) { p.Answer = Wrong })))
	add(differ("cold", "one peer starts again when the measurement begins, and is ten times slower at first", last(func(p *Peer) {
		p.Slowness = []Interval{{warmUp, warmUp + (duration-warmUp)/11*3, 10}} // 30 s of 110
	})))
	streams := base("streams", "2 % of the answers go on for a sixth of the run; the proxy's configuration is loaded again")
	streams.Reload = warmUp + (duration-warmUp)/2
	streams.Routes[0].Share = .98
	streams.Routes = append(streams.Routes, Route{Name: "stream", Share: .02, Work: streams.Routes[0].Work, Stream: duration / 6})
	add(streams)
	ramp := base("ramp", "from 50 to 130 % of what the peers can do, and back")
	ramp.Rates = []Rate{
		{warmUp, highest * .5}, {warmUp + (duration-warmUp)*2/5, highest * 1.3}, {warmUp + (duration-warmUp)*4/5, highest * .5},
	}
	add(ramp)
	add(endpoints(base("endpoints", "one route with thirty endpoints, which take 2 to 200 ms; the faster half is measured"), d))
	for _, s := range lowLoad(seed, length, d) {
		add(s)
	}
	for _, n := range []int{5, 20} {
		for _, s := range []Scenario{all[0], all[1], all[6]} {
			s.Replicas = n
			s.Name = fmt.Sprintf("%s, %d replicas", s.Name, n)
			add(s)
		}
	}
	return all
}

// endpoints has thirty routes. Their costs are log-normal over two decades, as quantiles;
// all are asked equally often, as much as keeps the peers usually busy.
func endpoints(s Scenario, d Distribution) Scenario {
	const n = 30
	s.Routes, s.Measured = nil, n/2
	costs, sum := make([]float64, n), 0.
	for i := range costs {
		z := math.Sqrt2 * math.Erfinv(2*(float64(i)+.5)/n-1) // of the standard normal distribution
		costs[i] = math.Exp(z * math.Ln10 / 2)               // nearly all within a factor of ten of the median
		sum += costs[i]
	}
	for i, cost := range costs {
		mean := time.Duration(cost / sum * n * float64(mean))
		s.Routes = append(s.Routes, Route{Name: endpointName(i), Share: 1. / n, Work: []Work{{1, mean, d}}})
	}
	return s
}

// endpointName has no digits, which would make it an id.
func endpointName(i int) string { return "api/" + string(rune('a'+i/26)) + string(rune('a'+i%26)) }

// speeds has the peers 1 : 2 : 4, which do together what equal ones do.
func speeds(s *Scenario) {
	sum := 0.
	for i := range s.Peers {
		sum += float64(int(1) << (i % 3))
	}
	for i := range s.Peers {
		s.Peers[i].Slowness = []Interval{{0, Always, sum / peers / float64(int(1)<<(i%3))}}
	}
}

// each disturbs each peer by random numbers of its own.
func (s *Scenario) each(f func(*Peer, *rand.Rand)) {
	for i := range s.Peers {
		f(&s.Peers[i], rand.New(rand.NewPCG(s.Seed, arrivals+1+uint64(i))))
	}
}

// seedOf returns the seed of a scenario, so that each has other numbers.
func seedOf(seed uint64, name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64() ^ seed
}
