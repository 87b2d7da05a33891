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
	"sluice/test/balancertest"
	"sluice/test/verify"
)

var (
	ok         = balancer.Outcome{Class: balancer.OutcomeOK}
	reset      = balancer.Outcome{Class: balancer.OutcomeReset}
	refused    = balancer.Outcome{Class: balancer.OutcomeConnectFailure}
	gone       = balancer.Outcome{Class: balancer.OutcomeClientGone}
	superseded = balancer.Outcome{Class: balancer.OutcomeSuperseded}
	denied     = balancer.Outcome{Class: balancer.OutcomeDenied}

	impatient = Result{Kind: Impatient}
	suspected = Result{Kind: Suspected}
	answered  = Result{Kind: Answered}
)

// An event is what an Await returns: of the peer that was asked as the nth, from 0.
type event struct {
	peer int
	Result
}

// script is an exchange that plays results, one after the other, and notes what
// it is asked for.
type script struct {
	tries   []Result
	events  []event            // of Await
	answers []balancer.Outcome // of Receive
	started bool
	final   bool // cannot be sent again
	gone    bool // its client has left

	onTry   func()                        // called by Try
	onAwait func(changed <-chan struct{}) // called by Await
	calls   []string
	peers   []*balancer.Peer
	tokens  []balancer.Token
}

// next takes the first element of a list.
func next[T any](list *[]T) T {
	first := (*list)[0]
	*list = (*list)[1:]
	return first
}

func (s *script) Try(t balancer.Token) Result {
	s.note("try", t)
	if s.onTry != nil {
		s.onTry()
	}
	return next(&s.tries)
}

// note notes a call, with the number of the peer if it was asked before.
func (s *script) note(call string, t balancer.Token) {
	if i := slices.Index(s.peers, t.Peer); i >= 0 {
		call += fmt.Sprint(" ", i)
	}
	s.calls, s.peers, s.tokens = append(s.calls, call), append(s.peers, t.Peer), append(s.tokens, t)
}

func (s *script) Ask(t balancer.Token) { s.note("ask", t) }

func (s *script) Await(changed <-chan struct{}) (balancer.Token, Result) {
	s.calls = append(s.calls, "await")
	if s.onAwait != nil {
		s.onAwait(changed)
	}
	e := next(&s.events)
	return s.tokens[e.peer], e.Result
}

func (s *script) Receive(t balancer.Token) balancer.Outcome {
	s.calls = append(s.calls, fmt.Sprint("receive ", slices.Index(s.peers, t.Peer)))
	return next(&s.answers)
}

func (s *script) Leave(t balancer.Token) balancer.Outcome {
	s.calls = append(s.calls, fmt.Sprint("leave ", slices.Index(s.peers, t.Peer)))
	return superseded
}

func (s *script) Replayable() bool { return !s.final }
func (s *script) Answered() bool   { return false }
func (s *script) Started() bool    { return s.started }

func (s *script) Waiting(timeout time.Duration) (context.Context, context.CancelFunc) {
	s.calls = append(s.calls, fmt.Sprint("wait ", timeout))
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	if s.gone {
		cancel()
	}
	return ctx, cancel
}

// pool returns one with that many peers.
func pool(t *testing.T, peers int) *balancer.Pool {
	p := verify.Result(balancer.NewPool("star", balancertest.Complete(balancer.Options{}))).Must(t)
	t.Cleanup(p.Close)
	var set []discovery.Instance
	for i := range peers {
		set = append(set, discovery.Instance{Service: "star", ID: fmt.Sprint(i), Address: "10.0.0.1", Port: 1 + i, Weight: 1})
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
		{"answered", enough, 3, script{tries: []Result{Ended(ok)}}, "try", ok, 1, nil},
		{"retried", enough, 3, script{tries: []Result{Ended(reset), Ended(ok)}}, "try try", ok, 2, nil},
		{"not replayable", enough, 3, script{final: true, tries: []Result{Ended(reset)}}, "try", reset, 1, nil},
		{"started", enough, 3, script{started: true, tries: []Result{Ended(reset)}}, "try", reset, 1, nil},
		{"as often as allowed", enough, 2, script{tries: []Result{Ended(reset), Ended(reset)}}, "try try", reset, 2, nil},
		{"connect failures do not count", enough, 2,
			script{tries: []Result{Ended(refused), Ended(refused), Ended(refused), Ended(reset), Ended(ok)}},
			"try try try try try", ok, 5, nil},
		{"…up to a limit", enough, 2,
			script{tries: []Result{Ended(refused), Ended(refused), Ended(refused), Ended(refused), Ended(refused)}},
			"try try try try try", refused, MaxTries, nil},
		{"…and unless there is no retry", enough, 1, script{tries: []Result{Ended(refused)}}, "try", refused, 1, nil},
		{"no peer", 0, 3, script{}, "", balancer.Outcome{}, 0, balancer.ErrNoPeers},
		{"no other peer", 1, 3, script{tries: []Result{Ended(reset)}}, "try", reset, 1, balancer.ErrAllTried},

		{"impatient, without another peer", 1, 1,
			script{tries: []Result{impatient}, events: []event{{0, answered}}, answers: []balancer.Outcome{ok}}, "try await receive 0", ok, 1, nil},
		{"hedged, first answers", enough, 1,
			script{tries: []Result{impatient}, events: []event{{0, answered}}, answers: []balancer.Outcome{ok}},
			"try ask await leave 1 receive 0", ok, 2, nil},
		{"hedged, second answers", enough, 1,
			script{tries: []Result{impatient}, events: []event{{1, answered}}, answers: []balancer.Outcome{ok}},
			"try ask await leave 0 receive 1", ok, 2, nil},
		{"hedged, first fails", enough, 1,
			script{tries: []Result{impatient}, events: []event{{0, Ended(reset)}, {1, answered}}, answers: []balancer.Outcome{ok}},
			"try ask await await receive 1", ok, 2, nil},
		{"hedged, both fail", enough, 2,
			script{tries: []Result{impatient, Ended(ok)}, events: []event{{1, Ended(refused)}, {0, Ended(reset)}}}, "try ask await await try", ok, 3, nil},
		{"hedged, the answer breaks, without a third peer", 2, 2,
			script{tries: []Result{impatient, Ended(ok)}, events: []event{{1, answered}}, answers: []balancer.Outcome{reset}},
			"try ask await leave 0 receive 1 try 0", ok, 3, nil},
		{"hedged, the answer breaks", enough, 2,
			script{tries: []Result{impatient, Ended(ok)}, events: []event{{1, answered}}, answers: []balancer.Outcome{reset}},
			"try ask await leave 0 receive 1 try", ok, 3, nil},
		{"hedged, one is denied", enough, 3, // it may stand in for the service of the other
			script{tries: []Result{impatient}, events: []event{{1, Ended(denied)}, {0, answered}}, answers: []balancer.Outcome{ok}},
			"try ask await await receive 0", ok, 2, nil},
		{"hedged, both are denied", enough, 3,
			script{tries: []Result{impatient}, events: []event{{1, Ended(denied)}, {0, Ended(denied)}}}, "try ask await await", denied, 2, nil},
		{"denied", enough, 3, script{tries: []Result{Ended(denied)}}, "try", denied, 1, nil},
		{"hedged, the client goes", enough, 3,
			script{tries: []Result{impatient}, events: []event{{0, Ended(gone)}}}, "try ask await leave 1", gone, 2, nil},
		{"hedged, both suspected", enough, 2,
			script{tries: []Result{impatient}, events: []event{{0, suspected}, {1, suspected}, {3, answered}}, answers: []balancer.Outcome{ok}},
			"try ask await leave 0 ask await leave 1 ask await leave 2 receive 3", ok, 4, nil},
		{"hedged, suspected, without a third peer", 2, 2,
			script{tries: []Result{impatient}, events: []event{{0, suspected}, {0, answered}}, answers: []balancer.Outcome{ok}},
			"try ask await await leave 1 receive 0", ok, 2, nil},
		{"as many as allowed", enough + 2, 2,
			script{tries: []Result{impatient}, events: []event{{0, suspected}, {1, suspected}, {2, suspected}, {3, suspected}, {4, Ended(reset)}, {3, Ended(reset)}}},
			"try ask await leave 0 ask await leave 1 ask await leave 2 ask await await await", reset, MaxTries, nil},

		{"suspected, left", enough, 2,
			script{tries: []Result{suspected}, events: []event{{1, answered}}, answers: []balancer.Outcome{ok}}, "try leave 0 ask await receive 1", ok, 2, nil},
		{"what was left does not count", enough, 2,
			script{tries: []Result{suspected, Ended(ok)}, events: []event{{1, Ended(reset)}}}, "try leave 0 ask await try", ok, 3, nil},
		{"suspected for a while, left, and the other one fails", 2, 2,
			script{tries: []Result{suspected, Ended(ok)}, events: []event{{1, Ended(reset)}}}, "try leave 0 ask await try 0", ok, 3, nil},
		{"suspected for a while, left, and the other one is suspected", 2, 2,
			script{tries: []Result{suspected}, events: []event{{1, suspected}, {2, answered}}, answers: []balancer.Outcome{ok}},
			"try leave 0 ask await leave 1 ask 0 await receive 0", ok, 3, nil},
		{"suspected, without another peer", 1, 2,
			script{tries: []Result{suspected}, events: []event{{0, answered}}, answers: []balancer.Outcome{ok}}, "try await receive 0", ok, 1, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			service := &route.Service{Name: "star", Pool: pool(t, test.peers), Retry: route.Retry{Attempts: test.attempts}}
			o, tries, err := Run(service, new(balancer.Query), &test.x)
			verify.That(t, o == test.want && tries == test.tries && err == test.err, "got %v, %d tries, %v, want %v, %d tries, %v", o.Class, tries, err, test.want.Class, test.tries, test.err)
			verify.Equal(t, strings.Join(test.x.calls, " "), test.calls, "calls")
			for _, p := range service.Pool.Snapshot().All {
				verify.Equal(t, p.Inflight(), 0, "tries of a peer have no end")
			}
		})
	}
}

func TestPatience(t *testing.T) {
	service := &route.Service{Pool: pool(t, 1)}
	verify.Equal(t, Patience(service, 0, 0), 0, "without hedging")
	service.Retry.Hedge = route.NewHedge(route.Hedging{After: time.Second})
	verify.Equal(t, Patience(service, 0, 0), time.Second, "for the first try")
	verify.Equal(t, Patience(service, 1, 0), 0, "for the second try")
}

func TestMayLeave(t *testing.T) {
	for _, test := range []struct {
		attempts, tries int
		want            bool
	}{{1, 0, false}, {2, 0, true}, {2, MaxTries - 2, true}, {2, MaxTries - 1, false}} {
		service := &route.Service{Retry: route.Retry{Attempts: test.attempts}}
		verify.Equal(t, MayLeave(service, test.tries), test.want, "%d attempts, %d tries", test.attempts, test.tries)
	}
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
				p := pool(t, test.peers)
				verify.NoError(t, p.Reconfigure(balancertest.Complete(balancer.Options{Limits: balancer.Limits{PeerConnections: 1, Pending: 1}})))
				held, _ := p.Pick(new(balancer.Query))
				service := &route.Service{Pool: p, WaitForPeer: peer, ConnectionWait: connection, Retry: route.Retry{Attempts: 3}}
				x := script{tries: []Result{Ended(ok)}}
				if test.peers == 2 {
					x.tries = []Result{Ended(refused), Ended(ok)}
					x.onTry = func() { x.onTry = nil; test.event(p, held) }
				} else {
					test.event(p, held)
				}
				start := time.Now()
				_, _, err := Run(service, new(balancer.Query), &x)
				if calls := strings.Join(x.calls, " "); err != test.err || calls != test.calls || time.Since(start) != test.after {
					t.Errorf("%v, %q after %v; want %v, %q after %v", err, calls, time.Since(start), test.err, test.calls, test.after)
				}
			})
		})
	}
}

// A request that has waited for its first connection, which could not be made, waits for what is left of the time for the next one.
func TestRetryWaitsForWhatIsLeft(t *testing.T) {
	for _, test := range []struct {
		free  time.Duration // when the second peer is
		after time.Duration
		err   error
	}{{1500 * time.Millisecond, 1500 * time.Millisecond, nil}, {time.Minute, 2 * time.Second, balancer.ErrConnectionsSaturated}} {
		synctest.Test(t, func(t *testing.T) {
			p := pool(t, 2)
			verify.NoError(t, p.Reconfigure(balancertest.Complete(balancer.Options{Limits: balancer.Limits{PeerConnections: 1, Pending: 1}})))
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
			x, start := script{tries: []Result{Ended(refused), Ended(ok)}}, time.Now()
			_, _, err := Run(service, new(balancer.Query), &x)
			calls := "wait 2s try wait 1.5s"
			if test.err == nil {
				calls += " try"
			}
			verify.Equal(t, strings.Join(x.calls, " "), calls, "calls")
			verify.That(t, err == test.err && time.Since(start) == test.after, "%v after %v, want %v after %v", err, time.Since(start), test.err, test.after)
		})
	}
}

// A request whose only peer is suspected moves to one that comes later: Await gets a channel
// that tells of it, also if it came before Await.
func TestSuspectedPeerIsLeftForALaterOne(t *testing.T) {
	p := pool(t, 1)
	service := &route.Service{Name: "star", Pool: p, Retry: route.Retry{Attempts: 2}}
	x := script{tries: []Result{suspected}, events: []event{{0, suspected}, {1, answered}}, answers: []balancer.Outcome{ok}}
	x.onAwait = func(changed <-chan struct{}) {
		x.onAwait = nil
		set := p.Snapshot().All[0]
		p.Apply([]discovery.Instance{set.Instance(), {Service: "star", ID: "later", Address: "10.0.0.1", Port: 9, Weight: 1}})
		select {
		case <-changed:
		default:
			t.Error("the peer that came later does not end the wait")
		}
	}
	o, tries, err := Run(service, new(balancer.Query), &x)
	verify.That(t, o == ok && tries == 2 && err == nil, "got %v, %d tries, %v", o.Class, tries, err)
	verify.Equal(t, strings.Join(x.calls, " "), "try await leave 0 ask await receive 1", "calls")
}

// A request that waits for a peer gets the one that it has left, as soon as this is well again.
func TestPeerThatWasLeftIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, 2)
		service := &route.Service{Name: "star", Pool: p, WaitForPeer: 3 * time.Second, Retry: route.Retry{Attempts: 3}}
		x := script{tries: []Result{suspected, Ended(ok)}, events: []event{{1, Ended(reset)}}}
		x.onAwait = func(<-chan struct{}) { // now neither may get a request
			well := []discovery.Instance{x.peers[0].Instance()}
			critical := []discovery.Instance{x.peers[0].Instance(), x.peers[1].Instance()}
			for i := range critical {
				critical[i].Status, critical[i].Weight = discovery.StatusCritical, 0
			}
			p.Apply(critical)
			time.AfterFunc(time.Second, func() { p.Apply(well) })
		}
		start := time.Now()
		o, tries, err := Run(service, new(balancer.Query), &x)
		verify.That(t, o == ok && tries == 3 && err == nil, "got %v, %d tries, %v", o.Class, tries, err)
		verify.Equal(t, strings.Join(x.calls, " "), "try leave 0 ask await wait 3s try 0", "calls")
		verify.Equal(t, time.Since(start), time.Second, "the wait")
	})
}

// Also where it is the whole group of the request, and the fallback has nobody.
func TestPeerOfAGroupThatWasLeftIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, 2)
		one := balancer.GroupSelector{Name: "one", Match: func(i *discovery.Instance) bool { return i.ID == "0" }}
		verify.NoError(t, p.Reconfigure(balancertest.Complete(balancer.Options{Groups: []balancer.GroupSelector{one}, Limits: balancer.Limits{Pending: 1}})))
		service := &route.Service{Name: "star", Pool: p, WaitForPeer: 3 * time.Second, Retry: route.Retry{Attempts: 3}}
		x := script{tries: []Result{suspected, Ended(ok)}, events: []event{{1, Ended(reset)}}}
		x.onAwait = func(<-chan struct{}) {
			set := []discovery.Instance{x.peers[0].Instance(), x.peers[1].Instance()}
			well := set[0]
			for i := range set {
				set[i].Status, set[i].Weight = discovery.StatusCritical, 0
			}
			p.Apply(set)
			time.AfterFunc(time.Second, func() { p.Apply([]discovery.Instance{well, set[1]}) })
		}
		start := time.Now()
		query := &balancer.Query{Group: p.Group("one").ID(), Fallback: p.Group(balancer.RestGroup).ID()}
		o, tries, err := Run(service, query, &x)
		verify.That(t, o == ok && tries == 3 && err == nil, "got %v, %d tries, %v", o.Class, tries, err)
		verify.Equal(t, strings.Join(x.calls, " "), "try leave 0 ask await wait 3s try 0", "calls")
		verify.Equal(t, time.Since(start), time.Second, "the wait")
	})
}

// Also after a reload has removed the service, as long as its pool still gives peers.
func TestPeerOfARemovedServiceThatWasLeftIsTriedAgain(t *testing.T) {
	p := pool(t, 2)
	service := &route.Service{Name: "star", Pool: p, Retry: route.Retry{Attempts: 3}}
	x := script{tries: []Result{suspected, Ended(ok)}, events: []event{{1, Ended(reset)}}}
	x.onAwait = func(<-chan struct{}) { p.Retire(time.Hour) }
	o, tries, err := Run(service, new(balancer.Query), &x)
	verify.That(t, o == ok && tries == 3 && err == nil, "got %v, %d tries, %v", o.Class, tries, err)
	verify.Equal(t, strings.Join(x.calls, " "), "try leave 0 ask await try 0", "calls")
}

// If it fails then, it has failed like any other one.
func TestPeerThatWasLeftIsTriedOnceMore(t *testing.T) {
	service := &route.Service{Name: "star", Pool: pool(t, 2), Retry: route.Retry{Attempts: 5}}
	x := script{tries: []Result{suspected, Ended(reset), Ended(ok)}, events: []event{{1, Ended(reset)}}}
	query := new(balancer.Query)
	o, tries, err := Run(service, query, &x)
	verify.That(t, o == reset && tries == 3 && err == balancer.ErrAllTried, "got %v, %d tries, %v", o.Class, tries, err)
	verify.Equal(t, int(query.Tries), query.Tried.Len(), "tries that are a reason not to try a peer again")
	verify.Equal(t, strings.Join(x.calls, " "), "try leave 0 ask await try 0", "calls")
}

// An exchange that panics gives back the places at its peers, each once.
func TestRunReleasesAfterPanic(t *testing.T) {
	for name, x := range map[string]*script{
		"in a try":   {},
		"in a retry": {tries: []Result{Ended(reset)}},
		"in a race":  {tries: []Result{impatient}},
	} {
		t.Run(name, func(t *testing.T) {
			service := &route.Service{Name: "star", Pool: pool(t, 3), Retry: route.Retry{Attempts: 3}}
			func() {
				defer func() {
					verify.That(t, recover() != nil, "the exchange did not panic")
				}()
				_, _, _ = Run(service, new(balancer.Query), x) // next of an empty list
			}()
			for _, p := range service.Pool.Snapshot().All {
				verify.Equal(t, p.Inflight(), 0, "tries of a peer are in flight")
			}
		})
	}
}
