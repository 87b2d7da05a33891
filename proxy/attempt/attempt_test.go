package attempt

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/route"
	"sluice/route/places"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

var (
	ok         = balancer.Outcome{Class: balancer.OutcomeOK}
	reset      = balancer.Outcome{Class: balancer.OutcomeReset}
	refused    = balancer.Outcome{Class: balancer.OutcomeConnectFailure}
	superseded = balancer.Outcome{Class: balancer.OutcomeSuperseded}
	denied     = balancer.Outcome{Class: balancer.OutcomeDenied}
)

// suspected is a try whose peer fails its checks, and which has that outcome if it is not left.
func suspected(o balancer.Outcome) balancer.Outcome {
	o.Endpoint = isSuspected
	return o
}

const isSuspected = 1 // as an endpoint, which means nothing here

// script is an exchange that plays outcomes, one after the other, and notes what it is asked for.
type script struct {
	Loop
	outcomes []balancer.Outcome
	started  bool
	final    bool // cannot be sent again
	gone     bool // its client has left

	onTry  func()                             // called by Try
	onStay func(changed <-chan struct{}) bool // called if a suspected peer is not left; true: look again
	calls  []string
	peers  []*balancer.Peer
}

func (s *script) Try(t balancer.Token) balancer.Outcome {
	call := "try"
	if i := slices.Index(s.peers, t.Peer); i >= 0 {
		call += fmt.Sprint(" ", i)
	}
	s.calls, s.peers = append(s.calls, call), append(s.peers, t.Peer)
	if s.onTry != nil {
		s.onTry()
	}
	o := s.outcomes[0]
	s.outcomes = s.outcomes[1:]
	if o.Endpoint != isSuspected {
		return o
	}
	for again := true; again; {
		changed, left := s.Leave()
		if left {
			s.calls = append(s.calls, "leave")
			return superseded
		}
		s.calls = append(s.calls, "stay")
		again = s.onStay != nil && s.onStay(changed)
	}
	o.Endpoint = 0
	return o
}

func (s *script) Replayable() bool { return !s.final }
func (s *script) Started() bool    { return s.started }

func (s *script) Block() places.Block { return places.Many }

func (s *script) Waiting(timeout time.Duration) (context.Context, context.CancelFunc) {
	s.calls = append(s.calls, fmt.Sprint("wait ", timeout))
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	if s.gone {
		cancel()
	}
	return ctx, cancel
}

// A result is how the loop of an exchange ends.
type result struct {
	outcome balancer.Outcome
	tries   int
	err     error
	calls   string // of the exchange
}

// run runs the loop of the exchange.
func (s *script) run(service *route.Service) result { return s.runWith(service, new(balancer.Query)) }

func (s *script) runWith(service *route.Service, query *balancer.Query) result {
	o, err := s.Run(service, query, s)
	return result{o, s.Tries, err, strings.Join(s.calls, " ")}
}

// oneEach are limits of one connection to each peer, for which one request may wait.
var oneEach = balancer.Limits{PeerConnections: 1, Pending: 1}

// pool returns one with that many peers.
func pool(t *testing.T, peers int) *balancer.Pool { return limited(t, peers, balancer.Limits{}) }

// limited is pool with limits.
func limited(t *testing.T, peers int, limits balancer.Limits) *balancer.Pool {
	p := balancer.NewPool("star", balancertest.Complete(balancer.Options{Limits: limits}))
	t.Cleanup(p.Close)
	var set []discovery.Instance
	for i := range peers {
		set = append(set, discovery.Instance{Service: "star", ID: fmt.Sprint(i), Address: "10.0.0.1", Port: 1 + i, Tags: []string{fmt.Sprint(i)}, Weight: 1})
	}
	p.Apply(set)
	return p
}

func TestRun(t *testing.T) {
	const enough = 6 // peers
	for _, test := range []struct {
		name     string
		peers    int
		attempts int
		x        script
		calls    string
		want     balancer.Outcome
		tries    int
		err      error
	}{
		{"answered", enough, 3, script{outcomes: []balancer.Outcome{ok}}, "try", ok, 1, nil},
		{"retried", enough, 3, script{outcomes: []balancer.Outcome{reset, ok}}, "try try", ok, 2, nil},
		{"not replayable", enough, 3, script{final: true, outcomes: []balancer.Outcome{reset}}, "try", reset, 1, nil},
		{"started", enough, 3, script{started: true, outcomes: []balancer.Outcome{reset}}, "try", reset, 1, nil},
		{"as often as allowed", enough, 2, script{outcomes: []balancer.Outcome{reset, reset}}, "try try", reset, 2, nil},
		{"connect failures do not count", enough, 2,
			script{outcomes: []balancer.Outcome{refused, refused, refused, reset, ok}},
			"try try try try try", ok, 5, nil},
		{"…up to a limit", enough, 2,
			script{outcomes: []balancer.Outcome{refused, refused, refused, refused, refused}},
			"try try try try try", refused, MaxTries, nil},
		{"…and unless there is no retry", enough, 1, script{outcomes: []balancer.Outcome{refused}}, "try", refused, 1, nil},
		{"no peer", 0, 3, script{}, "", balancer.Outcome{}, 0, balancer.ErrNoPeers},
		{"no other peer", 1, 3, script{outcomes: []balancer.Outcome{reset}}, "try", reset, 1, balancer.ErrAllTried},

		{"denied", enough, 3, script{outcomes: []balancer.Outcome{denied}}, "try", denied, 1, nil},

		{"suspected, left", enough, 2, script{outcomes: []balancer.Outcome{suspected(ok), ok}}, "try leave try", ok, 2, nil},
		{"what was left does not count", enough, 2, script{outcomes: []balancer.Outcome{suspected(ok), reset, ok}}, "try leave try try", ok, 3, nil},
		{"suspected for a while, left, and the other one fails", 2, 2,
			script{outcomes: []balancer.Outcome{suspected(ok), reset, ok}}, "try leave try try 0", ok, 3, nil},
		{"suspected for a while, left, and the other one is suspected", 2, 2,
			script{outcomes: []balancer.Outcome{suspected(ok), suspected(ok), ok}}, "try leave try leave try 0", ok, 3, nil},
		{"suspected, without another peer", 1, 2, script{outcomes: []balancer.Outcome{suspected(ok)}}, "try stay", ok, 1, nil},
		{"as many as allowed", enough + 2, 2,
			script{outcomes: []balancer.Outcome{suspected(ok), suspected(ok), suspected(ok), suspected(ok), suspected(reset)}},
			"try leave try leave try leave try leave try stay", reset, MaxTries, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			service := &route.Service{Name: "star", Pool: pool(t, test.peers), Retry: route.Retry{Attempts: test.attempts}}
			verify.Equal(t, test.x.run(service), result{test.want, test.tries, test.err, test.calls}, "the end")
			for _, p := range service.Pool.Snapshot().All {
				verify.Equal(t, p.Inflight(), 0, "tries of a peer have no end")
			}
		})
	}
}

// A request that has failed everywhere else goes to a peer whose checks fail. None leaves its peer
// for such a one.
func TestRunAtAFailingPeer(t *testing.T) {
	for _, test := range []struct {
		outcomes []balancer.Outcome
		want     result
	}{
		{[]balancer.Outcome{refused, ok}, result{ok, 2, nil, "try try"}},
		{[]balancer.Outcome{reset, reset}, result{reset, 2, nil, "try try"}},
		{[]balancer.Outcome{suspected(ok)}, result{ok, 1, nil, "try stay"}},
		{[]balancer.Outcome{refused, suspected(ok)}, result{ok, 2, nil, "try try stay"}},
	} {
		p := balancer.NewPool("star", balancertest.Complete(balancer.Options{PanicThreshold: .5}))
		defer p.Close()
		p.Apply([]discovery.Instance{{Service: "star", ID: "0", Address: "10.0.0.1", Port: 1, Weight: 1}, {Service: "star", ID: "1", Address: "10.0.0.1", Port: 2, Weight: 1}})
		all := p.Snapshot().All
		p.SetReasons(balancer.ReasonActive, balancer.Verdict{Peer: all[1], Down: true})
		x := script{outcomes: test.outcomes}
		verify.Equal(t, x.run(&route.Service{Name: "star", Pool: p, Retry: route.Retry{Attempts: 2}}), test.want, "the end")
		verify.Equal(t, x.peers[0], all[0], "the first peer")
	}
}

func TestMayLeave(t *testing.T) {
	for _, test := range []struct {
		attempts, tries int
		want            bool
	}{{1, 1, false}, {2, 1, true}, {2, MaxTries - 1, true}, {2, MaxTries, false}} {
		l := Loop{Tries: test.tries, service: &route.Service{Retry: route.Retry{Attempts: test.attempts}}}
		verify.Equal(t, l.MayLeave(), test.want, "%d attempts, %d tries", test.attempts, test.tries)
	}
	// A copy for a mirror is tried without Run: no other try follows.
	verify.That(t, !new(Loop).MayRetry() && !new(Loop).MayLeave(), "another try may follow without Run")
}

// A first peer is waited for where there is none, and a connection to one where all are in use:
// each as long as the service says, for a retry as for a first try. One of the peers is busy.
func TestRunWaits(t *testing.T) {
	const connection, peer = 2 * time.Second, 3 * time.Second
	nothing := func(*balancer.Pool, balancer.Token) {}
	becomesFree := func(_ *balancer.Pool, held balancer.Token) {
		time.AfterFunc(time.Second, func() { held.Done(ok) })
	}
	for _, test := range []struct {
		name  string
		peers int
		event func(p *balancer.Pool, held balancer.Token) // before the first try or, with two peers, in it
		calls string
		after time.Duration
		err   error
	}{
		{"no peer", 0, nothing, "wait 3s", peer, balancer.ErrNoPeers},
		{"all busy", 1, nothing, "wait 2s", connection, balancer.ErrConnectionsSaturated},
		{"one becomes free", 1, becomesFree, "wait 2s try", time.Second, nil},
		{"the busy one leaves", 1, func(p *balancer.Pool, _ balancer.Token) {
			time.AfterFunc(time.Second, func() { p.Apply(nil) })
		}, "wait 2s wait 3s", time.Second + peer, balancer.ErrNoPeers},
		{"a retry, one becomes free", 2, becomesFree, "try wait 2s try", time.Second, nil},
		{"a retry, none does", 2, nothing, "try wait 2s", connection, balancer.ErrConnectionsSaturated},
		{"a retry, a peer comes", 2, func(p *balancer.Pool, _ balancer.Token) {
			set := []discovery.Instance{{Service: "star", ID: "later", Address: "10.0.0.1", Port: 9, Weight: 1}}
			p.Apply(nil)
			time.AfterFunc(time.Second, func() { p.Apply(set) })
		}, "try wait 3s try", time.Second, nil},
		{"a retry, none comes", 2, func(p *balancer.Pool, _ balancer.Token) { p.Apply(nil) }, "try wait 3s", peer, balancer.ErrNoPeers},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := limited(t, test.peers, oneEach)
				held, _ := p.Pick(new(balancer.Query))
				service := &route.Service{Pool: p, WaitForPeer: peer, ConnectionWait: connection, Retry: route.Retry{Attempts: 3}}
				x := script{outcomes: []balancer.Outcome{ok}}
				if test.peers == 2 {
					x.outcomes = []balancer.Outcome{refused, ok}
					x.onTry = func() { x.onTry = nil; test.event(p, held) }
				} else {
					test.event(p, held)
				}
				start := time.Now()
				got := x.run(service)
				verify.That(t, got.err == test.err && got.calls == test.calls && time.Since(start) == test.after,
					"%+v after %v; want %v, %q after %v", got, time.Since(start), test.err, test.calls, test.after)
			})
		})
	}
}

// A request that has waited for its first connection, which could not be made, waits for what is
// left of the time for the next one.
func TestRetryWaitsForWhatIsLeft(t *testing.T) {
	for _, test := range []struct {
		free  time.Duration // when the second peer is
		after time.Duration
		calls string
		err   error
	}{
		{1500 * time.Millisecond, 1500 * time.Millisecond, "wait 2s try wait 1.5s try", nil},
		{time.Minute, 2 * time.Second, "wait 2s try wait 1.5s", balancer.ErrConnectionsSaturated},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := limited(t, 2, oneEach)
			for _, free := range []time.Duration{500 * time.Millisecond, test.free} {
				held := verify.Result(p.Pick(new(balancer.Query))).Must(t)
				timer := time.AfterFunc(free, func() { held.Done(ok) })
				defer func() {
					if timer.Stop() {
						held.Done(ok)
					}
				}()
			}
			service := &route.Service{Pool: p, ConnectionWait: 2 * time.Second, Retry: route.Retry{Attempts: 3}}
			x, start := script{outcomes: []balancer.Outcome{refused, ok}}, time.Now()
			got := x.run(service)
			verify.That(t, got.err == test.err && got.calls == test.calls && time.Since(start) == test.after,
				"%+v after %v; want %v, %q after %v", got, time.Since(start), test.err, test.calls, test.after)
		})
	}
}

// A request whose only peer is suspected moves to one that comes later: Await gets a channel
// that tells of it, also if it came before Await.
func TestSuspectedPeerIsLeftForALaterOne(t *testing.T) {
	p := pool(t, 1)
	service := &route.Service{Name: "star", Pool: p, Retry: route.Retry{Attempts: 2}}
	x := script{outcomes: []balancer.Outcome{suspected(ok), ok}}
	x.onStay = func(changed <-chan struct{}) bool {
		set := p.Snapshot().All[0]
		p.Apply([]discovery.Instance{set.Instance(), {Service: "star", ID: "later", Address: "10.0.0.1", Port: 9, Weight: 1}})
		select {
		case <-changed:
		default:
			t.Error("the peer that came later does not end the wait")
		}
		return true
	}
	verify.Equal(t, x.run(service), result{ok, 2, nil, "try stay leave try"}, "the end")
}

// A request that waits for a peer gets the one that it has left, as soon as this is well again, and
// also where it is the whole group of the request, and the fallback has nobody.
func TestPeerThatWasLeftIsWaitedFor(t *testing.T) {
	for _, grouped := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p, query := pool(t, 2), new(balancer.Query)
			if grouped {
				one := balancer.GroupSelector{Name: "one", Selector: balancer.Selector{Tags: []string{"0"}}}
				p.Reconfigure(balancertest.Complete(balancer.Options{Groups: []balancer.GroupSelector{one}, Limits: balancer.Limits{Pending: 1}}))
				query.Group, query.Fallback = p.Group("one").ID(), p.Group(balancer.RestGroup).ID()
			}
			service := &route.Service{Name: "star", Pool: p, WaitForPeer: 3 * time.Second, Retry: route.Retry{Attempts: 3}}
			x := script{outcomes: []balancer.Outcome{suspected(ok), reset, ok}}
			x.onTry = func() {
				if x.Tries != 2 {
					return
				}
				// Now neither may get a request.
				well := []discovery.Instance{x.peers[0].Instance()}
				critical := []discovery.Instance{x.peers[0].Instance(), x.peers[1].Instance()}
				for i := range critical {
					critical[i].Status, critical[i].Weight = discovery.StatusCritical, 0
				}
				if grouped {
					well = append(well, critical[1])
				}
				p.Apply(critical)
				time.AfterFunc(time.Second, func() { p.Apply(well) })
			}
			start := time.Now()
			verify.Equal(t, x.runWith(service, query), result{ok, 3, nil, "try leave try wait 3s try 0"}, "the end")
			verify.Equal(t, time.Since(start), time.Second, "the wait")
		})
	}
}

// Also after a reload has removed the service, as long as its pool still gives peers.
func TestPeerOfARemovedServiceThatWasLeftIsTriedAgain(t *testing.T) {
	p := pool(t, 2)
	service := &route.Service{Name: "star", Pool: p, Retry: route.Retry{Attempts: 3}}
	x := script{outcomes: []balancer.Outcome{suspected(ok), reset, ok}}
	x.onTry = func() {
		if x.Tries == 2 {
			p.Retire(time.Hour)
		}
	}
	verify.Equal(t, x.run(service), result{ok, 3, nil, "try leave try try 0"}, "the end")
}

// If it fails then, it has failed like any other one.
func TestPeerThatWasLeftIsTriedOnceMore(t *testing.T) {
	service := &route.Service{Name: "star", Pool: pool(t, 2), Retry: route.Retry{Attempts: 5}}
	x := script{outcomes: []balancer.Outcome{suspected(ok), reset, reset, ok}}
	query := new(balancer.Query)
	verify.Equal(t, x.runWith(service, query), result{reset, 3, balancer.ErrAllTried, "try leave try try 0"}, "the end")
	verify.Equal(t, int(query.Tries), query.Tried.Len(), "tries that are a reason not to try a peer again")
}

// An exchange that panics gives back the places at its peers, each once.
func TestRunReleasesAfterPanic(t *testing.T) {
	leaving := new(script)
	leaving.onTry = func() { leaving.Leave() }
	for name, x := range map[string]*script{
		"in a try":                         {},
		"in a retry":                       {outcomes: []balancer.Outcome{reset}},
		"when it has picked the next peer": leaving,
	} {
		t.Run(name, func(t *testing.T) {
			service := &route.Service{Name: "star", Pool: pool(t, 3), Retry: route.Retry{Attempts: 3}}
			func() {
				defer func() {
					verify.That(t, recover() != nil, "the exchange did not panic")
				}()
				x.run(service) // the first of an empty list
			}()
			for _, p := range service.Pool.Snapshot().All {
				verify.Equal(t, p.Inflight(), 0, "tries of a peer are in flight")
			}
		})
	}
}
