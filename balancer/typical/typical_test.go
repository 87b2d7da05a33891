package typical

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/test/verify"
)

const (
	ms = time.Millisecond
	// begin is a value of the clock for the start of a test.
	begin = int64(time.Hour)
)

// generator is seeded at random, and logs its seed.
func generator(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestAMedianIsTheMedian(t *testing.T) {
	random := generator(t)
	var m Median
	verify.Equal(t, m.Get(), 0, "of nothing")
	m.Add(time.Second)
	verify.Equal(t, m.Get(), time.Second, "of one")
	var sum float64
	const n = 20_000
	for i := range 2 * n {
		m.Add(time.Duration(random.ExpFloat64() * float64(40*ms)))
		if i >= n {
			sum += m.Get().Seconds()
		}
	}
	mean, want := sum/n, math.Ln2*.04
	verify.That(t, math.Abs(mean/want-1) < .1, "%.1f ms on average, want %.1f ms", mean*1000, want*1000)
}

// An endpoint with few requests is learned soon, also after its cost has changed.
func TestAMedianFollowsAJump(t *testing.T) {
	random := generator(t)
	for _, jump := range []struct{ from, to time.Duration }{{10 * ms, 500 * ms}, {500 * ms, 10 * ms}, {300 * ms, 2 * ms}} {
		const runs = 100
		all := 0
		for range runs {
			var m Median
			near := func(of time.Duration) bool {
				ratio := m.Get().Seconds() / of.Seconds() / math.Ln2
				return ratio > .5 && ratio < 2
			}
			for range 200 {
				m.Add(time.Duration(random.ExpFloat64() * float64(jump.from)))
			}
			for ; !near(jump.to); all++ {
				m.Add(time.Duration(random.ExpFloat64() * float64(jump.to)))
			}
		}
		t.Logf("from %v to %v: %d latencies on average", jump.from, jump.to, all/runs)
		verify.That(t, all/runs <= 50, "from %v to %v: %d latencies on average", jump.from, jump.to, all/runs)
	}
}

// Until an endpoint has had some answers it is compared with all that are not known: its first
// ones say little of what is usual for it.
func TestAnEndpointIsKnownAfterSomeAnswers(t *testing.T) {
	var e Endpoints
	for range 100 {
		e.rest.Add(10 * ms)
	}
	for range knownHits - 1 {
		got := time.Duration(e.Add(7, 100*ms, begin))
		verify.That(t, got < 50*ms, "compared with %v, want what is usual for all", got)
	}
	verify.Equal(t, time.Duration(e.Add(7, 100*ms, begin)), 100*ms, "compared with")
	verify.Equal(t, time.Duration(e.Median(7)), 100*ms, "median")
}

// A makes up a path for each of its requests, ten for each request of B. B's endpoints are known
// all the same, each by its own latencies, and nothing grows.
func TestMadeUpPathsMoveNoEndpoint(t *testing.T) {
	random := generator(t)
	var e Endpoints
	const of, each = 30, 500
	var numbers [of]uint32
	cost := func(i int) time.Duration { return time.Duration(i+1) * 5 * ms }
	for i := range numbers {
		numbers[i] = random.Uint32()
	}
	for range each {
		for i, number := range numbers {
			for k := range 10 {
				e.Add(random.Uint32(), time.Duration(k%2)*10*time.Second+1, begin)
			}
			e.Add(number, cost(i), begin)
		}
	}
	known := 0
	for i, number := range numbers {
		if got := float64(e.Median(number)) / float64(cost(i)); math.Abs(got-1) < .05 {
			known++
		}
	}
	verify.That(t, known >= of-2, "%d of %d endpoints are known", known, of) // four of one set contend for three places
	allocated := testing.AllocsPerRun(1000, func() { e.Add(random.Uint32(), ms, begin) })
	verify.Equal(t, allocated, 0, "allocations of a request to a new path")
}

// Where B has all places of a set, made-up paths take none as long as each of B's is asked as often
// as all of them. What is asked no more makes place after some minutes.
func TestPlacesAreForWhatIsAskedMost(t *testing.T) {
	var e Endpoints
	number := func(tag int) uint32 { return uint32(tag)<<16 | 5 }
	known := func(first int, what string) {
		t.Helper()
		for tag := range endpointWays {
			verify.Require(t, time.Duration(e.Median(number(first+tag))) == 40*ms, "endpoint %d is not known %s", first+tag, what)
		}
	}
	now := begin
	ask := func(first int) {
		for tag := range endpointWays {
			e.Add(number(first+tag), 40*ms, now)
		}
		now += int64(100 * ms)
	}
	e.rest.Add(ms)
	for range 2 * maxHits {
		ask(1)
	}
	known(1, "by itself")
	for i := range 1000 {
		e.Add(number(100+i), 1, now)
		ask(1)
	}
	known(1, "beside made-up paths")
	for range 10 * 60 * 15 { // a quarter of an hour
		ask(10)
	}
	known(10, "after others are asked no more")
}
