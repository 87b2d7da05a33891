package release

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/operator"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// newReplica returns a split that shares what is given through Consul, until the test ends. The
// result of leave is that it does no more.
func newReplica(t *testing.T, name, url, settings string) (s *split, leave func()) {
	t.Helper()
	client := verify.Result(consul.New(consul.Options{Addresses: []string{url}, Log: zerolog.Nop()})).Must(t)
	s = newSplit(t, settings, Options{
		Backing: operator.Backing{Consul: client, Prefix: "edge/canary", Wait: func() time.Duration { return 2 * time.Second }},
		Replica: func() string { return name },
	})
	s.judge.JudgeAll(time.Now()) // it judges from now on
	s.shares.Store.Resume()
	leave = func() {
		s.shares.Store.Pause()
		client.Close()
	}
	t.Cleanup(leave)
	return s, leave
}

// await applies what the replica knows until a condition holds.
func (s *split) await(what string, f func(State) bool) {
	s.t.Helper()
	consultest.Await(s.t, what, func() bool {
		s.apply()
		return f(s.state())
	})
}

// Only one replica moves a share on: the one with the oldest lock. Without Consul no share grows.
func TestOneReplicaMovesSharesOn(t *testing.T) {
	t.Parallel()
	const settings = "steps: [50%, 75%, 100%], step: 10m"
	agent := consultest.Start(t, consultest.Options{})
	a, leave := newReplica(t, "a", agent.URL(), settings)
	a.await("the first leads", func(s State) bool { return s.Shared.Leads })
	relay := consultest.StartRelay(t, agent.HTTPAddress())
	b, _ := newReplica(t, "b", relay.URL(), settings)
	for _, s := range []*split{a, b} {
		s.await("two judges", func(s State) bool { return s.Shared.Judges == 2 })
		s.attempts(600, "canary", http.StatusOK, time.Millisecond)
	}
	got := b.look(11 * time.Minute)
	verify.That(t, !got.Shared.Leads && !got.Shared.Pending, "the second replica moves the share on: %+v", got.Shared)
	a.look(11 * time.Minute)
	for _, s := range []*split{a, b} {
		s.await("75 % by a judge", func(s State) bool { return s.Share == 0.75 && s.Override.By == ByJudge })
	}

	leave()
	b.await("the other leads", func(s State) bool { return s.Shared.Leads })
	relay.Cut()
	b.await("Consul is away", func(s State) bool { return s.Shared.Error != "" })
	advance := func() State {
		b.attempts(600, "canary", http.StatusOK, time.Millisecond)
		b.look(20 * time.Minute) // a new share
		return b.look(40 * time.Minute)
	}
	got = advance()
	verify.That(t, got.Share == 0.75 && !got.Shared.Pending, "without Consul: %+v, %+v", got, got.Shared)
	relay.Heal()
	b.await("Consul is back", func(s State) bool { return s.Shared.Error == "" })
	b.await("the next share is in use", func(s State) bool {
		advance() // a write may fail
		b.shares.mu.Lock()
		clear(b.shares.proposed)
		b.shares.mu.Unlock()
		return s.Share == 1 && s.Override.By == ByJudge
	})
}

// A deletion of all keys, also of the locks of the replicas, whose sessions go on, ends no release.
func TestSharesGrowAfterTheLocksAreDeleted(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	a, _ := newReplica(t, "a", agent.URL(), "")
	b, _ := newReplica(t, "b", agent.URL(), "")
	var deleted uint64 // the index of the deletion
	for _, when := range []string{"at first", "after the deletion"} {
		consultest.Await(t, when+": two locks", func() bool {
			locks, _, err := agent.Client().KV().List("edge/canary/judges/", nil)
			return err == nil && len(locks) == 2 && !slices.ContainsFunc(locks, func(p *api.KVPair) bool { return p.CreateIndex <= deleted })
		})
		for _, s := range []*split{a, b} {
			s.await(when+": two judges", func(s State) bool { return s.Shared.Judges == 2 })
		}
		consultest.Await(t, when+": one of them leads", func() bool { return a.state().Shared.Leads != b.state().Shared.Leads })
		_, err := agent.Client().KV().DeleteTree("edge/canary/", nil)
		verify.NoError(t, err)
		_, meta, err := agent.Client().KV().List("edge/canary/", nil)
		verify.NoError(t, err)
		deleted = meta.LastIndex
	}
}

// A judge that decides while an operator sets the share has not seen that: its proposal changes
// nothing, although it comes after.
func TestAProposalYieldsToAnOperator(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	a, _ := newReplica(t, "a", agent.URL(), "steps: [50%, 100%], step: 10m")
	a.await("it leads", func(s State) bool { return s.Shared.Leads })
	decided, _ := a.shares.replacing("star", 1, ByJudge, "no worse")
	a.order(Order{Verb: Set, Share: 0.3}, nil)
	a.await("Consul has the share", func(State) bool { return !a.shares.Store.Entry(Key("star")).Changing })
	verify.That(t, a.shares.propose(decided), "nothing is proposed")
	a.await("the proposal is over", func(State) bool { return !a.shares.Store.Entry(Key("star")).Changing })
	got := a.state()
	verify.That(t, got.Share == 0.3 && got.Override.By == ByOperator, "%+v, %+v", got, got.Override)
}
