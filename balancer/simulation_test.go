package balancer

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// server is how a peer behaves in a simulation.
type server struct {
	weight  int           // 0 means 1
	service time.Duration // mean of the service time, exponentially distributed
	workers int           // requests served at a time, others queue; 0: any number
	class   OutcomeClass  // what it answers
	hangs   bool          // never answers
	from    time.Duration // joins at this time
}

// simulation sends requests with exponentially distributed intervals to
// servers, in virtual time: a picker needs no clock of its own.
type simulation struct {
	policy   Policy
	rate     float64 // requests per second
	duration time.Duration
	warmUp   time.Duration // results before are not counted
	servers  []server
	seed     uint64
}

// result is what became of the requests.
type result struct {
	latencies []time.Duration // sorted
	shares    []float64       // of all picks, by server
	failures  int
	perServer []int
	peers     []*Peer
}

func (r *result) quantile(q float64) time.Duration {
	return r.latencies[min(int(q*float64(len(r.latencies))), len(r.latencies)-1)]
}

func (r *result) String() string {
	return fmt.Sprintf("n=%d p50=%v p99=%v p99.9=%v shares=%.4f failures=%d",
		len(r.latencies), r.quantile(.5), r.quantile(.99), r.quantile(.999), r.shares, r.failures)
}

// ending is a request that will be done.
type ending struct {
	at, start time.Duration
	server    int
	class     OutcomeClass
}

type endings []ending

func (e endings) Len() int           { return len(e) }
func (e endings) Less(i, j int) bool { return e[i].at < e[j].at }
func (e endings) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *endings) Push(x any)        { *e = append(*e, x.(ending)) }
func (e *endings) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (s simulation) run() *result {
	random := rand.New(rand.NewPCG(s.seed, 1))
	r := &result{perServer: make([]int, len(s.servers)), shares: make([]float64, len(s.servers))}
	index := make(map[*Peer]int)
	for i, server := range s.servers {
		p := &Peer{}
		p.ID = instance(i, 1).Key()
		c := new(condition)
		c.setInstance(instance(i, max(server.weight, 1)), false)
		p.condition.Store(c)
		r.peers = append(r.peers, p)
		index[p] = i
	}
	present := func(now time.Duration) []candidate {
		var candidates []candidate
		for i, p := range r.peers {
			if s.servers[i].from <= now {
				candidates = append(candidates, candidate{peer: p, weight: p.Weight(), warmth: 1})
			}
		}
		return candidates
	}
	candidates := present(0)
	var inflight atomic.Int64
	lineupOf := func(candidates []candidate) *lineup {
		return &lineup{candidates: candidates, all: r.peers, hashBound: DefaultHashBound, inflight: &inflight, tables: new(maglevs)}
	}
	picker := newPicker(s.policy, lineupOf(candidates))
	free := make([][]time.Duration, len(s.servers)) // when each worker is free
	for i, server := range s.servers {
		free[i] = make([]time.Duration, server.workers)
	}
	var cursor atomic.Uint64
	var pending endings
	end := func(e ending) {
		p := r.peers[e.server]
		p.measure(Outcome{Class: e.class, Latency: e.at - e.start}, int64(e.at))
		p.load.Add(-1)
		inflight.Add(-1)
		if e.start < s.warmUp {
			return
		}
		if e.class.Failure() {
			r.failures++
		} else {
			r.latencies = append(r.latencies, e.at-e.start)
		}
	}
	// The clock starts late enough for the first samples not to be taken for
	// very recent ones.
	const begin = time.Hour
	s.warmUp += begin
	for now := begin; now < begin+s.duration; {
		now += time.Duration(random.ExpFloat64() / s.rate * float64(time.Second))
		for len(pending) > 0 && pending[0].at <= now {
			end(heap.Pop(&pending).(ending))
		}
		if c := present(now - begin); len(c) != len(candidates) {
			candidates, picker = c, newPicker(s.policy, lineupOf(c))
		}
		inflight.Add(1)
		i := index[picker.pick(Query{}, int64(now), &cursor)]
		r.peers[i].load.Add(1)
		if now >= s.warmUp {
			r.perServer[i]++
		}
		server := s.servers[i]
		if server.hangs {
			continue
		}
		start := now
		done := func(start time.Duration) time.Duration {
			return start + time.Duration(random.ExpFloat64()*float64(server.service))
		}
		at := done(start)
		if server.workers > 0 {
			w := slices.Index(free[i], slices.Min(free[i]))
			at = done(max(start, free[i][w]))
			free[i][w] = at
		}
		heap.Push(&pending, ending{at: at, start: now, server: i, class: server.class})
	}
	for len(pending) > 0 {
		end(heap.Pop(&pending).(ending))
	}
	total := 0
	for _, n := range r.perServer {
		total += n
	}
	for i, n := range r.perServer {
		r.shares[i] = float64(n) / float64(total)
	}
	slices.Sort(r.latencies)
	return r
}

// fleet returns n servers alike, the last of them changed by f.
func fleet(n int, like server, f func(*server)) []server {
	servers := make([]server, n)
	for i := range servers {
		servers[i] = like
	}
	if f != nil {
		f(&servers[n-1])
	}
	return servers
}
