package proof_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/route/places"
	"sluice/test/balancertest"
	"sluice/test/proof"
	"sluice/test/verify"
)

// liar is a pool whose witness is told what the test says, so that the pool seems to break the
// rules.
type liar struct {
	*balancer.Pool
	proof   *proof.Proof
	told    balancer.Witness
	records map[*balancer.Peer]balancer.Record
}

func (l *liar) Joined(p *balancer.Peer, before bool, against balancer.Reason) balancer.Record {
	r := l.told.Joined(p, before, against)
	l.records[p] = r
	return r
}

// deaf hears of peers and options only.
type deaf struct{ *liar }

func (d deaf) Changing()                                        {}
func (d deaf) Configured(o *balancer.Options)                   { d.told.Configured(o) }
func (d deaf) Applied([]discovery.Instance, int64)              {}
func (d deaf) Judged(balancer.Reason, []balancer.Verdict)       {}
func (d deaf) Ordered(func(discovery.Instance) balancer.Orders) {}
func (d deaf) Retired(*balancer.Peer, bool)                     {}
func (d deaf) Closed()                                          {}

func instances() []discovery.Instance {
	var set []discovery.Instance
	for n := range 4 {
		i := discovery.Instance{Service: "star", ID: fmt.Sprintf("star-%d", n), Node: "n", Address: "10.0.0.1", Port: 80 + n, Weight: 1}
		if n < 2 {
			i.Tags = []string{"main"}
		}
		set = append(set, i)
	}
	return set
}

// newLiar returns a pool with four peers, the first two with the tag main, of which the witness
// knows, a second ago.
func newLiar(t *testing.T, o balancer.Options) *liar {
	l := &liar{records: make(map[*balancer.Peer]balancer.Record)}
	l.proof = proof.New(nil)
	o.NewWitness = func(p *balancer.Pool) balancer.Witness {
		l.told = l.proof.Witness(p)
		return deaf{l}
	}
	l.Pool = balancer.NewPool("star", balancertest.Complete(o))
	l.Apply(instances())
	l.told.Applied(instances(), balancer.Now())
	time.Sleep(time.Second)
	return l
}

func (l *liar) use(t *testing.T, q balancer.Query) balancer.Token {
	return verify.Result(l.Pick(&q)).Must(t)
}

func (l *liar) useLater(t *testing.T) {
	time.Sleep(time.Second)
	l.use(t, balancer.Query{}).Done(ok)
}

// played is an attempt that the witness is told of.
func (l *liar) played(p *balancer.Peer, q balancer.Query) {
	a := balancer.Attempt{Start: balancer.Now()}
	l.records[p].Picked(a, l.Snapshot(), q)
	l.records[p].Done(a)
}

// expect: these kinds, and no others, were violated so often.
func (l *liar) expect(t *testing.T, want map[proof.Kind]int) {
	t.Helper()
	synctest.Wait() // timers report too
	for k := range proof.Kind(proof.NumKinds) {
		verify.Equal(t, int(l.proof.Total(k)), want[k], "violations of kind %s, %q", k, l.proof.Violations())
	}
	verify.Equal(t, len(l.proof.Violations()), len(want), "reports %q", l.proof.Violations())
}

var ok = balancer.Outcome{Class: balancer.OutcomeOK, Status: 200}

func TestEachRuleIsChecked(t *testing.T) {
	tiers := balancer.Options{Tiers: []balancer.Selector{{Tags: []string{"main"}}}}
	groups := balancer.Options{Groups: []balancer.GroupSelector{{Name: "main", Selector: balancer.Selector{Tags: []string{"main"}}}}}
	eject := func(t *testing.T, l *liar) {
		for _, p := range l.Snapshot().All {
			l.told.Judged(balancer.ReasonEjected, []balancer.Verdict{{Peer: p, Down: true}})
		}
		l.useLater(t)
	}
	for _, c := range []struct {
		name    string
		options balancer.Options
		play    func(*testing.T, *liar)
		want    map[proof.Kind]int
	}{
		{"removed", balancer.Options{}, func(t *testing.T, l *liar) {
			l.told.Applied(nil, balancer.Now())
			time.Sleep(100 * time.Millisecond)
			l.use(t, balancer.Query{}).Done(ok) // within the grace
			time.Sleep(time.Millisecond)
			l.use(t, balancer.Query{}).Done(ok)
			l.use(t, balancer.Query{}).Done(ok)
		}, map[proof.Kind]int{proof.Removed: 2}},
		{"critical", balancer.Options{}, func(t *testing.T, l *liar) {
			set := instances()
			for i := range set {
				set[i].Status = discovery.StatusCritical
			}
			l.told.Applied(set, balancer.Now())
			l.useLater(t)
		}, map[proof.Kind]int{proof.Ineligible: 1}},
		{"drained", balancer.Options{}, func(t *testing.T, l *liar) {
			l.told.Ordered(func(discovery.Instance) balancer.Orders { return balancer.Orders{Drain: true} })
			l.useLater(t)
		}, map[proof.Kind]int{proof.Ineligible: 1}},
		{"ejected", balancer.Options{}, eject, map[proof.Kind]int{proof.Ineligible: 1}},
		{"ejected, in panic", balancer.Options{PanicThreshold: .5}, eject, nil},
		{"a pick before the removal", balancer.Options{}, func(t *testing.T, l *liar) {
			p := l.Snapshot().All[0]
			start := balancer.Now()
			time.Sleep(time.Second)
			l.told.Applied(nil, balancer.Now())
			time.Sleep(time.Second) // the goroutine stands still between pick and write
			a := balancer.Attempt{Start: start}
			l.records[p].Picked(a, l.Snapshot(), balancer.Query{})
			l.records[p].Done(a)
		}, nil},
		{"tier", tiers, func(t *testing.T, l *liar) {
			l.played(l.Snapshot().All[3], balancer.Query{})
			var q balancer.Query
			q.Tried.Add(l.Snapshot().All[0])
			q.Tried.Add(l.Snapshot().All[1])
			l.use(t, q).Done(ok)
		}, map[proof.Kind]int{proof.Tier: 1}},
		{"group", groups, func(t *testing.T, l *liar) {
			main, rest := l.Group("main").ID(), l.Group(balancer.RestGroup).ID()
			l.use(t, balancer.Query{Group: main}).Done(ok)
			for _, q := range []balancer.Query{{Group: main}, {Group: main, Fallback: rest}, {Group: rest}} {
				l.played(l.Snapshot().All[3], q)
			}
		}, map[proof.Kind]int{proof.Group: 2}},
		{"tried", balancer.Options{}, func(t *testing.T, l *liar) {
			var q balancer.Query
			q.Tried.Add(l.Snapshot().All[2])
			l.played(l.Snapshot().All[2], q)
			q.Tries = 2 // and knows of one peer
			l.use(t, q).Done(ok)
		}, map[proof.Kind]int{proof.Tried: 2}},
		{"limits", balancer.Options{Limits: balancer.Limits{PeerRequests: 2, Requests: 3, Retries: 1}}, func(t *testing.T, l *liar) {
			a, s := balancer.Attempt{Start: balancer.Now(), Counted: true}, l.Snapshot()
			for n := range 4 {
				l.records[s.All[n/2]].Picked(a, s, balancer.Query{})
			}
			a.Retry = true
			l.records[s.All[2]].Picked(a, s, balancer.Query{})
			l.records[s.All[2]].Picked(a, s, balancer.Query{})
			l.records[s.All[2]].Picked(a, s, balancer.Query{})
		}, map[proof.Kind]int{proof.Limit: 4 + 1 + 2}},
		{"retry budget", balancer.Options{RetryBudget: &balancer.RetryBudget{Ratio: .5, MinPerSecond: 1}}, func(t *testing.T, l *liar) {
			r, s := l.records[l.Snapshot().All[0]], l.Snapshot()
			first := balancer.Attempt{Start: balancer.Now()}
			for range 20 {
				r.Picked(first, s, balancer.Query{})
			}
			retry := func(n int) {
				for range n {
					r.Picked(balancer.Attempt{Start: balancer.Now(), Retry: true}, s, balancer.Query{})
				}
				time.Sleep(time.Second)
				r.Picked(balancer.Attempt{Start: balancer.Now()}, s, balancer.Query{})
			}
			retry(20) // the reserve of 10, and 10 for the requests
			retry(20)
		}, map[proof.Kind]int{proof.RetryBudget: 1}},
		{"retry budget of clients", balancer.Options{RetryBudget: &balancer.RetryBudget{MinPerSecond: 1}}, func(t *testing.T, l *liar) {
			r, s := l.records[l.Snapshot().All[0]], l.Snapshot()
			client := balancer.Query{Block: places.BlockOf(netip.MustParseAddr("192.0.2.1"))}
			retry := func(n int) {
				for range n {
					r.Picked(balancer.Attempt{Start: balancer.Now(), Retry: true}, s, client)
				}
				for range 10 { // then the reserve of clients begins anew
					time.Sleep(time.Second)
					r.Picked(balancer.Attempt{Start: balancer.Now()}, s, balancer.Query{})
				}
			}
			retry(20) // the budget of 10, and the reserve of 10
			retry(16) // the reserve, and what the budget has got again
			retry(24) // more than it has got again
		}, map[proof.Kind]int{proof.RetryBudget: 1}},
		{"token", balancer.Options{}, func(t *testing.T, l *liar) {
			a, s := balancer.Attempt{Start: balancer.Now()}, l.Snapshot()
			l.records[s.All[0]].Picked(a, s, balancer.Query{})
			l.records[s.All[0]].Done(a)
			l.records[s.All[0]].Done(a)
		}, map[proof.Kind]int{proof.TokenKind: 1}},
		{"in flight", balancer.Options{}, func(t *testing.T, l *liar) {
			token := l.use(t, balancer.Query{})
			l.told.Retired(token.Peer, false)
			token.Done(ok)
		}, map[proof.Kind]int{proof.InFlight: 1}},
		{"cut early", balancer.Options{}, func(t *testing.T, l *liar) {
			token := l.use(t, balancer.Query{})
			l.told.Applied(nil, balancer.Now())
			time.Sleep(time.Second)
			l.told.Retired(token.Peer, true)
			token.Done(ok)
		}, map[proof.Kind]int{proof.InFlight: 1}},
		{"cut as it leaves", balancer.Options{}, func(t *testing.T, l *liar) {
			token := l.use(t, balancer.Query{})
			l.told.Retired(token.Peer, true)
			token.Done(ok)
		}, map[proof.Kind]int{proof.InFlight: 1}},
		{"in flight for ever", balancer.Options{DrainTimeout: time.Minute}, func(t *testing.T, l *liar) {
			token := l.use(t, balancer.Query{})
			l.told.Applied(nil, balancer.Now())
			time.Sleep(2 * time.Minute)
			l.told.Retired(token.Peer, true)
			time.Sleep(2 * time.Minute)
			token.Done(ok)
		}, map[proof.Kind]int{proof.InFlight: 1}},
		{"a closed pool counts", balancer.Options{Limits: balancer.Limits{Requests: 5}}, func(t *testing.T, l *liar) {
			token := l.use(t, balancer.Query{})
			l.told.Closed()
			time.Sleep(30 * time.Second)
			token.Done(ok)
			time.Sleep(time.Hour)
			token = l.use(t, balancer.Query{})
			l.told.Closed()
			time.Sleep(time.Hour)
			token.Done(ok)
		}, map[proof.Kind]int{proof.InFlight: 1}},
		{"outcomes", balancer.Options{}, func(t *testing.T, l *liar) {
			l.played(l.Snapshot().All[0], balancer.Query{})
			l.told.Retired(l.Snapshot().All[0], false)
		}, map[proof.Kind]int{proof.Outcomes: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLiar(t, c.options)
				c.play(t, l)
				l.expect(t, c.want)
			})
		})
	}
}

// A pick that comes when a snapshot is stored, and before the witness knows why, breaks no rule.
func TestPickDuringAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := proof.New(func(text string) { t.Error(text) })
		var p *balancer.Pool
		picks := 0
		o := balancertest.Complete(balancer.Options{
			Tiers: []balancer.Selector{{Tags: []string{"main"}}}, NewWitness: rules.Witness, Limits: balancer.Limits{PeerRequests: 1},
			Notify: func(balancer.Event) { // with the mutex of the pool held
				for range 8 {
					if token, err := p.Pick(nil); err == nil {
						picks++
						defer token.Done(balancer.Outcome{})
					}
				}
			},
		})
		p = balancer.NewPool("star", o)
		use := func() {
			time.Sleep(time.Second)
			if token, err := p.Pick(nil); err == nil {
				token.Done(balancer.Outcome{})
			}
		}
		all := instances()
		p.Apply(all)
		use()
		hold := verify.Result(p.Pick(nil)).Must(t) // so that its peer returns from a drain
		p.Apply(slices.DeleteFunc(instances(), func(i discovery.Instance) bool { return i.Key() == hold.Peer.ID }))
		use()
		p.Apply(all)
		use()
		hold.Done(balancer.Outcome{})
		for _, down := range []bool{true, false} {
			var verdicts []balancer.Verdict
			for _, peer := range p.Snapshot().All {
				verdicts = append(verdicts, balancer.Verdict{Peer: peer, Down: down})
			}
			p.SetReasons(balancer.ReasonEjected, verdicts...)
			use()
			p.SetOrders(func(discovery.Instance) balancer.Orders { return balancer.Orders{Drain: down} })
			use()
		}
		o.Limits, o.ActiveOverridesRegistry = balancer.Limits{}, true // which is an event of each peer that is critical
		all = instances()
		all[3].Status = discovery.StatusCritical
		p.Apply(all)
		use()
		p.Reconfigure(o)
		use()
		verify.That(t, picks > 20, "%d picks", picks)
	})
}

// A peer that drained as it left, and returned meanwhile, is cut at once where demoted leaders are.
func TestALeaderThatReturnedIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := proof.New(nil)
		options := func(cut bool) balancer.Options {
			return balancertest.Complete(balancer.Options{OneLeader: true, CutRemoved: cut, DrainTimeout: time.Hour, NewWitness: told.Witness})
		}
		pool := balancer.NewPool("star", options(false))
		leader := instances()[:1]
		pool.Apply(leader)
		held := verify.Result(pool.Pick(nil)).Must(t)
		pool.Apply(nil)
		pool.Apply(leader)
		pool.Reconfigure(options(true))
		pool.Apply(nil)
		verify.Equal(t, len(pool.Snapshot().Draining), 0, "peers that drain")
		held.Done(ok)
		time.Sleep(time.Hour)
		synctest.Wait()
		verify.Equal(t, len(told.Violations()), 0, "reports %q", told.Violations())
	})
}
