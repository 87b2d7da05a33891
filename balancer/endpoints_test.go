package balancer

import (
	"math/rand/v2"
	"slices"
	"sluice/bench/quality/scenario"
	"testing"
	"time"

	"sluice/test/verify"
)

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
	verify.Equal(t, time.Duration(p.pool.typical.endpoints.Median(7)), 40*ms, "median of what is there")
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
		new: func(peers []scenario.Peer, random *rand.Rand) chooser {
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
