package release

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/operator"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/configtest"
	"sluice/test/verify"
)

// split is a service star of two instances with the tag v1 and one with v2, whose group canary has
// a split with a judge. It applies the configuration as the gateway does.
type split struct {
	t       *testing.T
	pool    *balancer.Pool
	shares  *Shares
	judge   *Judge
	events  *events.Feed
	clients uint32
	key     string // of the split

	configured, inUse *config.Config
}

// newSplit returns one whose canary has 50 % in the configuration.
func newSplit(t *testing.T, settings string, o Options) *split {
	t.Helper()
	s := &split{t: t, events: events.New(), key: "header X-User"}
	o.Events, o.Log = s.events, zerolog.Nop()
	o.Settled, o.Changed = func() bool { return true }, func() {}
	if o.Replica == nil {
		o.Replica = func() string { return "a" }
	}
	s.shares = NewShares(o)
	s.shares.Restore(operator.State[Share]{})
	s.judge = NewJudge(JudgeOptions{
		Shares: s.shares, Config: func() *config.Config { return s.inUse },
		Pool:   func(string) *balancer.Pool { return s.pool },
		Events: s.events, Log: zerolog.Nop(),
	})
	s.judge.WarmUp = 0
	pool := balancer.NewPool("star", balancertest.Complete(balancer.Options{
		Groups: []balancer.GroupSelector{{Name: "canary", Selector: balancer.Selector{Tags: []string{"v2"}}}},
	}))
	t.Cleanup(pool.Close)
	s.pool = pool
	var set []discovery.Instance
	for n, tag := range []string{"v1", "v1", "v2"} {
		set = append(set, discovery.Instance{Service: "star", ID: fmt.Sprint(n), Address: "127.0.0.1", Port: n + 1, Weight: 1, Status: discovery.StatusPassing, Tags: []string{tag}})
	}
	pool.Apply(set)
	s.configure("50%", settings)
	return s
}

// inSplit runs a test of a split in virtual time.
func inSplit(t *testing.T, settings string, do func(t *testing.T, s *split)) {
	synctest.Test(t, func(t *testing.T) { do(t, newSplit(t, settings, Options{})) })
}

// configure applies another configuration.
func (s *split) configure(share, settings string) {
	s.t.Helper()
	s.configured = configtest.Must(s.t, fmt.Sprintf(`
services:
  star:
    peers: ["127.0.0.1:1"]
    groups: { canary: { tags: [v2] } }
    split: { canary: %s, key: %s }
    judge: { %s }
routes: [{ service: star }]
`, share, s.key, settings))
	s.apply()
}

// apply applies the configuration with the shares that are given now.
func (s *split) apply() {
	s.inUse = s.shares.ApplyTo(s.configured)
	s.shares.Applied(s.configured, time.Now())
}

// look makes the judge look at a time from now, and applies what it does.
func (s *split) look(later time.Duration) State {
	s.t.Helper()
	s.judge.JudgeAll(time.Now().Add(later))
	s.apply()
	return s.state()
}

func (s *split) state() State {
	s.t.Helper()
	states := s.judge.States()
	verify.Require(s.t, len(states) == 1, "%d splits", len(states))
	return states[0]
}

// order is an order of an operator, which is applied.
func (s *split) order(o Order, want error) State {
	s.t.Helper()
	o.Service = "star"
	verify.Equal(s.t, s.judge.Order(o), want, "%+v", o)
	s.apply()
	return s.state()
}

// pick begins an attempt of a new client that the split has assigned to a group with the share in
// use.
func (s *split) pick(group string) balancer.Token {
	s.t.Helper()
	s.clients++
	assigned := route.Split{Judged: route.ShareMark(s.inUse.Services["star"].Split.Shares()[0].Size)}
	query := balancer.Query{Group: s.pool.Group(group).ID(), Client: assigned.JudgedClient(uint64(s.clients))}
	return verify.Result(s.pool.Pick(&query)).Must(s.t)
}

// attempts are attempts of n new clients that the split has assigned to a group.
func (s *split) attempts(n int, group string, status int, latency time.Duration) {
	s.t.Helper()
	for range n {
		token := s.pick(group)
		o := balancer.Outcome{Class: balancer.OutcomeOK, Status: status, Latency: latency}
		if status >= 500 {
			o.Class = balancer.OutcomeServerError
		}
		token.Done(o)
	}
}

// failing are failures of the canary that are enough for a verdict.
func (s *split) failing() { s.attempts(60, "canary", http.StatusInternalServerError, time.Millisecond) }

// A pool forgets a group that two configurations in a row lack. If all that happens between two
// looks, the judge counts the attempts on the new group.
func TestJudgeOfAGroupThatComesBackBetweenTwoLooks(t *testing.T) {
	s := newSplit(t, "step: 10m, act: rollback", Options{})
	s.look(0)
	with := balancertest.Complete(balancer.Options{Groups: []balancer.GroupSelector{{Name: "canary", Selector: balancer.Selector{Tags: []string{"v2"}}}}})
	for _, name := range []string{"a", "b"} {
		without := with
		without.Groups = []balancer.GroupSelector{{Name: name}}
		s.pool.Reconfigure(without)
	}
	s.pool.Reconfigure(with)
	s.look(0)
	s.attempts(200, "rest", http.StatusOK, time.Millisecond)
	s.failing()
	verify.Equal(t, s.look(0).Share, 0.0, "the share of a failing canary")
}

// A request without a key that fails at several peers was assigned once, so it is evidence once.
func TestRetriesOfARequestCountOnce(t *testing.T) {
	s := newSplit(t, "step: 10m", Options{})
	s.key = "none"
	s.configure("50%", "step: 10m")
	s.look(0)
	var evidence []float64
	for range 3 {
		s.attempts(1, "canary", http.StatusInternalServerError, time.Millisecond)
		s.clients-- // the next attempt is of the same request
		evidence = append(evidence, s.state().Judge.Evidence)
	}
	verify.That(t, evidence[0] > 1 && evidence[1] == evidence[0] && evidence[2] == evidence[0], "the evidence of a request after each failed attempt: %v", evidence)
}

// A canary that fails loses its share, and the feed has why. The release is over then, also if
// nobody has looked while the canary had no share.
func TestJudgeRollsBack(t *testing.T) {
	inSplit(t, "step: 10m", func(t *testing.T, s *split) {
		s.look(0)
		s.failing()
		got := s.look(0)
		verify.That(t, got.Share == 0 && got.Configured == 0.5 && got.Override != nil && got.Override.By == ByJudge && got.Override.Why == got.Judge.Verdict, "after the failures: %+v, %+v, %+v", got, got.Override, got.Judge)
		feed, _ := s.events.Read(events.Filter{}, events.ID{})
		verify.That(t, len(feed) == 2 && feed[0].Kind == events.KindShareVerdict && feed[0].Level == events.Warning && feed[1].Kind == events.KindShareGiven, "the feed has %+v", feed)
		got = s.order(Order{Verb: Release}, nil)
		verify.That(t, got.Share == 0.5 && got.Override == nil, "after the release: %+v", got)
		got = s.look(0)
		verify.That(t, got.Override == nil && got.Judge.Evidence == 1, "then: %+v, %+v", got.Override, got.Judge)
	})
}

// A judge that only reports changes nothing.
func TestJudgeReports(t *testing.T) {
	inSplit(t, "act: report", func(t *testing.T, s *split) {
		s.look(0)
		s.failing()
		got := s.look(0)
		verify.That(t, got.Share == 0.5 && got.Override == nil && got.Judge.Verdict != "", "%+v, %+v", got, got.Judge)
	})
}

// An operator's share holds until it is released, whatever the judge finds. Then the judge acts on
// that.
func TestOperatorOverrulesTheJudge(t *testing.T) {
	inSplit(t, "step: 10m", func(t *testing.T, s *split) {
		s.order(Order{Verb: Set, Share: 0.6, Why: "known failures"}, nil)
		s.look(0)
		s.failing()
		got := s.look(0)
		verify.That(t, got.Share == 0.6 && got.Override.By == ByOperator && got.Override.Why == "known failures", "%+v, %+v", got, got.Override)
		s.order(Order{Verb: Release}, nil)
		got = s.look(0)
		verify.That(t, got.Share == 0 && got.Override.By == ByJudge, "after the release: %+v, %+v", got, got.Override)
		s.order(Order{Verb: Release}, nil)
		s.order(Order{Verb: Release}, ErrNoOverride)
		s.order(Order{Verb: Resume}, ErrNotPaused)
		err := s.judge.Order(Order{Service: "star", Verb: Set, Group: "moon"})
		verify.That(t, errors.Is(err, ErrNoGroup) && err.Error() == "the split has another group: canary", "another group: %v", err)
		verify.Equal(t, s.judge.Order(Order{Service: "moon", Verb: Set}), ErrNoSplit, "another service")
	})
}

// A paused judge changes nothing until it is resumed. Then it acts on what it has found.
func TestOperatorPausesTheJudge(t *testing.T) {
	inSplit(t, "step: 10m", func(t *testing.T, s *split) {
		s.order(Order{Verb: Pause, Why: "we look at it"}, nil)
		s.look(0)
		s.failing()
		got := s.look(0)
		verify.That(t, got.Share == 0.5 && got.Judge.Paused && got.Override.Why == "we look at it", "%+v, %+v, %+v", got, got.Judge, got.Override)
		feed, _ := s.events.Read(events.Filter{Kinds: []string{string(events.KindShareVerdict)}}, events.ID{})
		verify.That(t, len(feed) == 1, "the feed has the verdicts %+v", feed)
		s.order(Order{Verb: Resume}, nil)
		got = s.look(0)
		verify.That(t, got.Share == 0 && !got.Judge.Paused && got.Override.By == ByJudge, "after the resumption: %+v, %+v", got.Judge, got.Override)
		got = s.order(Order{Verb: Pause}, nil)
		verify.That(t, got.Override.Share == 0 && got.Judge.Paused, "after a rollback: %+v", got.Override)
	})
}

// A canary that is slower than allowed loses its share.
func TestJudgeFindsSlowCanaries(t *testing.T) {
	inSplit(t, "slower: 30%", func(t *testing.T, s *split) {
		s.look(0)
		s.attempts(200, balancer.RestGroup, http.StatusOK, 100*time.Millisecond)
		s.look(0)
		s.attempts(200, "canary", http.StatusOK, 120*time.Millisecond)
		got := s.look(0)
		verify.That(t, got.Judge.SlowEvidence == 1 && got.Judge.P90MS == 120 && got.Judge.RestP90MS == 100, "as slow as allowed: %+v", got.Judge)
		s.attempts(200, "canary", http.StatusOK, 140*time.Millisecond)
		const why = "90 % of the requests take up to 140ms, 100ms with the baseline"
		got = s.look(0)
		verify.That(t, got.Share == 0 && got.Override != nil && strings.Contains(got.Override.Why, why), "slower: %+v, %+v", got, got.Override)
	})
}

// Nothing is slow while an instance of the canary is new, or if latency is not judged.
func TestLatencyThatDoesNotCount(t *testing.T) {
	for _, settings := range []string{"slower: 0", "slower: 30%"} {
		synctest.Test(t, func(t *testing.T) {
			s := newSplit(t, settings, Options{})
			s.judge.WarmUp = time.Minute
			slow := func(later time.Duration) State {
				s.attempts(200, balancer.RestGroup, http.StatusOK, 100*time.Millisecond)
				s.look(later)
				s.attempts(200, "canary", http.StatusOK, time.Second)
				return s.look(later)
			}
			s.look(0)
			got := slow(59 * time.Second)
			verify.That(t, got.Judge.SlowEvidence == 1 && got.Judge.P90MS == 0 && got.Override == nil, "%s, new: %+v", settings, got.Judge)
			got = slow(time.Minute)
			verify.That(t, (got.Override != nil) == (settings == "slower: 30%"), "%s, later: %+v", settings, got.Judge)
		})
	}
}

// A release that does not fail goes through the steps, each of which lasts.
func TestJudgeAdvances(t *testing.T) {
	inSplit(t, "steps: [50%, 75%, 100%], step: 10m", func(t *testing.T, s *split) {
		s.look(0)
		for _, group := range []string{"canary", balancer.RestGroup} {
			s.attempts(600, group, http.StatusOK, time.Millisecond)
		}
		got := s.look(10*time.Minute - time.Nanosecond)
		verify.That(t, got.Override == nil, "before the step is over: %+v", got.Override)
		got = s.look(10 * time.Minute)
		verify.That(t, got.Share == 0.75 && got.Override.By == ByJudge, "after it: %+v", got)
	})
}

// A share ends when the configuration has another one, and not before.
func TestTheConfigurationHasTheLastWord(t *testing.T) {
	inSplit(t, "step: 10m", func(t *testing.T, s *split) {
		s.order(Order{Verb: Set, Share: 0.2}, nil)
		s.configure("50%", "step: 20m")
		got := s.state()
		verify.That(t, got.Share == 0.2 && got.Configured == 0.5, "with the same split: %+v", got)
		s.configure("40%", "step: 20m")
		got = s.state()
		verify.That(t, got.Share == 0.4 && got.Override == nil, "with another one: %+v", got)
	})
}

// A replica that goes on with its configuration ends no share that others have given for another
// one: only who changes the configuration does.
func TestAConfigurationThatGoesOnEndsNoShare(t *testing.T) {
	for name, test := range map[string]struct {
		before string // the split of the process before; "unknown": there was none
		stays  bool
	}{"the same": {"split: { canary: 50%, key: header X-User }", true}, "another": {"split: { canary: 40%, key: header X-User }", false}, "none": {"", false}, "not known": {"unknown", false}} {
		t.Run(name, func(t *testing.T) {
			s := newSplit(t, "act: report", Options{})
			if test.before != "unknown" {
				s.shares.GoOn(configtest.Must(t, fmt.Sprintf("services: { star: { peers: ['127.0.0.1:1'], groups: { canary: { tags: [v2] } }, %s } }\nroutes: [{ service: star }]", test.before)))
			}
			other := Share{Service: "star", Group: "canary", Configured: 0.1, By: ByOperator, Since: time.Now().Add(-time.Hour)}
			verify.NoError(t, s.shares.Store.Put(other, false, nil))
			s.apply()
			verify.Equal(t, len(s.shares.Store.All()) == 1, test.stays, "the share stays")
		})
	}
}

// The history gets each share that has changed, and the return to the share of the configuration,
// once.
func TestRecordedShares(t *testing.T) {
	inSplit(t, "step: 10m", func(t *testing.T, s *split) {
		want := func(want ...string) {
			t.Helper()
			var got []string
			s.shares.Record(func(reason string, diff []config.Change) {
				verify.That(t, len(diff) == 1 && diff[0].Key == "services.star.split.canary", "the difference is %v", diff)
				got = append(got, reason)
			})
			verify.That(t, fmt.Sprint(got) == fmt.Sprint(want), "%q, want %q", got, want)
		}
		want()
		s.order(Order{Verb: Set, Share: 0.2, Why: "small"}, nil)
		want("operator: services.star.split.canary: 50% -> 20%: small")
		want()
		s.order(Order{Verb: Release}, nil)
		want("operator: services.star.split.canary: 20% -> 50%: the share of the configuration again")
		s.order(Order{Verb: Set, Share: 0.3}, nil)
		want("operator: services.star.split.canary: 50% -> 30%")
		s.configure("40%", "step: 10m")
		want() // the configuration's revision says it
	})
}

// A replica that has just proposed a share waits with the next proposal. A verdict changes nothing
// if an operator has just set the share, and nothing is emitted of it.
func TestProposalsAndVerdictsYield(t *testing.T) {
	s := newSplit(t, "step: 10m", Options{Backing: operator.Backing{Prefix: "edge/canary"}}).shares
	override := Share{Service: "star", Group: "canary", Share: 0.7, Configured: 0.5}
	for i, want := range []bool{true, false} {
		got := s.propose(override)
		verify.That(t, got == want, "proposal %d: %v", i+1, got)
	}
	_, ok := s.overrideOf("star")
	verify.That(t, !ok, "a proposal counts before Consul has it")
	override.Share, override.By = 0.3, ByOperator
	verify.NoError(t, s.give(override))
	override.Share, override.By = 0, ByJudge
	verify.Equal(t, s.giveByVerdict(override, func() { t.Error("the verdict is emitted") }), errOverruled, "the verdict")
	got, _ := s.overrideOf("star")
	verify.That(t, got.Share == 0.3, "%+v", got)
}
