package balancer

import (
	"container/heap"
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
	class   OutcomeClass  // of its answers
	hangs   bool          // never answers
	once    time.Duration // latency of the first request after the warm-up; 0: as usual
}

// simulation sends requests with exponentially distributed intervals to
// servers, in virtual time: a picker needs no clock of its own. The same
// simulation gives the same result each time.
type simulation struct {
	policy   Policy
	rate     float64 // requests per second
	duration time.Duration
	warmUp   time.Duration // earlier results are not counted
	servers  []server
	seed     uint64

	// replicas is the number of balancers, each with its own count of requests in
	// flight. Requests choose one at random. 0 means 1.
	replicas int
	// sessions is the number of clients, for policies with affinity. 0: each request
	// is from another client.
	sessions int
}

// result is the outcome of the requests.
type result struct {
	latencies []time.Duration // sorted
	shares    []float64       // of all picks, by server
	failures  int
	perServer []int
	picks     [][]time.Duration // when, since the beginning, by server
	answered  time.Duration     // time of the answer that server.once delayed
	moves     int               // requests to another peer than the previous one of the session
}

func (r *result) quantile(q float64) time.Duration {
	return r.latencies[min(int(q*float64(len(r.latencies))), len(r.latencies)-1)]
}

// ending is a request in flight.
type ending struct {
	at, start time.Duration
	server    int
	class     OutcomeClass
	peer      *Peer
	by        *balancerModel
}

func (e ending) over() time.Duration { return e.at }

// balancerModel is one replica of a balancer.
type balancerModel struct {
	peers      []*Peer
	candidates []candidate
	index      map[*Peer]int
	picker     picker

	inflight atomic.Int64
	cursor   atomic.Uint64
}

func newBalancerModel(s *simulation, random *rand.Rand) *balancerModel {
	b := &balancerModel{index: make(map[*Peer]int)}
	pool := new(Pool)
	for i, server := range s.servers {
		p := &Peer{ID: instance(i, 1).Key(), pool: pool}
		p.stickyID.Store(stickyIDOf(p.ID, "key"))
		c := new(condition)
		c.setInstance(instance(i, max(server.weight, 1)), new(Options))
		p.condition.Store(c)
		b.peers = append(b.peers, p)
		b.index[p] = i
		b.candidates = append(b.candidates, candidate{peer: p, weight: p.Weight(), factor: 1})
	}
	b.picker = newPicker(s.policy, &pickerInput{
		candidates: b.candidates, all: b.peers, hashBound: complete(Options{}).HashBound, inflight: &b.inflight, tables: new(maglevs),
	})
	if s.policy == PolicySticky {
		b.picker = newSticky(b.peers, b.picker)
	}
	b.cursor.Store(random.Uint64())
	return b
}

func (s simulation) run() *result {
	random := rand.New(rand.NewPCG(s.seed, 1))
	s.servers = slices.Clone(s.servers)
	r := &result{
		perServer: make([]int, len(s.servers)), shares: make([]float64, len(s.servers)),
		picks: make([][]time.Duration, len(s.servers)),
	}
	balancers := make([]*balancerModel, max(s.replicas, 1))
	for i := range balancers {
		balancers[i] = newBalancerModel(&s, random)
	}
	free := make([][]time.Duration, len(s.servers)) // when each worker is free
	for i, server := range s.servers {
		free[i] = make([]time.Duration, server.workers)
	}
	type session struct {
		id   uint64
		last int // server, from 1
	}
	sessions := make([]session, s.sessions)
	for i := range sessions {
		sessions[i].id = random.Uint64()
	}
	var pending soonest[ending]
	end := func(e ending) {
		e.peer.measure(Outcome{Class: e.class, Latency: e.at - e.start}, int64(e.start))
		e.peer.load.Add(-1)
		e.by.inflight.Add(-1)
		if e.start < s.warmUp {
			return
		}
		if e.class.Failure() {
			r.failures++
		} else {
			r.latencies = append(r.latencies, e.at-e.start)
		}
	}
	// The clock starts late, so the first samples are not very recent ones.
	const begin = time.Hour
	s.warmUp += begin
	for now := begin; now < begin+s.duration; {
		now += time.Duration(random.ExpFloat64() / s.rate * float64(time.Second))
		for len(pending) > 0 && pending[0].at <= now {
			end(heap.Pop(&pending).(ending))
		}
		b := balancers[random.IntN(len(balancers))]
		q := Query{random: random.Uint64}
		var from *session
		if len(sessions) > 0 {
			from = &sessions[random.IntN(len(sessions))]
			switch {
			case s.policy == PolicyHash:
				q.Hash = from.id
			case from.last > 0:
				q.Hash = b.peers[from.last-1].StickyID()
			}
		}
		b.inflight.Add(1)
		peer := b.picker.pick(q, int64(now), &b.cursor)
		i := b.index[peer]
		peer.load.Add(1)
		r.picks[i] = append(r.picks[i], now-begin)
		if now >= s.warmUp {
			r.perServer[i]++
		}
		if from != nil {
			if from.last > 0 && from.last != i+1 && now >= s.warmUp {
				r.moves++
			}
			from.last = i + 1
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
		if server.once > 0 && now >= s.warmUp {
			at = now + server.once
			r.answered = at - begin
			s.servers[i].once = 0
		}
		heap.Push(&pending, ending{at: at, start: now, server: i, class: server.class, peer: peer, by: b})
	}
	for len(pending) > 0 {
		end(heap.Pop(&pending).(ending))
	}
	for i, n := range r.perServer {
		r.shares[i] = r.share(n)
	}
	slices.Sort(r.latencies)
	return r
}

// fleet returns n equal servers, the last one changed by f.
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
