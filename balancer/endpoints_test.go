package balancer

import (
	"math"
	"math/rand/v2"
	"slices"
	"sluice/bench/quality/scenario"
	"testing"
	"time"

	"sluice/test/verify"
)

func TestAMedianIsTheMedian(t *testing.T) {
	random := generator(t)
	var m sharedMedian
	verify.Equal(t, m.get(), 0, "of nothing")
	m.add(time.Second)
	verify.Equal(t, m.get(), time.Second, "of one")
	var sum float64
	const n = 20_000
	for i := range 2 * n {
		m.add(time.Duration(random.ExpFloat64() * float64(40*ms)))
		if i >= n {
			sum += m.get().Seconds()
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
			var m sharedMedian
			near := func(of time.Duration) bool {
				ratio := m.get().Seconds() / of.Seconds() / math.Ln2
				return ratio > .5 && ratio < 2
			}
			for range 200 {
				m.add(time.Duration(random.ExpFloat64() * float64(jump.from)))
			}
			for ; !near(jump.to); all++ {
				m.add(time.Duration(random.ExpFloat64() * float64(jump.to)))
			}
		}
		t.Logf("from %v to %v: %d latencies on average", jump.from, jump.to, all/runs)
		verify.That(t, all/runs <= 50, "from %v to %v: %d latencies on average", jump.from, jump.to, all/runs)
	}
}

// Until an endpoint has had some answers it is compared with all that are not known: its first
// ones say little of what is usual for it.
func TestAnEndpointIsKnownAfterSomeAnswers(t *testing.T) {
	var e endpoints
	for range 100 {
		e.rest.add(10 * ms)
	}
	for range knownHits - 1 {
		got := time.Duration(e.add(7, 100*ms, begin))
		verify.That(t, got < 50*ms, "compared with %v, want what is usual for all", got)
	}
	verify.Equal(t, time.Duration(e.add(7, 100*ms, begin)), 100*ms, "compared with")
	verify.Equal(t, time.Duration(e.median(7)), 100*ms, "median")
}

// A makes up a path for each of its requests, ten for each request of B. B's endpoints are known
// all the same, each by its own latencies, and nothing grows.
func TestMadeUpPathsMoveNoEndpoint(t *testing.T) {
	random := generator(t)
	var e endpoints
	const of, each = 30, 500
	var numbers [of]uint32
	cost := func(i int) time.Duration { return time.Duration(i+1) * 5 * ms }
	for i := range numbers {
		numbers[i] = random.Uint32()
	}
	for range each {
		for i, number := range numbers {
			for k := range 10 {
				e.add(random.Uint32(), time.Duration(k%2)*10*time.Second+1, begin)
			}
			e.add(number, cost(i), begin)
		}
	}
	known := 0
	for i, number := range numbers {
		if got := float64(e.median(number)) / float64(cost(i)); math.Abs(got-1) < .05 {
			known++
		}
	}
	verify.That(t, known >= of-2, "%d of %d endpoints are known", known, of) // four of one set contend for three places
	allocated := testing.AllocsPerRun(1000, func() { e.add(random.Uint32(), ms, begin) })
	verify.Equal(t, allocated, 0, "allocations of a request to a new path")
}

// Where B has all places of a set, made-up paths take none as long as each of B's is asked as often as all of them. What is
// asked no more makes place after some minutes.
func TestPlacesAreForWhatIsAskedMost(t *testing.T) {
	var e endpoints
	number := func(tag int) uint32 { return uint32(tag)<<16 | 5 }
	known := func(first int, what string) {
		t.Helper()
		for tag := range endpointWays {
			verify.Require(t, time.Duration(e.median(number(first+tag))) == 40*ms, "endpoint %d is not known %s", first+tag, what)
		}
	}
	now := begin
	ask := func(first int) {
		for tag := range endpointWays {
			e.add(number(first+tag), 40*ms, now)
		}
		now += int64(100 * ms)
	}
	e.rest.add(ms)
	for range 2 * maxHits {
		ask(1)
	}
	known(1, "by itself")
	for i := range 1000 {
		e.add(number(100+i), 1, now)
		ask(1)
	}
	known(1, "beside made-up paths")
	for range 10 * 60 * 15 { // a quarter of an hour
		ask(10)
	}
	known(10, "after others are asked no more")
}

// What an endpoint answers with a 4xx status does not count for its other answers: A asks for
// what is not there, more often than B for what is.
func TestClientErrorsAreAnEndpointOfTheirOwn(t *testing.T) {
	p := Peer{pool: new(Pool)}
	start := begin
	ask := func(status int, latency time.Duration) {
		p.measure(Outcome{Class: OutcomeOK, Status: status, Latency: latency, Details: Details{Endpoint: 7}}, start)
		start += int64(100 * ms)
	}
	for range 200 {
		ask(404, ms/10)
		ask(404, ms/10)
		ask(200, 40*ms)
	}
	verify.Equal(t, time.Duration(p.pool.endpoints.median(7)), 40*ms, "median of what is there")
}

// A client that makes up paths costs the others hardly more than one that asks for two paths as
// often, also if some of its requests take long. With one median for all of the route, their
// p99.9 is 91 ms in place of 35 and 40.
func TestMadeUpPathsCostOthersNothing(t *testing.T) {
	t.Parallel()
	all := scenario.All(1, scenario.Long, scenario.Constant)
	s := all[slices.IndexFunc(all, func(s scenario.Scenario) bool { return s.Name == "endpoints" })]
	made := len(s.Routes)
	for i := range s.Routes {
		s.Routes[i].Share *= .5
	}
	s.Routes = append(slices.Clone(s.Routes),
		scenario.Route{Share: .48, Work: []scenario.Work{{Share: 1, Mean: ms / 10, Distribution: scenario.Constant}}},
		scenario.Route{Share: .02, Work: []scenario.Work{{Share: 1, Mean: 300 * ms, Distribution: scenario.Constant}}})
	s.Rates = []scenario.Rate{{PerSecond: 1000}}
	requests := s.Requests()
	same, up := play(&s, requests, ownPolicy(PolicyEWMA)), play(&s, requests, rival{
		new: func(peers []scenario.Peer, random *rand.Rand, _ *servers) chooser {
			return &makingUp{newOwn(PolicyEWMA, peers, random), made}
		},
	})
	leastConn := play(&s, requests, rivals()[3])
	t.Logf("the others: %s beside two paths, %s beside made-up ones, %s with least_conn of nginx and HAProxy", same.inMilliseconds(), up.inMilliseconds(), leastConn.inMilliseconds())
	verify.That(t, up.p99 <= same.p99*1.1 && up.p999 <= same.p999*1.25, "p99 %.4f and p99.9 %.4f s, beside two paths %.4f and %.4f", up.p99, up.p999, same.p99, same.p999)
}

// makingUp has another endpoint for each request of the routes from this one on.
type makingUp struct {
	*own
	from int
}

func (m *makingUp) done(i int, a *answered) {
	if a.route >= m.from {
		a.route = int(m.random.Uint32())
	}
	m.own.done(i, a)
}
