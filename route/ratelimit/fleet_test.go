package ratelimit

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/test/long"
	"sluice/test/verify"
)

// simulation is a fleet in simulated time: replicas that exchange counts, each at its own time
// within a round, and a limiter that gets the requests of all of them.
type simulation struct {
	random   *rand.Rand
	rate     float64 // per second
	create   func(f *Fleet) *Limiter
	start    time.Time
	now      time.Duration
	single   *Limiter
	replicas []*simulated
	listed   int // replicas that all know of
	sees     func(from, to int) bool
	inStep   bool // all have their rounds at about the same time
}

type simulated struct {
	fleet   *Fleet
	limiter *Limiter
	first   time.Duration // round
	next    time.Duration
	rounds  [][]Count
	ended   time.Duration
	applied map[int]int // rounds of the others
}

var testSeed = Seed{1}

func simulate(t *testing.T, rate int, per time.Duration, burst, n int) *simulation {
	t.Helper()
	seed := fnv.New64()
	seed.Write([]byte(t.Name()))
	s := &simulation{
		random: rand.New(rand.NewPCG(seed.Sum64(), uint64(n))), inStep: seed.Sum64()%3 == 0, rate: float64(rate) / per.Seconds(), start: time.Now(), listed: n,
		create: func(f *Fleet) *Limiter { return NewShared(rate, per, burst, f) },
		single: New(rate, per, burst),
		sees:   func(int, int) bool { return true },
	}
	s.single.epoch = s.start
	for range n {
		s.join()
	}
	return s
}

// join adds a replica.
func (s *simulation) join() {
	f := NewFleet(testSeed)
	f.Set(Standing{testSeed, s.listed, 1})
	r := &simulated{fleet: f, limiter: s.create(f), applied: make(map[int]int), first: s.now}
	if !s.inStep {
		r.first += time.Duration(s.random.Int64N(int64(Round)))
	}
	r.next = r.first
	r.limiter.epoch = s.start
	s.replicas = append(s.replicas, r)
}

const step = 5 * time.Millisecond

// run lets time pass. demand returns the requests per second for a key at a replica. admitted has
// the requests of each key at each replica, and single those that the single limiter admits.
func (s *simulation) run(d time.Duration, keys int, demand func(replica, key int) float64) (admitted [][]int, single []int) {
	admitted, single = make([][]int, len(s.replicas)), make([]int, keys)
	for i := range admitted {
		admitted[i] = make([]int, keys)
	}
	var key [8]byte
	for end := s.now + d; s.now < end; s.now += step {
		now := s.start.Add(s.now)
		for i, r := range s.replicas {
			if r == nil { // it is dead
				continue
			}
			if s.now >= r.next {
				s.exchange(i, now)
				r.next = r.first + (s.now - r.first + Round/2).Truncate(Round) + Round + time.Duration(s.random.Int64N(4))*step // as a scheduler is late
			}
			for k := range keys {
				binary.LittleEndian.PutUint64(key[:], uint64(k))
				for range s.arrivals(demand(i, k)) {
					if r.limiter.Take(key[:], now) == 0 {
						admitted[i][k]++
					}
					if s.single.Take(key[:], now) == 0 {
						single[k]++
					}
				}
			}
		}
	}
	return admitted, single
}

// exchange is what package fleet does in a round.
func (s *simulation) exchange(i int, now time.Time) {
	r := s.replicas[i]
	own := r.limiter.Collect(now, 1000)
	r.rounds, r.ended = append(r.rounds, own), s.now
	var others []Report
	for j, o := range s.replicas {
		if j == i || o == nil || len(o.rounds) == 0 || !s.sees(i, j) {
			continue
		}
		last := len(o.rounds)
		since := min(max(r.applied[j], last-8), last-1)
		others = append(others, Report{Sum(o.rounds[since:]), s.now - o.ended, r.applied[j] != last})
		r.applied[j] = last
	}
	r.fleet.Set(Standing{testSeed, max(s.listed, 1+len(others)), 1 + len(others)})
	r.limiter.Apply(now, own, others)
}

// arrivals returns how many requests arrive in a step, at random, for a mean per second.
func (s *simulation) arrivals(mean float64) (n int) {
	for p := s.random.Float64(); p > math.Exp(-mean*step.Seconds()); p *= s.random.Float64() {
		n++
	}
	return n
}

func sum(admitted [][]int) (n int) {
	for _, keys := range admitted {
		for _, k := range keys {
			n += k
		}
	}
	return n
}

// keeps requires that a fleet has admitted what the limit is, ± 5 %: what a single limiter would
// have, and if this had lost tokens because its bucket was too small, at most the rate. n is how
// many replicas may each lose a part of a token.
func (s *simulation) keeps(t *testing.T, got, single int, d time.Duration, n int) {
	t.Helper()
	most := max(float64(single), s.rate*d.Seconds())
	t.Logf("%d admitted, %d by a single limiter, %.0f by the rate", got, single, s.rate*d.Seconds())
	verify.That(t, float64(got) >= 0.95*float64(single)-float64(n) && float64(got) <= 1.05*most+1, "%d admitted, want %d to %.0f", got, single, most)
}

// A fleet keeps a limit as traffic shifts.
func TestFleetKeepsLimit(t *testing.T) {
	for _, limit := range []struct {
		rate  int
		per   time.Duration
		burst int
	}{{100, time.Second, 100}, {100, time.Second, 10}, {100, time.Second, 1}, {10, time.Second, 10}, {60, time.Minute, 60}, {10, time.Minute, 20}, {10, time.Minute, 1}} {
		rate := float64(limit.rate) / limit.per.Seconds()
		d := max(time.Minute, time.Duration(60/rate*float64(time.Second)))
		for _, n := range []int{3, 1, 10}[:long.Count(t, 1, 3)] {
			for _, load := range []float64{1.5, 4} {
				at := func(every time.Duration, now time.Duration, replica int) float64 {
					if int(now/every)%n == replica {
						return load * rate
					}
					return 0
				}
				for name, demand := range map[string]func(now time.Duration, replica int) float64{
					"even":           func(time.Duration, int) float64 { return load * rate / float64(n) },
					"at one":         func(_ time.Duration, r int) float64 { return at(time.Hour*1e4, 0, r) },
					"uneven":         func(_ time.Duration, r int) float64 { return load * rate / math.Pow(2, float64(r+1)) },
					"shifts in 15 s": func(now time.Duration, r int) float64 { return at(15*time.Second, now, r) },
					"shifts in 60 s": func(now time.Duration, r int) float64 { return at(time.Minute, now, r) },
					"shifts in part": func(now time.Duration, r int) float64 {
						return 0.7*at(15*time.Second, now, r) + 0.3*load*rate/float64(n)
					},
					"a little at most": func(_ time.Duration, r int) float64 { return max(0.1*rate, at(time.Hour*1e4, 0, r)) },
				} {
					t.Run(fmt.Sprintf("%d per %v burst %d/%d replicas/load %v %s", limit.rate, limit.per, limit.burst, n, load, name), func(t *testing.T) {
						t.Parallel()
						s := simulate(t, limit.rate, limit.per, limit.burst, n)
						got, single := s.run(3*d, 1, func(r, _ int) float64 { return demand(s.now, r) })
						s.keeps(t, sum(got), single[0], 3*d, n)
					})
				}
			}
		}
	}
}

// A fleet keeps a limit for each of many keys, whose clients go to other replicas at times.
func TestFleetKeepsLimitOfManyKeys(t *testing.T) {
	const keys, n = 100, 3
	s := simulate(t, 10, time.Second, 10, n)
	d := time.Minute
	got, single := s.run(d, keys, func(r, k int) float64 {
		if (int(s.now/(20*time.Second))+k)%n != r {
			return 0
		}
		return 200 / float64(k+1) // Zipf: the last ones do not need their limit
	})
	for k := range keys {
		key := make([][]int, n)
		for r := range n {
			key[r] = got[r][k : k+1]
		}
		if k < keys/10 {
			s.keeps(t, sum(key), single[k], d, n)
		}
		verify.That(t, float64(sum(key)) >= 0.8*float64(single[k]) && sum(key) <= single[k]*21/20+1, "key %d: %d admitted, %d by a single limiter", k, sum(key), single[k])
	}
}

// A fleet keeps a limit when replicas die, join, and do not see each other.
func TestFleetChanges(t *testing.T) {
	s := simulate(t, 100, time.Second, 100, 3)
	d := time.Minute
	shifting := func(r, _ int) float64 {
		if int(s.now/(7*time.Second))%len(s.replicas) == r {
			return 300
		}
		return 30
	}
	even := func(int, int) float64 { return 100 }
	for _, c := range []struct {
		what   string
		change func()
		demand func(replica, key int) float64
		part   float64 // of the limit, that the fleet has
	}{
		{"three", func() {}, shifting, 1},
		{"each alone", func() { s.sees = func(int, int) bool { return false } }, even, 1},
		{"one does not see the others, which see it", func() { s.sees = func(from, _ int) bool { return from != 2 } }, even, 1},
		{"a part alone", func() { s.sees = func(from, to int) bool { return (from == 2) == (to == 2) } }, even, 1},
		{"together again", func() { s.sees = func(int, int) bool { return true } }, shifting, 1},
		{"a fourth one, which the others do not know", func() {
			s.listed = 4
			s.join()
			s.listed = 3
		}, shifting, 1},
		{"four", func() { s.listed = 4 }, shifting, 1},
		{"one that is listed does not answer", func() { s.replicas[1] = nil }, func(r, _ int) float64 { return 200 }, 0.75},
		{"it is dead", func() { s.listed = 3 }, func(r, _ int) float64 { return 200 }, 1},
		{"one", func() { s.replicas[0], s.replicas[3], s.listed = nil, nil, 1 }, even, 1},
	} {
		c.change()
		got, single := s.run(d, 1, c.demand)
		want := c.part * s.rate * d.Seconds()
		t.Logf("%s: %d of %.0f, %v", c.what, sum(got), want, got)
		// What the single limiter has more, its bucket had saved.
		verify.That(t, float64(sum(got)) >= 0.95*want && float64(sum(got)) <= 1.05*max(want, c.part*float64(single[0])), "%s: %d admitted, want %.0f ± 5 %%: %v", c.what, sum(got), want, got)
	}
}

// Replicas that lose sight of each other again and again, all at a time, admit no more for that:
// what is taken stays taken.
func TestFleetThatFlaps(t *testing.T) {
	for n := 2; n <= 5; n++ {
		s := simulate(t, 10, time.Hour, 10, n)
		demand := func(int, int) float64 { return 3 }
		at, _ := s.run(10*time.Second, 1, demand)
		verify.That(t, sum(at) >= 9, "%d replicas: %d admitted at first", n, sum(at))
		later := 0
		for i := range 20 {
			s.sees = func(from, to int) bool { return i%2 == 1 || i%4 == 2 && from%2 == to%2 }
			got, _ := s.run(3*time.Second, 1, demand)
			later += sum(got)
		}
		verify.That(t, later <= 1, "%d replicas: %d admitted later", n, later)
	}
}

// A replica that few requests for a key reach admits some, whatever the others tell.
func TestLeastShare(t *testing.T) {
	for _, rate := range []int{10, 6000} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			s := simulate(t, rate, time.Minute, rate, 3)
			demand := func(r, _ int) float64 { return []float64{20, 0.5, 0.5}[r] * s.rate }
			s.run(3*time.Minute, 1, demand)
			got, _ := s.run(10*time.Minute, 1, demand)
			least := s.rate * 600 / 6
			for r := 1; r < 3; r++ {
				verify.That(t, float64(got[r][0]) >= 0.5*least && float64(got[r][0]) <= 1.5*least, "replica %d admitted %d, want about %.0f: %v", r, got[r][0], least, got)
			}
		})
		t.Run(fmt.Sprint(rate, " with a liar"), func(t *testing.T) {
			s := simulate(t, rate, time.Minute, rate, 1)
			r := s.replicas[0]
			key := []byte("key")
			liar := Count{testSeed.hash(key), math.MaxUint32, math.MaxFloat32, math.MaxFloat32}
			admitted := 0
			for s.now = 0; s.now < 10*time.Minute; s.now += step {
				now := s.start.Add(s.now)
				if s.now%Round == 0 {
					r.fleet.Set(Standing{testSeed, 2, 2})
					r.limiter.Apply(now, r.limiter.Collect(now, 1000), []Report{{[]Count{liar}, 0, true}})
				}
				if r.limiter.Take(key, now) == 0 {
					admitted++
				}
			}
			least := s.rate * 600 / 4
			verify.That(t, float64(admitted) >= 0.45*least && float64(admitted) < 1.2*least, "%d admitted, want half of %.0f at least", admitted, least)
		})
	}
}

// A replica tells the others at most so many keys: those that were asked for most. What needs less
// than the least share stays here.
func TestCollect(t *testing.T) {
	f := NewFleet(testSeed)
	f.Set(Standing{testSeed, 2, 2})
	l := NewShared(100, time.Second, 100, f)
	for i := range 50 {
		for range i {
			l.Take([]byte{byte(i)}, l.epoch)
		}
	}
	counts := l.Collect(l.epoch, 10)
	verify.Equal(t, len(counts), 10, "counts")
	verify.That(t, counts[0].Hash == testSeed.hash([]byte{49}) && counts[0].Asked == 49 && counts[0].Taken == 49 && counts[9].Asked == 40, "got %+v", counts)
	verify.Equal(t, len(l.Collect(l.epoch, 100)), 0, "keys without a request since")
	l.Take([]byte{1}, l.epoch)
	verify.Equal(t, len(l.Collect(l.epoch, 100)), 0, "light keys")
	l.Apply(l.epoch, nil, []Report{{Counts: []Count{{Hash: testSeed.hash([]byte{1}), Asked: 1}}}})
	l.Take([]byte{1}, l.epoch)
	verify.Equal(t, len(l.Collect(l.epoch, 100)), 1, "light keys that another one has")
	for range 100 {
		l.Collect(l.epoch.Add(time.Hour), 1)
	}
	for i := range l.shared.shards {
		verify.Equal(t, len(l.shared.shards[i].buckets), 0, "full buckets after an hour")
	}
}

// Many keys, of clients and of other replicas, take bounded memory.
func TestManySharedKeys(t *testing.T) {
	l := NewShared(1, time.Minute, 10, NewFleet(testSeed))
	key := make([]byte, 8)
	var foreign Report
	for i := range 2 * maxKeys {
		binary.LittleEndian.PutUint64(key, uint64(i))
		l.Take(key, l.epoch)
		foreign.Counts = append(foreign.Counts, Count{Hash: rand.Uint64(), Debt: 5})
	}
	l.Apply(l.epoch, nil, []Report{foreign})
	n := 0
	for i := range l.shared.shards {
		n += len(l.shared.shards[i].buckets)
	}
	verify.That(t, n <= maxKeys, "%d buckets", n)
}

// Another seed makes other hashes, and full buckets.
func TestSeed(t *testing.T) {
	f := NewFleet(testSeed)
	l := NewShared(1, time.Minute, 1, f)
	key := []byte("key")
	verify.That(t, l.Take(key, l.epoch) == 0 && l.Take(key, l.epoch) > 0, "it has not one token")
	f.Set(Standing{Seed{2}, 1, 1})
	verify.That(t, l.Take(key, l.epoch) == 0 && l.Take(key, l.epoch) > 0, "it has not one token after another seed")
}

// The first vectors of the authors of SipHash: keys of 0, 1, 2, … with the seed 0, 1, …, 15.
func TestSipHash(t *testing.T) {
	var seed Seed
	var key []byte
	for i := range seed {
		seed[i] = byte(i)
	}
	for i, want := range []uint64{
		0x726fdb47dd0e0e31, 0x74f839c593dc67fd, 0x0d6c8009d9a94f5a, 0x85676696d7fb7e2d, 0xcf2794e0277187b7,
		0x18765564cd99a68d, 0xcbc9466e58fee3ce, 0xab0200f58b01d137, 0x93f5f5799a932462, 0x9e0082df0ba9e4b0,
	} {
		verify.That(t, seed.hash(key) == want, "%d bytes: got %x, want %x", i, seed.hash(key), want)
		key = append(key, byte(i))
	}
}
